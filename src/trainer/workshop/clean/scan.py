"""Reading of a file row by row: each row's own faults, and what it says for the comparison with the others."""

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.data.conversations import Conversation, Message
from trainer.data.quoting import counted, printable, quoted
from trainer.data.read.rows import FileReader
from trainer.data.rules.findings import Finding
from trainer.data.rules.private_text import find_private, may_hold_private
from trainer.errors import SHOWN_PROBLEMS, DataError
from trainer.kinds import Method
from trainer.workshop.clean.answers import is_empty, refusal
from trainer.workshop.clean.findings import Faults
from trainer.workshop.clean.kinds import KindChoice
from trainer.workshop.clean.row_edits import Edit, Text, edit_row, texts_of
from trainer.workshop.clean.said import SaidRows
from trainer.workshop.clean.system_prompts import SystemSpellings

Progress = Callable[[int], None]
Measure = Callable[[Conversation], tuple[int, str]]


class MendedRows:
    """Iterates over the rows of a file with their edits made; rows that break a rule end it with a DataError.

    Rows whose only mistake is an empty answer are no error, but lines of `empty`, unless `choice` does not want them.
    """

    def __init__(self, path: Path, choice: KindChoice, method: Method | None, progress: Progress | None = None) -> None:
        self.path, self.choice, self.progress = path, choice, progress
        self.reader = FileReader(path, method=method, progress=self._advance)
        self.empty: dict[int, str] = {}
        self.rows = 0
        self._errors: list[Finding] = []
        self._num_errors = 0

    @property
    def method(self) -> Method:
        return self.reader.method or "sft"

    def __iter__(self) -> Iterator[tuple[Conversation, list[Edit], bool]]:
        """Each row, its edits, and True where these are in `reader.value`: False where they would break a rule."""
        for row in self.reader:
            yield self._edited(row)
        self._take_findings()
        self.rows = self.reader.rows
        if self._num_errors:
            name = printable(str(self.path))
            found = f"has {counted(self._num_errors, 'error')}, expected none"
            raise DataError(
                f"{name}: {found}; look at all rules with: trainer data check {name}", *map(str, self._errors)
            )

    def _edited(self, row: Conversation) -> tuple[Conversation, list[Edit], bool]:
        value = self.reader.value
        if not (edits := edit_row(value, self.method, self.choice)):
            return row, edits, True
        scratch = FileReader(self.path, method=self.method)
        edited = scratch.conversation(value, row.line)
        if edited is None:
            self.reader.value = json.loads(self.reader.line.raw)
            return row, edits, False
        return edited, edits, True

    def _advance(self, num_bytes: int) -> None:
        self._take_findings()
        if self.progress:
            self.progress(num_bytes)

    def _take_findings(self) -> None:
        """Keep the first errors, and count the others, so that a file of mistakes does not fill the memory."""
        errors = [finding for finding in self.reader.findings.findings if finding.severity == "error"]
        others = {error.line for error in errors if error.code != "EMPTY_ANSWER" or "EMPTY" not in self.choice.wanted}
        for error in errors:
            if error.line is not None and error.line not in others:
                self.empty.setdefault(error.line, f"{error.where} {error.found}")
                continue
            self._num_errors += 1
            if len(self._errors) < SHOWN_PROBLEMS - 1:  # beside the sentence on all of them
                self._errors.append(error)
        self.reader.findings.findings.clear()


