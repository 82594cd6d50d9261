"""Rules on several rows: repeated rows, validation rows that are trained, stray system prompts."""

import json
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from trainer.data.conversations import Conversation, Message
from trainer.data.quoting import listed, printable
from trainer.data.rules.findings import FindingList
from trainer.data.rules.rule import Severity
from trainer.data.rules.tools import MAX_KNOWN_CHARS, MAX_KNOWN_LISTS

MIN_ROWS_FOR_A_HABIT = 10
FEW_ROWS_SHARE = 0.1
NUM_LISTED_PLACES = 5

Place = tuple[str, int]


class RowPlaces:
    """Files and lines of rows, by their number: eight bytes a row."""

    def __init__(self) -> None:
        self._lines = array("Q")
        self._starts: list[int] = []  # the number of each file's first row
        self._files: list[str] = []

    def add(self, file: str, line: int) -> int:
        """The number of a new row."""
        if not self._files or self._files[-1] != file:
            self._starts.append(len(self._lines))
            self._files.append(file)
        self._lines.append(line)
        return len(self._lines) - 1

    def __getitem__(self, row: int) -> Place:
        return self._files[bisect_right(self._starts, row) - 1], self._lines[row]


class Fingerprint(NamedTuple):
    """Digests of a row: `exact` as written, the others without regard to white space and `row` not to weights.

    `row` has 128 bits, since it decides what is a leak; the others have 64 and decide between warnings.
    """

    exact: int
    row: int
    prompt: int
    weights: tuple[int, ...]

    @property
    def has_prompt(self) -> bool:
        return len(self.weights) > 1


def fingerprints(conversations: Iterable[Conversation]) -> Iterator[Fingerprint]:
    """The fingerprint of each conversation."""
    tools = ToolDigests()
    return (fingerprint(row, tools) for row in conversations)


def fingerprint(row: Conversation, tools: "ToolDigests") -> Fingerprint:
    """The digests of one row; `tools` keeps those of the lists of tools."""
    *before, last = [_joined(message) for message in row.messages]
    if row.non_preferred:  # two answers are a row's own, whatever else is preferred to its prompt
        said = [_joined(message) for message in row.non_preferred]
        last = " \3 ".join([*before[row.num_prompt :], last, *said])
        before = before[: row.num_prompt]
    before.append(tools.of(row) if row.tools else "")
    prompt, answer = " \0 ".join(before), f" {last} "
    folded = " ".join(prompt.split())
    text = f"{folded} \2 {' '.join(answer.split())}".encode()
    digest = int.from_bytes(blake2b(text, digest_size=16).digest())
    weights = tuple([message.weight for message in row.messages])
    return Fingerprint(hash((prompt, answer)), digest, hash(folded), weights)


def _joined(message: Message) -> str:
    """Content of a message besides its weight; most messages have a role and a text only."""
    others = (message.name, message.tool_call_id, message.tool_calls, message.refusal, message.images)
    said = f"{message.role} \1 {message.content or ''}"
    if message.reasoning_content:
        said += f" \4 {message.reasoning_content}"
    return f"{said} \1 {others}" if any(others) else said


class ToolDigests:
    """Digests of lists of tools, each made once: rows with equal tools share them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}  # by identity, which holds while the list is kept here

    def of(self, row: Conversation) -> str:
        """Digest of the row's tools in hexadecimal."""
        tools, digest = self._known.get(id(row.tools), (None, ""))
        if tools is row.tools:
            return digest
        text = json.dumps(row.tools)
        digest = blake2b(text.encode(), digest_size=16).hexdigest()
        if len(text) <= MAX_KNOWN_CHARS:
            if len(self._known) == MAX_KNOWN_LISTS:
                self._known.clear()
            self._known[id(row.tools)] = row.tools, digest
        return digest


