"""What only several rows show together: repeated rows, validation rows that are trained, stray system prompts."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from trainer.data.conversations import Conversation, Message
from trainer.data.findings import FindingList
from trainer.data.quoting import listed, printable
from trainer.data.rules import Severity

MIN_ROWS_FOR_A_HABIT = 10
FEW_ROWS_SHARE = 0.1
NUM_LISTED_PLACES = 5

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Digests of a row: `exact` as written, the others without regard to white space and `row` not to weights."""

    exact: bytes
    row: bytes
    prompt: bytes
    weights: tuple[int, ...]
    has_prompt: bool


def fingerprints(conversations: Iterable[Conversation]) -> Iterator[Fingerprint]:
    """The fingerprint of each conversation."""
    tools: dict[int, bytes] = {}  # by identity: rows with equal tools share one tuple
    for row in conversations:
        if id(row.tools) not in tools:
            tools[id(row.tools)] = _digest(json.dumps(row.tools), b"") if row.tools else b""
        yield _fingerprint(row, tools[id(row.tools)])


def _fingerprint(conversation: Conversation, tools: bytes) -> Fingerprint:
    messages = conversation.messages
    folded = [_joined(message, " ".join((message.content or "").split())) for message in messages]
    exact = [_joined(message, message.content or "") for message in messages]
    weights = tuple(message.weight for message in messages)
    prompt = _digest("\0".join(folded[:-1]), tools)
    return Fingerprint(
        _digest("\0".join(exact), tools), _digest(folded[-1], prompt), prompt, weights, has_prompt=len(messages) > 1
    )


def _joined(message: Message, content: str) -> str:
    """What a message says besides its weight; most messages have a role and a text only."""
    others = (message.name, message.tool_call_id, message.tool_calls, message.refusal, message.images)
    return f"{message.role}\1{content}\1{others}" if any(others) else f"{message.role}\1{content}"


def _digest(text: str, more: bytes) -> bytes:
    return blake2b(text.encode() + more, digest_size=16).digest()


@dataclass(slots=True)
class RowComparison:
    """Compares rows as they come, training files first; keeps digests and places only."""

    allow_leak: bool = False
    _first: dict[tuple[bytes, tuple[int, ...]], tuple[Place, bytes]] = field(default_factory=dict)
    _answers: dict[bytes, tuple[Place, bytes]] = field(default_factory=dict)
    _trained: dict[bytes, Place] = field(default_factory=dict)

    @property
    def leak_severity(self) -> Severity:
        return "warning" if self.allow_leak else "error"

    def compare(self, conversations: Sequence[Conversation], findings: FindingList, *, training: bool) -> None:
        """Note which of `conversations` repeat or contradict an earlier one."""
        for row, seen in zip(conversations, fingerprints(conversations), strict=True):
            findings.line = row.line
            self._compare(seen, (row.file, row.line), findings, training)

    def _compare(self, seen: Fingerprint, place: Place, findings: FindingList, training: bool) -> None:
        first, exact = self._first.setdefault((seen.row, seen.weights), (place, seen.exact))
        leaked_from = None if training else self._trained.get(seen.row)
        other, answer = self._answers.setdefault(seen.prompt, (place, seen.row))
        if training:
            self._trained.setdefault(seen.row, place)
        if leaked_from:
            found = f"also stands in {_named(leaked_from, place)}"
            findings.add("LEAK", "the row", found, "a row that is not trained", severity=self.leak_severity)
        elif first != place and exact == seen.exact:
            findings.add("DUPLICATE", "the row", f"is the same as {_named(first, place)}", "every row once")
        elif first != place:
            found = f"differs from {_named(first, place)} in white space only"
            findings.add("NEAR_DUPLICATE", "the row", found, "every row once")
        elif answer != seen.row and seen.has_prompt:
            found = f"has the same prompt as {_named(other, place)} and another answer"
            findings.add("SAME_PROMPT", "the row", found, "one answer to a prompt")


def system_prompt(row: Conversation) -> str | None:
    """The first system prompt of a row with its white space folded, None where it has none."""
    texts = (message.content or "" for message in row.messages if message.role in ("system", "developer"))
    text = next(texts, None)
    return None if text is None else " ".join(text.split())


class SystemPrompts:
    """Counts the system prompts of the training rows, none being one of them."""

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()
        self._places: dict[bytes, list[Place]] = {}

    def count(self, row: Conversation) -> None:
        text = system_prompt(row)
        prompt = b"" if text is None else _digest(text, b"system")
        self._counts[prompt] += 1
        places = self._places.setdefault(prompt, [])
        if len(places) < NUM_LISTED_PLACES:
            places.append((row.file, row.line))

    def stray_rows(self) -> tuple[int, int, list[Place]] | None:
        """(rows with the usual prompt, rows with another, the first of these), where nearly all rows share one."""
        num_rows = self._counts.total()
        if num_rows < MIN_ROWS_FOR_A_HABIT:
            return None
        usual, num_usual = self._counts.most_common(1)[0]
        num_stray = num_rows - num_usual
        if not 0 < num_stray <= FEW_ROWS_SHARE * num_rows:
            return None
        places = sorted(place for prompt, places in self._places.items() if prompt != usual for place in places)
        return num_usual, num_stray, places[:NUM_LISTED_PLACES]


def note_stray_prompts(prompts: SystemPrompts, findings: dict[str, FindingList]) -> None:
    """One finding at the first row whose system prompt differs from that of nearly all others."""
    if not (stray := prompts.stray_rows()):
        return
    num_usual, num_stray, places = stray
    notes = findings[places[0][0]]
    notes.line = places[0][1]
    shown = [_named(place, places[0]) for place in places] + (["more"] if num_stray > len(places) else [])
    found = f"differs from that of {num_usual} other rows"
    if num_stray > 1:
        found += f", as it does in {num_stray} rows ({listed(shown)})"
    notes.add("SYSTEM_PROMPTS", "the system prompt", found, "the same for all rows")


def _named(place: Place, seen_from: Place) -> str:
    return f"line {place[1]}" if place[0] == seen_from[0] else f"{printable(place[0])}:{place[1]}"
