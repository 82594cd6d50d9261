"""Write the files of a data command: all of them whole or none, over no other file by accident, rows byte for byte."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from trainer.data.quoting import printable
from trainer.data.read.data_files import numbered_lines, opened
from trainer.errors import DataError, file_words
from trainer.runs.files import flush_folder, folders_above, nearest_folder

_CHUNK_BYTES = 1 << 20


@contextmanager
def new_files(paths: Sequence[Path], sources: Sequence[Path], *, force: bool) -> Iterator[Sequence[BinaryIO]]:
    """Files to write, which appear under their names when the block ends without an exception; folders are made.

    Raises: DataError, when one exists (unless `force`), is one of `sources`, or cannot be written.
    """
    refuse_new_files(paths, sources, force=force)
    try:
        with folders_above(*paths), _beside(paths) as files:
            yield files
    except OSError as error:
        name = printable(str(paths[0].parent))
        raise DataError(f"{name}: cannot be written: {file_words(error)}") from error


def refuse_new_files(paths: Sequence[Path], sources: Sequence[Path], *, force: bool) -> None:
    """Raises: DataError, where `new_files` would; before the work whose result is to be written."""
    if problems := list(_problems(paths, sources, force)):
        raise DataError(*problems)


@contextmanager
def _beside(paths: Sequence[Path]) -> Iterator[Sequence[BinaryIO]]:
    """Files of other names, which take those of `paths` at the end, or are removed."""
    beside = [path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in paths]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("xb")) for path in beside]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        _rename_all(beside, paths)
    finally:
        for path in beside:
            with contextlib.suppress(OSError):  # what stopped the writing stops this too, and is reported
                path.unlink(missing_ok=True)


def _rename_all(beside: Sequence[Path], paths: Sequence[Path]) -> None:
    """Give every file its name; where one is refused, those that have theirs and replaced nothing go again."""
    fresh: list[Path] = []
    try:
        for source, target in zip(beside, paths, strict=True):
            is_fresh = not target.exists()
            source.replace(target)
            fresh += [target] * is_fresh
    except OSError:
        for target in fresh:
            with contextlib.suppress(OSError):
                target.unlink()
        raise
    for folder in {path.parent for path in paths}:
        flush_folder(folder)


def _as_given(folder: Path, path: Path) -> Path:
    """A folder above a path in the words of the path."""
    return path.parents[path.absolute().parents.index(folder)] if not path.is_absolute() else folder


def _problems(paths: Sequence[Path], sources: Sequence[Path], force: bool) -> Iterator[str]:
    resolved = [path.resolve() for path in paths]
    for path in paths:
        name = printable(str(path))
        if path.resolve() in {source.resolve() for source in sources}:
            yield f"{name}: is the file that is read, expected another one; choose another name"
        elif resolved.count(path.resolve()) > 1:
            yield f"{name}: is to be two of the new files, expected a name of its own for each; rename one"
        elif path.exists() and not path.is_file():
            yield f"{name}: is no regular file, expected the name of a new file; choose another name"
        elif path.exists() and not force:
            yield f"{name}: exists already, expected a new file; choose another name or add --force"
        elif not (nearest := nearest_folder(path)).is_dir():
            yield f"{name}: {printable(str(_as_given(nearest, path)))} is no folder, expected one; choose another name"


def copy_rows(source: Path, target_of: Callable[[int], BinaryIO | None]) -> int:
    """Copy the row in each line of `source` to the file that `target_of(line)` names; the number of blank lines.

    A row keeps its bytes and its line end; the last one is given a line end where it has none. Blank lines and a byte
    order mark are no part of a row.
    """
    with opened(source) as file:
        lines = [(line.number, line.offset, line.blank) for line in numbered_lines(file)]
        end = file.seek(0, os.SEEK_END)
        for (number, start, blank), (_, stop, _) in pairwise([*lines, (0, end, True)]):
            if not blank and (target := target_of(number)) is not None:
                _copy(file, start, stop, target)
    return sum(blank for _, _, blank in lines)


def _copy(file: BinaryIO, start: int, stop: int, target: BinaryIO) -> None:
    file.seek(start)
    chunk = b""
    for at in range(start, stop, _CHUNK_BYTES):
        chunk = file.read(min(_CHUNK_BYTES, stop - at))
        target.write(chunk)
    if not chunk.endswith(b"\n"):
        target.write(b"\n")