@dataclass(slots=True)
class RowComparison:
    """Compares rows as they come, training files first; keeps numbers and digests only."""

    allow_leak: bool = False
    _tools: ToolDigests = field(default_factory=ToolDigests)
    _places: RowPlaces = field(default_factory=RowPlaces)
    _first: dict[int, int] = field(default_factory=dict)  # row and weights -> number of the first such row
    _weighted: dict[int, int] = field(default_factory=dict)  # row -> first training row, where not all weights are 1
    _prompts: dict[int, int] = field(default_factory=dict)  # prompt -> first row
    _exact: "array[int]" = field(default_factory=lambda: array("q"))
    _rows: "array[int]" = field(default_factory=lambda: array("q"))
    _num_trained: int = 0

    @property
    def leak_severity(self) -> Severity:
        return "warning" if self.allow_leak else "error"

    def compare(self, row: Conversation, findings: FindingList, *, training: bool) -> None:
        """Note whether `row` repeats or contradicts an earlier one."""
        seen = fingerprint(row, self._tools)
        number = self._places.add(row.file, row.line)
        self._exact.append(seen.exact)
        self._rows.append(hash(seen.row))
        is_plain = all(seen.weights)
        if training:
            self._num_trained = number + 1
            if not is_plain:
                self._weighted.setdefault(seen.row, number)
        first = self._first.setdefault(seen.row if is_plain else hash((seen.row, seen.weights)), number)
        other = self._same_prompt(row, seen, number, training)
        findings.line = row.line
        leaked = None if training else self._trained_row(seen.row)
        if leaked is not None or first != number or other != number:
            self._note(number, leaked, first, other, findings, is_pair=bool(row.non_preferred))

    def _same_prompt(self, row: Conversation, seen: Fingerprint, number: int, training: bool) -> int:
        """The row with which this one must not share its prompt, or itself: a prompt may have many pairs of a side."""
        if not seen.has_prompt:
            return number
        if row.non_preferred and not training:
            return self._prompts.get(seen.prompt, number)
        first = self._prompts.setdefault(seen.prompt, number)
        return number if row.non_preferred else first

    def _note(
        self, number: int, leaked: int | None, first: int, other: int, findings: FindingList, is_pair: bool
    ) -> None:
        place = self._places[number]
        if leaked is not None:
            found = f"also stands in {_named(self._places[leaked], place)}"
            findings.add("LEAK", "the row", found, "a row that is not trained", severity=self.leak_severity)
        elif first != number and self._exact[first] == self._exact[number]:
            found = f"is the same as {_named(self._places[first], place)}"
            findings.add("DUPLICATE", "the row", found, "every row once")
        elif first != number:
            found = f"differs from {_named(self._places[first], place)} in white space only"
            findings.add("NEAR_DUPLICATE", "the row", found, "every row once")
        elif is_pair and other != number:
            found = f"has the prompt of {_named(self._places[other], place)}, which is trained"
            fix = "hold out all pairs of a prompt: trainer data split FILE"
            findings.add("SAME_PROMPT", "the row", found, "a prompt that is not", fix)
        elif self._rows[other] != self._rows[number]:
            found = f"has the same prompt as {_named(self._places[other], place)} and another answer"
            findings.add("SAME_PROMPT", "the row", found, "one answer to a prompt")

    def _trained_row(self, row: int) -> int | None:
        """The first training row that says the same, whatever its weights."""
        numbers = [known[row] for known in (self._first, self._weighted) if row in known]
        return min((number for number in numbers if number < self._num_trained), default=None)


def system_prompt(row: Conversation) -> str | None:
    """The first system prompt of a row with its white space folded, None where it has none."""
    for message in row.messages:
        if message.role in ("system", "developer"):
            return " ".join((message.content or "").split())
    return None


class SystemPrompts:
    """Counts the system prompts of the training rows, none being one of them."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        # The first rows of the first prompts: those that are listed are among them, since one prompt at most is usual.
        self._places: dict[int, list[tuple[int, Place]]] = {}

    def count(self, row: Conversation) -> None:
        prompt = hash((system_prompt(row),))
        if self._counts[prompt] < NUM_LISTED_PLACES and (
            prompt in self._places or len(self._places) <= NUM_LISTED_PLACES
        ):
            self._places.setdefault(prompt, []).append((self._counts.total(), (row.file, row.line)))
        self._counts[prompt] += 1

    def stray_rows(self) -> tuple[int, int, list[Place]] | None:
        """(rows with the usual prompt, rows with another, the first of these), where nearly all rows share one."""
        num_rows = self._counts.total()
        if num_rows < MIN_ROWS_FOR_A_HABIT:
            return None
        usual, num_usual = self._counts.most_common(1)[0]
        num_stray = num_rows - num_usual
        if not 0 < num_stray <= FEW_ROWS_SHARE * num_rows:
            return None
        places = sorted(entry for prompt, entries in self._places.items() if prompt != usual for entry in entries)
        return num_usual, num_stray, [place for _, place in places[:NUM_LISTED_PLACES]]


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
