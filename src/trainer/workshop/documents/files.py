"""Files that a user names: single ones, folders and globs."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from trainer.data.quoting import printable
from trainer.errors import Attempts, DataError
from trainer.workshop.documents.cutting import Say
from trainer.workshop.documents.formats import DOCUMENTS, READ

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read; `source` is its name in chunks and messages."""

    path: Path
    source: str


def find_files(paths: Iterable[str | Path], attempts: Attempts, note: Say) -> list[SourceFile]:
    """The files, each once, in the order of `paths`, those of a folder by their names.

    Hidden files are skipped, and links that leave a folder are not followed.
    """
    found: dict[Path, SourceFile] = {}
    for path in map(str, paths):
        files = attempts.make(_files_of, path, note) or []
        for file in files:
            attempts.make(_refuse_name, file)
            found.setdefault(file.resolve(), SourceFile(file, _shown(file)))
    return list(found.values())


def _refuse_name(file: Path) -> None:
    """Raises: DataError, for a name that no citation can hold."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise DataError(f"{printable(str(file))}: the name is not UTF-8, expected one that is; rename it") from None


def _files_of(path: str, note: Say) -> list[Path]:
    there = Path(path).expanduser()
    if there.is_dir():
        return _of_folder(there, note)
    if there.exists():
        return [there]
    if not glob.has_magic(path):
        raise DataError(f"{printable(path)}: does not exist, expected a document, a folder or a glob; correct the path")
    return _of_glob(str(Path(path).expanduser()), path, note)


def _of_glob(pattern: str, written: str, note: Say) -> list[Path]:
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root, wanted = Path(*parts[:fixed]), parts[fixed:]
    found = [file for file in _walk(root, wanted) if _matches(file.relative_to(root).parts, wanted)]
    files = _within(root, found, note)
    if not files:
        raise DataError(f"{printable(written)}: matches no file, expected documents; correct the pattern")
    return files


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """True for the parts of a path that the parts of a pattern match; `**` is any number of folders."""
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_matches(names[skipped:], wanted[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], wanted[0]) and _matches(names[1:], wanted[1:])


def _of_folder(folder: Path, note: Say) -> list[Path]:
    """Documents of a folder and those below it."""
    files = _within(folder, list(_walk(folder)), note)
    kept = [file for file in files if file.suffix.lower() in DOCUMENTS]
    if others := [file for file in files if file.suffix.lower() not in DOCUMENTS]:
        note(f"{printable(str(folder))}: {_list(others)} of other formats, left out")
    if not kept:
        raise DataError(f"{printable(str(folder))}: the folder holds no document, expected {', '.join(READ)}")
    return kept


def _within(folder: Path, files: list[Path], note: Say) -> list[Path]:
    """Those that lie below the folder when all links are followed."""
    root = folder.resolve()
    kept = [file for file in files if file.resolve().is_relative_to(root)]
    if outside := [file for file in files if not file.resolve().is_relative_to(root)]:
        note(f"{printable(str(folder))}: {_list(outside)} linked from elsewhere, left out")
    return kept


def _walk(root: Path, wanted: Sequence[str] = ("**",)) -> Iterator[Path]:
    """Files below the root, as deep as the pattern asks for; links to folders are not followed."""
    for folder, below, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        is_deeper = "**" in wanted or depth < len(wanted) - 1
        below[:] = sorted(name for name in below if is_deeper and not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _list(files: list[Path]) -> str:
    shown = ", ".join(printable(file.name) for file in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"{len(files)} file{'s' * (len(files) != 1)} ({shown}{more})"


def _shown(file: Path) -> str:
    """The name as it was written, relative to this folder where it lies below."""
    if file.is_absolute() and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return str(file)
