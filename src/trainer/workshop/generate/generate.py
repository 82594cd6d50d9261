"""A chat set from documents: plan and quote it, then generate it; read it top to bottom.

plan = make_plan(settings)
with plan:
    result = generate(plan, agreed=plan.quote, progress=print)
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from trainer.backends.chat_endpoint import ChatEndpoint
from trainer.backends.quote import Quote
from trainer.data.files.new_files import refuse_new_files
from trainer.data.quoting import counted
from trainer.data.read.rows import FileReader
from trainer.errors import Attempts, ConfigError, DataError, quoted
from trainer.extras import need
from trainer.workshop.asking.budget import Budget, Prices, TokenNeed, hold_agreed, limit_of, prices_for, quote_need
from trainer.workshop.asking.endpoint import ChatAddress, connect, place_of
from trainer.workshop.asking.numbers import limits, wrong
from trainer.workshop.asking.sender import (
    Answers,
    Ended,
    KeptAnswers,
    Missing,
    RequestRefused,
    Sender,
    Unfinished,
    answered,
)
from trainer.workshop.asking.side_by_side import side_by_side
from trainer.workshop.asking.store import AnswerStore, total
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.documents.read import CHUNK_CHARACTERS, read_documents
from trainer.workshop.generate.chunk_work import ChunkOutcome, Task, steps
from trainer.workshop.generate.kind import Brief, Row
from trainer.workshop.generate.kinds import find_kind
from trainer.workshop.generate.need import need_of
from trainer.workshop.generate.output import OutputFiles, write_files
from trainer.workshop.generate.rows import Sifted, first_rows, sift
from trainer.workshop.generate.variety import order_key

Say = Callable[[str], None]
MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a set depends on, in the words of the command's options."""

    sources: tuple[Path, ...]
    output: Path
    endpoint: str
    model: str
    kind: str = "qa"
    rows_per_chunk: int = 3
    rows: int | None = None
    chunk_size: int = CHUNK_CHARACTERS
    language: str | None = None
    tone: str | None = None
    system: str | None = None
    labels: tuple[str, ...] = ()
    examples: Path | None = None
    judge: bool = True
    validation_share: float = 0.1
    seed: int = 0
    max_tokens: int = 2048
    temperature: float = 0.7
    concurrency: int = 4
    cap: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    key_variable: str | None = None
    force: bool = False
    aside: Path | None = None  # the folder of answers and provenance; None: beside the output


@dataclass(frozen=True, slots=True)
class Progress:
    """State after a chunk. `sample` is one of its rows; costs are None where no price is known."""

    chunks_done: int
    chunks: int
    rows: int
    dropped: int
    failures: int
    cost: float | None
    sample: Row | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """Outcome of a generated set. `unknown_cost` is the most that `unknown_requests` may have cost; part of `cost`."""

    files: OutputFiles
    rows: int
    validation_rows: int
    dropped: dict[str, int]
    failures: tuple[str, ...]
    chunks: int
    requests: int  # of this call; answers kept from before are not asked for again
    input_tokens: int
    output_tokens: int
    cost: float | None
    unknown_requests: int
    unknown_cost: float | None


