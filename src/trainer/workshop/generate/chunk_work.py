"""Work on one chunk: examples are asked for, read, held against the source and judged."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.workshop.asking.repair import Unread, asked
from trainer.workshop.asking.request import Answer, Request, Stage
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.kind import Brief, Item, Kind, Row, Unusable, hold_quote
from trainer.workshop.generate.prompts import to_judge, to_write
from trainer.workshop.generate.variety import Slot, draw_slots

Steps = Generator[Request, Answer, "ChunkOutcome"]  # asks, is sent the answers, and returns


@dataclass(frozen=True, slots=True)
class Task:
    """All that is the same for each chunk."""

    kind: Kind
    brief: Brief
    rows_per_chunk: int
    judges: bool
    seed: int
    max_tokens: int
    temperature: float

    def request(self, stage: Stage, chunk: Chunk, messages: list[dict[str, str]], judging: bool = False) -> Request:
        schema = self.kind.verdict_schema() if judging else self.kind.answer_schema(self.brief)
        name, heat = ("verdicts", 0.0) if judging else ("examples", self.temperature)
        return Request(stage, chunk.id, messages, name, schema, self.max_tokens, heat, self.seed)

    def first_request(self, chunk: Chunk) -> Request:
        """The request for a chunk's examples."""
        return self.request("write", chunk, to_write(self.kind, self.brief, chunk, self.slots(chunk)))

    def slots(self, chunk: Chunk) -> tuple[Slot, ...]:
        return draw_slots(self.kind, self.brief, chunk.id, self.seed, self.rows_per_chunk)


@dataclass(frozen=True, slots=True)
class Made:
    """A row with its origin, or an example that was dropped (`reason`), which has no row where it could not be one."""

    chunk: Chunk
    slot: Slot | None
    item: Item
    row: Row | None
    requests: tuple[str, ...] = ()  # the service's names of the requests
    verdict: str | None = None  # the judge's reason
    reason: tuple[str, str] | None = None  # a word and a sentence


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """The rows of a chunk, the dropped examples, and the failure that left it without."""

    chunk: Chunk
    rows: tuple[Made, ...] = ()
    dropped: tuple[Made, ...] = ()
    failure: str = ""


@dataclass(slots=True)
class _Examples:
    """The examples of one chunk on their way."""

    task: Task
    chunk: Chunk
    kept: dict[int, tuple[Slot, Item]] = field(default_factory=dict)
    rows: list[Made] = field(default_factory=list)
    dropped: list[Made] = field(default_factory=list)
    requests: tuple[str, ...] = ()

    def note(self, answer: Answer) -> None:
        self.requests += (answer.id,)

    def drop(self, item: Item, slot: Slot | None, code: str, reason: str, verdict: str | None = None) -> None:
        self.dropped.append(Made(self.chunk, slot, item, None, self.requests, verdict, (code, reason)))

    def take(self, items: list[Any]) -> None:
        """Keep the examples that were asked for and whose quote is in the source."""
        wanted = {slot.number: slot for slot in self.task.slots(self.chunk)}
        for item in items:
            slot = wanted.pop(item["number"], None)
            if slot is None:
                self.drop(item, None, "unwanted", "it is not one of the examples that were asked for")
                continue
            try:
                hold_quote(item, self.chunk)
            except Unusable as problem:
                self.drop(item, slot, "ungrounded", str(problem))
            else:
                self.kept[slot.number] = slot, item

    def finish(self, verdicts: Mapping[int, Item] | None) -> None:
        """Make rows of the examples that pass."""
        for number, (slot, item) in sorted(self.kept.items()):
            verdict = None if verdicts is None else verdicts.get(number)
            said = None if verdict is None else str(verdict["reason"])
            if verdicts is not None and verdict is None:
                self.drop(item, slot, "unjudged", "the judge gave no verdict on it")
            elif verdict is not None and not verdict["supported"]:
                self.drop(item, slot, "unsupported", f"the judge: {said}", said)
            else:
                self._make(slot, item, verdict, said)

    def _make(self, slot: Slot, item: Item, verdict: Item | None, said: str | None) -> None:
        try:
            row = self.task.kind.row(item, verdict, self.chunk, self.task.brief)
        except Unusable as problem:
            self.drop(item, slot, "unusable", str(problem), said)
        else:
            self.rows.append(Made(self.chunk, slot, item, row, self.requests, said))


def steps(task: Task, chunk: Chunk) -> Steps:
    """The requests of a chunk, one after the other. Whoever drives it sends each answer in."""
    examples = _Examples(task, chunk)
    try:
        written = yield from asked(task.first_request(chunk), "write", examples.note)
        examples.take(written["examples"])
        verdicts = None
        if task.judges and examples.kept:
            items = [item for _, (_, item) in sorted(examples.kept.items())]
            judging = task.request("judge", chunk, to_judge(task.kind, task.brief, chunk, items), judging=True)
            judged = yield from asked(judging, "judge", examples.note)
            verdicts = {verdict["number"]: verdict for verdict in reversed(judged["verdicts"])}
        examples.finish(verdicts)
    except Unread as problem:
        for slot, item in examples.kept.values():
            examples.drop(item, slot, "unjudged", "the judge's answer cannot be used")
        return ChunkOutcome(chunk, (), tuple(examples.dropped), str(problem))
    return ChunkOutcome(chunk, tuple(examples.rows), tuple(examples.dropped))