class Scan:
    """The rows of a file and of its held-out files: their own faults noted, what they say kept for comparison."""

    def __init__(self, faults: Faults, measure: Measure, max_length: int) -> None:
        self.faults, self.measure, self.max_length = faults, measure, max_length
        self.said = SaidRows()
        self.systems = SystemSpellings()
        self.num_rows = 0  # of the file itself, which comes first; those with an empty answer aside
        self.num_read = self.num_held_out = 0
        self.dropped: dict[int, tuple[str, str]] = {}  # line: kind and fault of a row that goes for its own sake
        self.places: list[tuple[str, int]] = []  # held-out files, and the number of rows before each of them
        self.edited = array("Q")

    def read(self, path: Path, progress: Progress | None = None) -> Method:
        """Read the file itself. Raises: DataError."""
        rows = MendedRows(path, self.faults.choice, None, progress)
        for row, edits, is_edited in rows:
            self._note(row, rows, edits, is_edited)
            self.said.add(row)
        for line, found in sorted(rows.empty.items()):
            where, _, what = found.partition(" ")
            self._add(line, "EMPTY", where, what)
        self.num_rows, self.num_read = len(self.said), rows.rows
        return rows.method

    def read_held_out(self, path: Path, method: Method, progress: Progress | None = None) -> None:
        """Read a file whose rows must not be trained. Raises: DataError."""
        rows = MendedRows(path, self.faults.choice, method, progress)
        self.places.append((str(path), len(self.said)))
        for row, _, _ in rows:
            self.said.add(row)
        self.num_held_out += rows.rows

    def place(self, number: int) -> str:
        """The row of that number, as it is named beside the file itself."""
        held_out = [file for file, first in self.places if first <= number]
        line = self.said.lines[number]
        return f"{printable(held_out[-1])}:{line}" if held_out else f"line {line}"

    def _note(self, row: Conversation, rows: MendedRows, edits: list[Edit], is_edited: bool) -> None:
        value = rows.reader.value
        first: dict[tuple[str, str], Edit] = {}
        for edit in edits:
            first.setdefault((edit.kind, edit.where), edit)
        for edit in first.values():
            self.faults.add(row.line, edit.kind, edit.where, edit.found, edited=is_edited)
        if edits and is_edited:
            self.edited.append(row.line)
        for text in texts_of(value, rows.method):
            self._note_text(row.line, text)
        self.systems.add(row.line, value, rows.method)
        self._note_length(row)
        self._note_private(row)

    def _note_text(self, line: int, text: Text) -> None:
        if "\ufffd" in text.value:
            at = text.value.index("\ufffd")
            self._add(line, "LOST_CHARACTER", text.where, f"holds {quoted(text.value[max(at - 12, 0) : at + 24])}")
        if text.part == "other":
            return
        if not text.says_something_else and is_empty(text.value):
            self._add(line, "EMPTY", text.where, f"is {quoted(text.value)}")
        elif text.part == "answer" and (words := refusal(text.value)):
            self._add(line, "REFUSAL", text.where, f"begins with {quoted(words)}")

    def _note_length(self, row: Conversation) -> None:
        if "LONG" in self.faults.choice.wanted:
            length, unit = self.measure(row)
            if length > self.max_length:
                self._add(row.line, "LONG", "the row", f"has {length:,} {unit}, expected at most {self.max_length:,}")

    def _note_private(self, row: Conversation) -> None:
        if not self.faults.choice.wants("SECRET", "PERSONAL_DATA"):
            return
        texts = [text for message in (*row.messages, *row.non_preferred) for _, text in _private_places(message)]
        if not may_hold_private("\n".join(texts)):
            return
        named = [(row.where(index), message) for index, message in enumerate(row.messages)]
        named += [(f"non_preferred_output[{index}]", message) for index, message in enumerate(row.non_preferred)]
        for where, message in named:
            for name, text in _private_places(message):
                for private in find_private(text):
                    found = f"holds what looks like {private.kind} ({private.shown})"
                    self._add(row.line, private.code, f"{where}.{name}", found)

    def _add(self, line: int, kind: str, where: str, found: str) -> None:
        self.faults.add(line, kind, where, found)
        if kind in self.faults.choice.removed:
            self.dropped.setdefault(line, (kind, f"{where} {found}"))


def _private_places(message: Message) -> Iterator[tuple[str, str]]:
    yield "reasoning_content", message.reasoning_content or ""
    yield "content", message.content or ""
    for index, call in enumerate(message.tool_calls):
        yield f"tool_calls[{index}].function.arguments", call.arguments
