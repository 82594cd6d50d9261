"""Layout of a user's file of rows, before anything is made of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer.data.conversations import Conversation
from trainer.data.convert.files import first_row
from trainer.data.layouts.columns import Columns, columns_of
from trainer.data.layouts.messages import NotConvertible
from trainer.data.layouts.preferences import has_two_answers
from trainer.data.layouts.shapes import shape_of
from trainer.data.quoting import printable
from trainer.data.read.data_files import numbered_lines, opened
from trainer.data.read.file_shape import HEAD_BYTES, recognise
from trainer.data.rules.row import method_of
from trainer.data.strict_json import parse
from trainer.errors import DataError
from trainer.kinds import Method, learns_from_pairs

CHARS_A_TOKEN = 4  # of English text, as common tokenizers cut it
_PART = re.compile(r"(?P<before>^|[._-])train(?:ing)?$")
_HELD_OUT = ("validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, slots=True)
class FileLayout:
    """Layout of a file in words; `columns` are the names of its first row where that cannot be trained as it is."""

    layout: str
    is_native: bool
    columns: tuple[str, ...] = ()
    unclear: str | None = None  # why nobody can tell which columns are question and answer
    method: Method = "sft"


def look_at(path: Path, columns: Columns | None = None) -> FileLayout:
    """Raises: DataError, when it cannot be read, or can be neither trained nor converted."""
    with opened(path, "a file of rows (chat JSONL, JSON, CSV, TSV or Parquet)") as file:
        head = file.read(HEAD_BYTES + 1)
        shape = recognise(head[:HEAD_BYTES], whole=len(head) <= HEAD_BYTES)
        first = next((line.raw for line in numbered_lines(file) if not line.blank), b"")
    if shape and shape.fix:
        raise DataError(f"{printable(str(path))}: the file {shape.found}, expected rows as text; {shape.fix}")
    if not shape and first[:1] == b"{" and (method := _native(first)):
        return FileLayout("preference JSONL" if learns_from_pairs(method) else "chat JSONL", True, method=method)
    layout, row = first_row(path, columns)
    if row is None:
        return FileLayout(layout, is_native=False)
    method = "dpo" if columns is None and has_two_answers(row) else "sft"
    return FileLayout(layout, False, tuple(row), _unclear(row, columns), method)


def _native(line: bytes) -> Method | None:
    """The training that a row is written for; sft for one too broken to tell: its mistakes are those of chat JSONL."""
    row = parse(line.decode(errors="replace"))
    return method_of(row) if isinstance(row, dict) else "sft"


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
    stem = path.stem.removesuffix(".chat").removesuffix(".pairs")
    return _PART.sub("", stem) or stem


def num_tokens(rows: Iterable[Conversation]) -> int:
    """About how many tokens the rows hold: no tokenizer is needed for a first idea of it."""
    chats = (branch for row in rows for branch in row.branches)
    characters = sum(len(message.content or "") for chat in chats for message in chat.messages)
    return characters // CHARS_A_TOKEN
