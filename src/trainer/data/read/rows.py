"""Read a JSONL file of chat or preference rows into conversations, and note every mistake of every row."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.json_scanner import JsonProblem
from trainer.data.layouts.shapes import repairs
from trainer.data.quoting import printable, quoted
from trainer.data.read.data_files import Line, numbered_lines, opened
from trainer.data.read.file_shape import HEAD_BYTES, recognise
from trainer.data.rules.findings import Finding, FindingList, Report, Tally, first_in_file_order
from trainer.data.rules.preferences import check_preference
from trainer.data.rules.row import PAIRS_OF_OTHERS, check_row, foreign_layout, method_of
from trainer.data.rules.rule import Backend
from trainer.data.rules.tools import ToolLists
from trainer.data.strict_json import parse
from trainer.kinds import Method, is_service, learns_from_pairs

MAX_SERVICE_FILE_BYTES = 512 * 10**6
LINES_BETWEEN_REPORTS = 1000
PAIR_ROWS = "rows with input, preferred_output and non_preferred_output"


@dataclass(frozen=True, slots=True)
class FileReport(Report):
    """The rows of one file; `rows` counts the lines that are not blank, `conversations` are those without an error."""

    file: str
    conversations: list[Conversation]
    findings: list[Finding]
    rows: int
    num_bytes: int = 0
    left_out: Tally = field(default_factory=Counter)


def read_conversations(path: Path, backend: Backend = "local", method: Method | None = None) -> FileReport:
    """Read `path` row by row and note every mistake of every row; the first row tells `method` where it is not given.

    Content never raises. A file that cannot be opened or read raises `DataError`.
    """
    reader = FileReader(path, backend, method=method)
    return reader.report(list(reader))


class FileReader:
    """Iterates over the conversations of a file without holding them; what it knows grows with the rows that are read.

    `progress` gets the number of bytes read so far after every thousand lines. `method` is the training that the rows
    are for; None where the first row of a known layout decides, which `method` then says. `line` and `value` are those
    of the row that was read last, as they stand in the file.
    """

    line: Line
    value: Any = None

    def __init__(
        self,
        path: Path,
        backend: Backend = "local",
        max_findings: int | None = None,
        progress: Callable[[int], None] | None = None,
        method: Method | None = None,
    ) -> None:
        self.path = path
        self.method = method
        self.findings = FindingList(str(path), backend, max_findings)
        self.progress = progress or (lambda num_bytes: None)
        self.tool_lists = ToolLists()
        self.rows = self.num_bytes = 0
        self._num_own_rows = 0
        self._foreign = FindingList(str(path), backend, max_findings)  # rows of another layout
        self._metadata: tuple[int, int] | None = None  # the first line that has some, and how many others have

    def __iter__(self) -> Iterator[Conversation]:
        with opened(self.path) as file:
            head = file.read(HEAD_BYTES + 1)
            if shape := recognise(head[:HEAD_BYTES], whole=len(head) <= HEAD_BYTES):
                self.findings.line = shape.line
                advice = shape.fix or _conversion(self.path, shape.code)
                self.findings.add(shape.code, "the file", shape.found, "chat JSONL in UTF-8", advice)
                return
            for line in numbered_lines(file):
                if conversation := self._read(line):
                    yield conversation
                if line.number % LINES_BETWEEN_REPORTS == 0:
                    self.progress(line.offset)
            self.num_bytes = file.tell()
        self.progress(self.num_bytes)
        self._finish()

    def report(self, conversations: list[Conversation]) -> FileReport:
        """Report after the last row."""
        found, left_out = first_in_file_order(self.findings.findings, [self.findings.file], self.findings.limit)
        left_out += self.findings.left_out
        return FileReport(self.findings.file, conversations, found, self.rows, self.num_bytes, left_out)

    def _read(self, line: Line) -> Conversation | None:
        self.line, self.value = line, None
        if line.blank:
            return None
        self.rows += 1
        self.findings.line = line.number
        if not line.whole:
            self.findings.add("LONG_LINE", "the row", "is longer than 128 MiB", "at most 128 MiB")
        elif text := _text(line, self.findings):
            value = parse(text)
            if not isinstance(value, JsonProblem):
                self.value = value
                return self.conversation(value, line.number)
            found = value.found
            if value.code == "ENCODING":
                found += f" at byte offset {line.offset + len(text[: value.column - 1].encode())}"
            self.findings.add(value.code, "the row", found, value.accepted, value.fix, column=value.column)
        return None

    def conversation(self, value: object, line: int) -> Conversation | None:
        """The row that a parsed `value` is, None where it breaks a rule, which is noted."""
        if not isinstance(value, dict):
            self.findings.add("ROW", "the row", f"is {quoted(value)}", "an object with messages")
            return None
        self.method = self.method or method_of(value)
        if layout := foreign_layout(value, self.method):
            code, name = layout
            self._foreign.line = line
            accepted = "rows with messages" if code != "PAIR_NEEDED" else PAIR_ROWS
            self._foreign.add(code, "the row", f"has {name}", accepted, _conversion(self.path, code, name))
        else:
            return self._read_row(value, line)
        return None

    def _read_row(self, row: dict[str, Any], line: int) -> Conversation | None:
        self._num_own_rows += 1
        num_errors = self.findings.num_errors
        in_pairs = learns_from_pairs(self.method)
        tool_list = (check_preference if in_pairs else check_row)(row, self.tool_lists, self.findings)
        if "metadata" in row and not in_pairs:
            first, others = self._metadata or (line, -1)
            self._metadata = first, others + 1
        if self.findings.num_errors > num_errors:
            if not in_pairs and not self.findings.left_out and repairs(row, self.findings.backend):
                self.findings.advise_too(f"run: {_command(self.path)}")
            return None
        make = _preference if in_pairs else _conversation
        return make(row, tool_list.tools, self.findings.file, line)

    def _finish(self) -> None:
        """Add what only the whole file tells."""
        self._note_foreign_rows()
        if self._metadata:
            self.findings.line, others = self._metadata
            found = f"has metadata, as have {others} more" if others else "has metadata"
            self.findings.add("METADATA", "the row", found, "none, since it is ignored")
        self.findings.line = None
        if not self.rows:
            found = "holds only blank lines" if self.num_bytes else "is empty"
            self.findings.add("NO_ROWS", "the file", found, "chat rows")
        if self.num_bytes > MAX_SERVICE_FILE_BYTES and is_service(self.findings.backend):
            found = f"holds {self.num_bytes} bytes"
            self.findings.add("FILE_SIZE", "the file", found, f"at most {MAX_SERVICE_FILE_BYTES} on the openai backend")

    def _note_foreign_rows(self) -> None:
        """One finding where the whole file has another layout, else one for each such row."""
        if self._num_own_rows or not self._foreign.findings:
            self.findings.extend(self._foreign)
            return
        first, self.findings.line = self._foreign.findings[0], None
        found = first.found.replace("has", "holds rows of", 1)
        self.findings.add(first.code, "the file", found, first.accepted, first.fix)


def _command(path: Path) -> str:
    return f"trainer data convert {shlex.quote(printable(str(path)))}"


def _conversion(path: Path, code: str, layout: str = "") -> str | None:
    """The advice to convert, with the command as it can be pasted into a shell."""
    command = f"run: {_command(path)}"
    match code:
        case "FORMAT":
            return command
        case "ENCODING":
            return f"save it as UTF-8, or {command}"
        case "PREFERENCE" if layout == PAIRS_OF_OTHERS:
            return f"for training.method=dpo convert it with --to dpo; for the preferred answers alone {command}"
        case "PREFERENCE":
            return f"train with training.method=dpo, or for the preferred answers alone {command}"
        case "PAIR_NEEDED" if layout == PAIRS_OF_OTHERS:
            return f"{command} --to dpo"
    return None


def _text(line: Line, findings: FindingList) -> str | None:
    """The characters of `line`, None where they cannot be known."""
    raw = line.raw
    if (at := raw.find(b"\0")) >= 0:
        num_zeros = raw.count(b"\0")
        noun = "a NUL byte" if num_zeros == 1 else f"{num_zeros} NUL bytes, the first"
        findings.add("ENCODING", "the row", f"holds {noun} at byte offset {line.offset + at}", "UTF-8 text")
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        at = error.start
        found = f"holds the byte 0x{raw[at]:02x} at byte offset {line.offset + at}, which is not UTF-8"
        findings.add("ENCODING", "the row", found, "UTF-8 text", column=len(raw[:at].decode()) + 1)
        return None


def _conversation(row: Mapping[str, Any], tools: tuple[Mapping[str, Any], ...], file: str, line: int) -> Conversation:
    return Conversation(_messages(row["messages"]), tools, file, line, row.get("parallel_tool_calls"))


def _preference(row: Mapping[str, Any], tools: tuple[Mapping[str, Any], ...], file: str, line: int) -> Conversation:
    """Only the preferred answer is an example to follow: all else has weight 0."""
    source = row["input"]
    asked, preferred, other = map(_messages, (source["messages"], row["preferred_output"], row["non_preferred_output"]))
    prompt, non_preferred = (tuple(replace(said, weight=0) for said in part) for part in (asked, other))
    parallel = source.get("parallel_tool_calls")
    return Conversation(prompt + preferred, tools, file, line, parallel, len(prompt), non_preferred)


def _messages(listed: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    messages: list[Message] = []
    caller = ""  # the id of the newest function_call, which has none of its own
    for index, message in enumerate(listed):
        if len(message) == 2 and type(message.get("content")) is str:
            messages.append(Message(message["role"], message["content"]))
            continue
        if message.get("function_call"):
            caller = f"function_call_{index}"
        messages.append(_message(message, caller))
    return tuple(messages)


def _message(message: Mapping[str, Any], caller: str) -> Message:
    is_function = message["role"] == "function"
    return Message(
        role="tool" if is_function else message["role"],
        content=_content(message.get("content")),
        weight=message.get("weight", 1),
        name=message.get("name"),
        tool_calls=_tool_calls(message, caller),
        tool_call_id=caller if is_function else message.get("tool_call_id"),
        refusal=message.get("refusal"),
        images=_images(message.get("content")),
        reasoning_content=message.get("reasoning_content"),
    )


def _content(content: str | list[dict[str, Any]] | None) -> str | None:
    return "".join(part.get("text", "") for part in content) if isinstance(content, list) else content


def _images(content: str | list[dict[str, Any]] | None) -> tuple[str, ...]:
    parts = content if isinstance(content, list) else []
    return tuple(part["image_url"]["url"] for part in parts if part["type"] == "image_url")


def _tool_calls(message: Mapping[str, Any], caller: str) -> tuple[ToolCall, ...]:
    if function := message.get("function_call"):
        return (ToolCall(caller, function["name"], function["arguments"]),)
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls", ())]
    return tuple(ToolCall(call_id, function["name"], function["arguments"]) for call_id, function in calls)
