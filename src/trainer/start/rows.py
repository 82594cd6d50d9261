"""What a user's file of rows is, before anything is made of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer.data.conversations import Conversation
from trainer.data.convert.columns import Columns, columns_of
from trainer.data.convert.files import first_row
from trainer.data.convert.messages import NotConvertible
from trainer.data.convert.shapes import shape_of
from trainer.data.quoting import printable
from trainer.data.read.data_files import numbered_lines, opened
from trainer.data.read.file_shape import HEAD_BYTES, recognise
from trainer.data.strict_json import parse
from trainer.errors import DataError

CHARS_A_TOKEN = 4  # of English text, as common tokenizers cut it
_PART = re.compile(r"(?P<before>^|[._-])train(?:ing)?$")
_HELD_OUT = ("validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, slots=True)
class Rows:
    """How a file is laid out, in words; `columns` are the names of its first row where it is not chat JSONL."""

    layout: str
    is_chat: bool
    columns: tuple[str, ...] = ()
    unclear: str | None = None  # why nobody can tell which columns are question and answer


def look_at(path: Path, columns: Columns | None = None) -> Rows:
    """Raises: DataError, when it cannot be read, or can be neither trained nor converted."""
    with opened(path, "a file of rows (chat JSONL, JSON, CSV, TSV or Parquet)") as file:
        head = file.read(HEAD_BYTES + 1)
        shape = recognise(head[:HEAD_BYTES], whole=len(head) <= HEAD_BYTES)
        first = next((line.raw for line in numbered_lines(file) if not line.blank), b"")
    if shape and shape.fix:
        raise DataError(f"{printable(str(path))}: the file {shape.found}, expected rows as text; {shape.fix}")
    if not shape and first[:1] == b"{" and _is_chat(first):
        return Rows("chat JSONL", is_chat=True)
    layout, row = first_row(path, columns)
    if row is None:
        return Rows(layout, is_chat=False)
    return Rows(layout, False, tuple(row), _unclear(row, columns))


def _is_chat(line: bytes) -> bool:
    """Whether a row is one of chat JSONL, or too broken to be told from one: then its mistakes are told as such."""
    row = parse(line.decode(errors="replace"))
    return not isinstance(row, dict) or "messages" in row


def _unclear(row: dict[str, object], columns: Columns | None) -> str | None:
    if shape_of({name: value for name, value in row.items() if value is not None}, columns) != "columns":
        return None
    try:
        columns_of(row, columns)
    except NotConvertible as error:
        return str(error)
    return None


def held_out_beside(path: Path) -> Path | None:
    """The file of held-out rows that by its name belongs to one of training rows: x_train.jsonl, x_validation.jsonl."""
    if (part := _PART.search(path.stem)) is None:
        return None
    begin = path.stem[: part.start()] + part["before"]
    names = (path.with_name(f"{begin}{name}{path.suffix}") for name in _HELD_OUT)
    return next((other for other in names if other.is_file()), None)


def plain_stem(path: Path) -> str:
    """A file's name without what it is a part of: rows.chat.jsonl, rows_train.jsonl and rows.csv are all rows."""
    stem = path.stem.removesuffix(".chat")
    return _PART.sub("", stem) or stem


def num_tokens(rows: Iterable[Conversation]) -> int:
    """About how many tokens the rows hold: no tokenizer is needed for a first idea of it."""
    characters = sum(len(message.content or "") for row in rows for message in row.messages)
    return characters // CHARS_A_TOKEN