@dataclass(slots=True)
class GenerationPlan:
    """A set that can be generated: its chunks in the order in which they are asked for, and the quote of the rest.

    It holds the lock of the side folder until it is closed.
    """

    settings: Settings
    task: Task
    chunks: tuple[Chunk, ...]
    place: ChatAddress
    prices: Prices
    endpoint: ChatEndpoint
    store: AnswerStore
    quote: Quote
    known: dict[str, ChunkOutcome] = field(default_factory=dict)  # of chunks whose answers are all kept

    @property
    def files(self) -> OutputFiles:
        return OutputFiles.of(self.settings.output, self.settings.aside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()

    def facts(self) -> list[tuple[str, str]]:
        """The plan as a person reads it."""
        settings, num_sources = self.settings, len({chunk.source for chunk in self.chunks})
        wanted = f"{settings.rows:,} rows" if settings.rows else f"{settings.rows_per_chunk} rows from each chunk"
        facts = [
            ("sources", f"{counted(num_sources, 'file')}, {counted(len(self.chunks), 'chunk')}"),
            ("rows", f"{settings.kind}, {wanted}{'' if settings.judge else ', not judged'}"),
            ("endpoint", f"{settings.model} at {self.place.url}"),
        ]
        if self.known:
            facts.append(("kept", f"{counted(len(self.known), 'chunk')} answered before"))
        if lost := self.store.unknown:
            unknown = f"{counted(len(lost), 'request')} without an answer before, which may have been paid"
            facts.append(("unknown", unknown))
        if not self.quote.bills and self.prices.is_free:
            facts.append(("cost", f"none: {self.prices.source}"))
        return facts

    def order(self) -> list[Chunk]:
        """Chunks as they are asked for: all in the order of the sources, or some of them from everywhere."""
        if self.settings.rows is None:
            return list(self.chunks)
        return sorted(self.chunks, key=lambda chunk: order_key("chunks", self.settings.seed, chunk.id))


def make_plan(settings: Settings, say: Say = lambda line: None) -> GenerationPlan:
    """Read the sources, find the answers that are kept, and quote the rest; nothing is sent.

    Raises: ConfigError, DataError, MissingDependency.
    """
    need("trainer data generate", "numpy", "ftfy", "azure.core", extra="workshop")
    attempts = Attempts()
    attempts.make(_refuse_numbers, settings)
    place = attempts.make(place_of, settings.endpoint)
    kind = attempts.make(find_kind, settings.kind)
    files = OutputFiles.of(settings.output, settings.aside)
    attempts.make(
        partial(refuse_new_files, force=settings.force), files.files(settings.validation_share > 0), _real(settings)
    )
    examples = attempts.make(_examples, settings.examples)
    attempts.end()
    assert place is not None
    assert kind is not None
    if kind.needs_judge and not settings.judge:
        raise ConfigError(f"--no-judge: is given with --kind {kind.name}, whose rows the judge decides; remove it")
    if lacking := [name for name in kind.needs if not getattr(settings, name)]:
        raise ConfigError(*(f"--{name}: is missing, --kind {kind.name} needs it; add it" for name in lacking))
    if settings.labels and "labels" not in kind.needs:
        raise ConfigError(
            f"--labels: is given with --kind {kind.name}, whose rows have none; remove it, or write --kind classify"
        )
    if "labels" in kind.needs and len(set(settings.labels)) < 2:
        raise ConfigError(f"--labels: has {len(set(settings.labels))}, expected two or more; add others")
    brief = Brief(settings.language, settings.tone, settings.system, settings.labels, tuple(examples or ()))
    task = Task(
        kind, brief, settings.rows_per_chunk, settings.judge, settings.seed, settings.max_tokens, settings.temperature
    )
    prices = prices_for(place, settings.model, settings.price_in, settings.price_out)
    endpoint = connect(place, settings.model, settings.key_variable)
    chunks = read_documents(settings.sources, chunk_characters=settings.chunk_size, on_note=say)
    if kind.needs_function:
        chunks = [chunk for chunk in chunks if chunk.function]
        functions = tuple(dict.fromkeys(chunk.function for chunk in chunks))
        task = replace(task, brief=replace(brief, functions=functions))
    if not chunks:
        wanted = "operations of an API, such as those of an OpenAPI file" if kind.needs_function else "text"
        raise DataError(f"{settings.sources[0]}: holds nothing to write about, expected {wanted}; name other sources")
    plan = GenerationPlan(
        settings, task, tuple(chunks), place, prices, endpoint, AnswerStore(files.side, place.url, settings.model),
        Quote((), prices.source),
    )  # fmt: skip
    try:
        _quote(plan)
    except BaseException:
        plan.store.close()
        raise
    return plan


def generate(
    plan: GenerationPlan,
    agreed: Quote,
    progress: Callable[[Progress], None] = lambda state: None,
    stop: threading.Event | None = None,
) -> Generated:
    """Ask for what is missing and write the files. `stop` ends it after the requests that are on their way.

    Raises: ConfigError, above the price that was agreed to; Unfinished, where it ends early: nothing is written then,
    and all answers are kept; DataError, where no row is left.
    """
    hold_agreed(plan.quote, agreed)
    limit = limit_of(plan.quote, plan.prices, plan.settings.cap, plan.store.spent)
    sender = Sender(plan.endpoint, plan.place, plan.store, plan.prices, Budget(limit, plan.store.spent))
    if stop is not None:
        sender.stop = stop
    report = _Report(sender.budget, plan.prices.input is not None, progress)
    try:
        outcomes = _outcomes(plan, sender, report)
    except Ended as ended:
        is_capped = sender.is_at_limit and plan.settings.cap is not None
        raise Unfinished(_how_to_go_on(plan, report, str(ended), is_capped), str(ended)) from None
    return _finish(plan, outcomes, sender.num_sent)


def finish_early(plan: GenerationPlan) -> Generated:
    """Write the files from the answers that are kept; nothing is sent. Raises: DataError, where no row is left."""
    return _finish(plan, plan.known, 0)


def _refuse_numbers(settings: Settings) -> None:
    rows, share = settings.rows, settings.validation_share
    problems = wrong(
        (
            ("rows-per-chunk", settings.rows_per_chunk, "1 to 20", 1 <= settings.rows_per_chunk <= 20),
            ("rows", 1 if rows is None else rows, "1 or more", rows is None or rows >= 1),
            ("validation-share", share, "0 or more, and less than 1", 0 <= share < 1),
            ("temperature", settings.temperature, "0 to 2", 0 <= settings.temperature <= 2),
            *limits(settings),
        )
    )
    if not settings.output.name.endswith(".jsonl"):
        problems.append(f"--output: is {str(settings.output)!r}, expected a name that ends with .jsonl; correct it")
    texts = ("language", "tone", "system", "model")
    problems += [
        f"--{name}: is {quoted(words)}, expected text of UTF-8; correct it"
        for name in texts
        if (words := getattr(settings, name) or "").encode("utf-8", "replace").decode() != words
    ]
    if problems:
        raise ConfigError(*problems)


def _real(settings: Settings) -> list[Path]:
    """The files among the sources, which no output may replace."""
    return [path for path in (*settings.sources, settings.examples) if path is not None and path.is_file()]


def _examples(path: Path | None) -> list[Row]:
    """The first rows of a file of examples. Raises: DataError, where one breaks a rule."""
    if path is None:
        return []
    reader = FileReader(path)
    rows = [reader.value for _ in reader]
    errors = [str(finding) for finding in reader.report([]).findings if finding.severity == "error"]
    if errors or not rows:
        raise DataError(*(errors or [f"{path}: holds no row, expected examples; name another file"]))
    return rows[:MOST_EXAMPLES]


def _quote(plan: GenerationPlan) -> None:
    """Find what is kept, and quote the rest."""
    plan.store.recover(plan.prices.paid)
    kept = KeptAnswers(plan.store)
    needs: dict[str, TokenNeed] = {}
    for chunk in plan.chunks:
        try:
            plan.known[chunk.id] = work_on(plan.task, chunk, kept)
        except Missing as missing:
            needs[chunk.id] = need_of(plan.task, chunk, missing.request)
    _, wave = next_wave(plan, plan.known)
    needed = sum((needs[chunk.id] for chunk in wave), TokenNeed())
    plan.quote = quote_need(
        needed, plan.prices, plan.settings.cap, plan.store.spent, len(plan.store), counted(len(wave), "chunk")
    )


def work_on(task: Task, chunk: Chunk, answers: Answers) -> ChunkOutcome:
    """The outcome of a chunk. Raises: what `answers` raises; RequestRefused is an outcome."""
    try:
        return answered(steps(task, chunk), answers)
    except RequestRefused as refused:
        return ChunkOutcome(chunk, failure=str(refused))


class _Report:
    """Progress so far, told after each chunk."""

    def __init__(self, budget: Budget, is_priced: bool, tell: Callable[[Progress], None]) -> None:
        self._budget, self._is_priced, self._tell, self._lock = budget, is_priced, tell, threading.Lock()
        self.done = self.total = self.rows = self.dropped = self.failures = 0

    def begin(self, outcomes: Iterable[ChunkOutcome], more: int) -> None:
        """Count what is done already; `more` chunks come."""
        if not self.done:
            for outcome in outcomes:
                self._count(outcome)
        self.total = self.done + more

    def add(self, outcome: ChunkOutcome) -> None:
        """Count one more chunk and tell."""
        with self._lock:
            self._count(outcome)
            sample = outcome.rows[0].row if outcome.rows else None
            cost = self._budget.spent if self._is_priced else None
            self._tell(Progress(self.done, self.total, self.rows, self.dropped, self.failures, cost, sample))

    def _count(self, outcome: ChunkOutcome) -> None:
        self.done += 1
        self.rows += len(outcome.rows)
        self.dropped += len(outcome.dropped)
        self.failures += bool(outcome.failure)


def next_wave(plan: GenerationPlan, outcomes: dict[str, ChunkOutcome]) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks whose rows count, and those of them that have no outcome yet; none when there are rows enough.

    A wave has the chunks that give the missing rows if none is dropped. It is the same whatever was kept, and in which
    order: another one begins only when the one before is complete.
    """
    order, taken = plan.order(), list[Chunk]()
    while True:
        count = len(order)
        if plan.settings.rows is not None and len(taken) < len(order):
            lacking = plan.settings.rows - len(_sifted(plan, {chunk.id: outcomes[chunk.id] for chunk in taken}).rows)
            count = max(0, -(-lacking // plan.settings.rows_per_chunk))
        wave = order[len(taken) : len(taken) + count]
        taken += wave
        if not wave or (missing := [chunk for chunk in wave if chunk.id not in outcomes]):
            return taken, missing if wave else []


def _outcomes(plan: GenerationPlan, sender: Sender, report: _Report) -> dict[str, ChunkOutcome]:
    """The outcomes of all chunks, or of as many as give the rows that are wanted. Raises: Ended."""
    outcomes = dict(plan.known)
    while True:
        taken, missing = next_wave(plan, outcomes)
        if not missing:
            return {chunk.id: outcomes[chunk.id] for chunk in taken}
        report.begin([outcomes[chunk.id] for chunk in taken if chunk.id in outcomes], len(missing))
        _ask_all(plan, sender, missing, outcomes, report)


def _ask_all(
    plan: GenerationPlan, sender: Sender, wave: Sequence[Chunk], outcomes: dict[str, ChunkOutcome], report: _Report
) -> None:
    """Work on chunks side by side; on the first one alone, which shows a wrong key or name by one request."""

    def ask(chunk: Chunk) -> None:
        outcome = work_on(plan.task, chunk, sender)
        outcomes[chunk.id] = outcome
        report.add(outcome)

    rest = deque(wave)
    if not sender.num_sent:
        ask(rest.popleft())
    side_by_side(ask, rest, plan.settings.concurrency, sender.stop)


def _sifted(plan: GenerationPlan, outcomes: dict[str, ChunkOutcome]) -> Sifted:
    """The rows of the outcomes in the order of the sources."""
    there = [outcomes[chunk.id] for chunk in plan.chunks if chunk.id in outcomes]
    order = [chunk.id for chunk in plan.order()]
    return first_rows(sift(there, plan.task.kind), plan.settings.rows, order)


def _finish(plan: GenerationPlan, outcomes: dict[str, ChunkOutcome], num_sent: int) -> Generated:
    """Write the files. Raises: DataError, where no row is left."""
    settings, sifted = plan.settings, _sifted(plan, outcomes)
    failed = [outcomes[chunk.id] for chunk in plan.chunks if chunk.id in outcomes and outcomes[chunk.id].failure]
    failures = tuple(f"{outcome.chunk.citation}: {outcome.failure}" for outcome in failed)
    dropped = Counter(example.reason[0] for example in sifted.dropped if example.reason)
    if not sifted.rows:
        reasons = ", ".join(f"{count:,} {code}" for code, count in dropped.most_common())
        shown = [f"{settings.output}: no row is left, expected one or more; dropped: {reasons or 'none'}"]
        raise DataError(*shown, *failures)
    about = {"model": settings.model, "endpoint": plan.place.url, "kind": settings.kind}
    written = write_files(
        plan.files, sifted, failed, settings.validation_share, settings.seed, about, _real(settings), settings.force
    )
    paid, unknown = plan.store.paid, plan.store.unknown
    return Generated(
        plan.files,
        written.rows,
        written.validation_rows,
        dict(sorted(dropped.items())),
        failures,
        len(outcomes),
        num_sent,
        sum(entry.facts.get("input_tokens") or 0 for entry in paid),
        sum(entry.facts.get("output_tokens") or 0 for entry in paid),
        plan.store.cost,
        len(unknown),
        total(entry.facts.get("most") for entry in unknown),
    )


def _how_to_go_on(plan: GenerationPlan, report: _Report, reason: str, is_capped: bool) -> str:
    if not len(plan.store):
        return f"{reason}; nothing was answered yet: put it right and run the same command again"
    done = f"{report.done:,} of {counted(report.total, 'chunk')} done"
    more = " with a greater --cap" if is_capped else ""
    return (
        f"{reason}; {done}, every answer is kept in {plan.files.side}: the same command{more} resumes without paying "
        "for them again, and with --finish it writes the rows that are there"
    )
