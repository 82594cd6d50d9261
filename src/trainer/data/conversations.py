"""A chat JSONL file as conversations: one object per row, whatever form of the format the row was written in."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.data.data_files import Line, numbered_lines, opened
from trainer.data.file_shape import HEAD_BYTES, recognise
from trainer.data.findings import Finding, FindingList, Report, in_file_order
from trainer.data.json_scanner import JsonProblem
from trainer.data.quoting import printable, quoted
from trainer.data.row_checks import check_row, foreign_layout
from trainer.data.rules import Backend
from trainer.data.strict_json import parse
from trainer.data.tool_checks import ToolLists

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
MAX_SERVICE_FILE_BYTES = 512 * 10**6


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function; `arguments` is the JSON string as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; text parts of `content` are joined to one string, image parts are the URLs of `images`."""

    role: str
    content: str | None
    weight: int = 1
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    refusal: str | None = None
    images: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether the tokens of this message enter the loss."""
        return self.role == "assistant" and self.weight != 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row that can be trained, and the place it was read from.

    The older functions, function_call and role function arrive as tools, tool_calls and role tool.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    file: str
    line: int
    parallel_tool_calls: bool | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class FileReport(Report):
    """What one file holds; `rows` counts the lines that are not blank, `conversations` are those without an error."""

    file: str
    conversations: list[Conversation]
    findings: list[Finding]
    rows: int
    num_bytes: int = 0


def read_conversations(path: Path, backend: Backend = "local") -> FileReport:
    """Read `path` row by row and note every mistake of every row.

    Content never raises. A file that cannot be opened or read raises `DataError`.
    """
    findings = FindingList(str(path), backend)
    with opened(path) as file:
        head = file.read(HEAD_BYTES + 1)
        if shape := recognise(head[:HEAD_BYTES], whole=len(head) <= HEAD_BYTES):
            findings.line = shape.line
            fix = shape.fix or _conversion(path, shape.code)
            findings.add(shape.code, "the file", shape.found, "chat JSONL in UTF-8", fix)
            return FileReport(str(path), [], findings.findings, 0)
        reader = _Reader(path, findings)
        for line in numbered_lines(file):
            reader.read(line)
        return reader.finish(num_bytes=file.tell())


class _Reader:
    """What is known of a file after the lines read so far."""

    def __init__(self, path: Path, findings: FindingList) -> None:
        self.path = path
        self.findings = findings
        self.conversations: list[Conversation] = []
        self.tool_lists = ToolLists()
        self.rows = 0
        self.num_chat_rows = 0
        self.foreign_rows: list[tuple[int, str, str]] = []
        self.metadata_lines: list[int] = []

    def read(self, line: Line) -> None:
        if line.blank:
            return
        self.rows += 1
        self.findings.line = line.number
        if not line.whole:
            self.findings.add("LONG_LINE", "the row", "is longer than 128 MiB", "at most 128 MiB")
        elif text := _text(line, self.findings):
            self._read_value(parse(text), line.number)

    def _read_value(self, value: object, line: int) -> None:
        if isinstance(value, JsonProblem):
            self.findings.add(value.code, "the row", value.found, value.accepted, value.fix, column=value.column)
        elif not isinstance(value, dict):
            self.findings.add("ROW", "the row", f"is {quoted(value)}", "an object with messages")
        elif layout := foreign_layout(value):
            self.foreign_rows.append((line, *layout))
        else:
            self._read_row(value, line)

    def _read_row(self, row: dict[str, Any], line: int) -> None:
        self.num_chat_rows += 1
        num_errors = self.findings.num_errors
        tool_list = check_row(row, self.tool_lists, self.findings)
        if "metadata" in row:
            self.metadata_lines.append(line)
        if self.findings.num_errors == num_errors:
            self.conversations.append(_conversation(row, tool_list.tools, self.findings.file, line))

    def finish(self, num_bytes: int) -> FileReport:
        """Add what only the whole file tells."""
        self._note_foreign_rows()
        if self.metadata_lines:
            self.findings.line = self.metadata_lines[0]
            others = len(self.metadata_lines) - 1
            found = f"has metadata, as have {others} more" if others else "has metadata"
            self.findings.add("METADATA", "the row", found, "none, since it is ignored")
        self.findings.line = None
        if not self.rows:
            self.findings.add("NO_ROWS", "the file", "holds only blank lines" if num_bytes else "is empty", "chat rows")
        if num_bytes > MAX_SERVICE_FILE_BYTES and self.findings.backend == "openai":
            found = f"holds {num_bytes} bytes"
            self.findings.add("FILE_SIZE", "the file", found, f"at most {MAX_SERVICE_FILE_BYTES} on the openai backend")
        findings = in_file_order(self.findings.findings, [self.findings.file])
        return FileReport(self.findings.file, self.conversations, findings, self.rows, num_bytes)

    def _note_foreign_rows(self) -> None:
        """One finding where the whole file has another layout, else one for each such row."""
        whole_file = not self.num_chat_rows
        for line, code, layout in self.foreign_rows[:1] if whole_file else self.foreign_rows:
            self.findings.line = None if whole_file else line
            where, found = ("the file", "holds rows of") if whole_file else ("the row", "has")
            self.findings.add(code, where, f"{found} {layout}", "rows with messages", _conversion(self.path, code))


def _conversion(path: Path, code: str) -> str | None:
    """The advice to convert, with the command as it can be pasted into a shell."""
    command = f"run: trainer data convert {shlex.quote(printable(str(path)))}"
    match code:
        case "FORMAT":
            return command
        case "ENCODING":
            return f"save it as UTF-8, or {command}"
        case "PREFERENCE":
            return f"supervised runs need messages; to train on the preferred answers {command}"
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
    messages: list[Message] = []
    caller = ""  # the id of the newest function_call, which has none of its own
    for index, message in enumerate(row["messages"]):
        if len(message) == 2 and type(message.get("content")) is str:
            messages.append(Message(message["role"], message["content"]))
            continue
        if message.get("function_call"):
            caller = f"function_call_{index}"
        messages.append(_message(message, caller))
    return Conversation(tuple(messages), tools, file, line, row.get("parallel_tool_calls"))


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
