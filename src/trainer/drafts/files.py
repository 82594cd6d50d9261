"""Files of the page: those that were dropped on it, and those of the server below the folders that it may read.

A file that arrives gets a name of ours: the beginning of its digest, and of its own name what is harmless.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.quoting import printable
from trainer.data.read.file_shape import HEAD_BYTES, recognise
from trainer.errors import DataError, file_words
from trainer.runs.files import expanded, flush_folder, write_whole

MAX_UPLOAD_BYTES = 10**9
SPARE_BYTES = 200 * 10**6  # left free on the disk, for the runs
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")  # what is trained on as it is, or converted
STORED = re.compile(r"[0-9a-f]{12}-[A-Za-z0-9._-]{1,80}")
MAX_LISTED, MAX_DEPTH = 300, 3
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "checkpoints", "adapter", "report"})
_MARKS = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "save the sheet as CSV, or unpack the archive"),
    b"\xd0\xcf\x11\xe0": ("a document of an older Office", "save the sheet as CSV"),
    b"%PDF": ("a PDF document", "make rows of its text: each a question and its answer, as a CSV table"),
    b"\x89PNG": ("a picture", "choose a file of rows"),
    b"\xff\xd8\xff": ("a picture", "choose a file of rows"),
}


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that can be chosen by its `id`; `path` is how a config names it."""

    id: str
    name: str
    path: str
    num_bytes: int
    is_own: bool  # dropped on the page, or made of such a file

    @property
    def size(self) -> str:
        """The size for people."""
        return in_bytes(self.num_bytes)


class Uploads:
    """The page's own folder of files, and the folders of the server that it may read."""

    def __init__(self, folder: Path, roots: Sequence[Path]) -> None:
        self.folder = folder
        self.roots = tuple(root.resolve() for root in (*roots, folder.parent))

    async def store(self, name: str, num_bytes: int | None, chunks: AsyncIterator[bytes]) -> ListedFile:
        """Keep what arrives, whole or not at all. Raises: DataError, as early as it is known."""
        refuse_name(name)
        self._refuse_size(name, num_bytes or 0)
        beside = self.folder / f".{secrets.token_hex(8)}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return await self._written(name, num_bytes, chunks, beside)
        except OSError as error:
            raise DataError(f"{printable(name)}: cannot be kept: {file_words(error, 'drop it again')}") from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

    async def _written(
        self, name: str, num_bytes: int | None, chunks: AsyncIterator[bytes], beside: Path
    ) -> ListedFile:
        digest, size, head = hashlib.sha256(), 0, b""
        with beside.open("xb") as file:
            async for chunk in chunks:
                if len(head) < HEAD_BYTES and chunk:
                    head += chunk[: HEAD_BYTES - len(head)]
                    refuse_head(name, head)
                size += len(chunk)
                if size > MAX_UPLOAD_BYTES:
                    raise DataError(_too_large(name, size))
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if num_bytes is not None and size != num_bytes:
            raise DataError(f"{printable(name)}: {size:,} of {num_bytes:,} bytes arrived, expected all; drop it again")
        if not head.strip():
            raise DataError(f"{printable(name)}: is empty, expected rows; choose another file")
        path = self.folder / f"{digest.hexdigest()[:12]}-{harmless(name)}"
        beside.replace(path)
        flush_folder(self.folder)
        return self.own_file(path)

    def refuse(self, name: str, num_bytes: int, head: bytes) -> None:
        """Raises: DataError, for a file of which name, size or first bytes show that it is not kept."""
        refuse_name(name)
        self._refuse_size(name, num_bytes)
        refuse_head(name, head)

    def _refuse_size(self, name: str, num_bytes: int) -> None:
        if num_bytes > MAX_UPLOAD_BYTES:
            raise DataError(_too_large(name, num_bytes))
        free = shutil.disk_usage(next(folder for folder in self.folder.parents if folder.is_dir())).free
        if num_bytes + SPARE_BYTES > free:
            found = f"has {in_bytes(num_bytes)}, and {in_bytes(free)} are free on the server's disk"
            raise DataError(f"{printable(name)}: {found}, expected room for it; free space, then drop it again")

    def new_path(self, name: str) -> Path:
        """A path for a file that is made here of another one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{secrets.token_hex(6)}-{harmless(name)}"

    def own(self) -> list[ListedFile]:
        """Files that were dropped or made here, newest first."""
        if not self.folder.is_dir():
            return []
        paths = [path for path in self.folder.iterdir() if STORED.fullmatch(path.name) and path.is_file()]
        return [self.own_file(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)]

    def of_server(self) -> list[ListedFile]:
        """Files with rows below the roots, in the order of their names; hidden folders and runs' own are left out."""
        found: dict[str, ListedFile] = {}
        for root in self.roots:
            for path in files_below(root, MAX_DEPTH, SUFFIXES):
                if path.parent == self.folder.resolve():
                    continue
                if len(found) >= MAX_LISTED:
                    return list(found.values())
                shown = in_words(path)
                file_id = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
                found.setdefault(file_id, ListedFile(file_id, printable(shown), shown, path.stat().st_size, False))
        return list(found.values())

    def find(self, file_id: str) -> ListedFile:
        """The file of an id. Raises: DataError, where there is none any more."""
        for file in (*self.own(), *self.of_server()):
            if file.id == file_id:
                return file
        raise DataError(f"{file_id[:100]!r}: there is no such file any more, expected one of the list; choose another")

    def named(self, path: str) -> str:
        """The name of a file as people know it: a file of ours without the digest."""
        name = Path(path).name
        return name[13:] if STORED.fullmatch(name) else printable(path)

    def is_outside(self, text: str) -> bool:
        """True for the path of a file or folder that the page may not read; what is no path of this machine is none."""
        path = expanded(text)
        try:
            if path.parts[:1] and path.parts[0].startswith("~"):  # below the home of nobody here
                return True
            if not (path.is_absolute() or ".." in path.parts or path.exists()):
                return False
            return not any(path.resolve().is_relative_to(root) for root in self.roots)
        except (OSError, ValueError):  # too long a name, a null character
            return False

    def keep(self, name: str, content: bytes) -> ListedFile:
        """A file of this package as if it had been dropped. Raises: OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:12]}-{harmless(name)}"
        if not path.is_file():
            write_whole(path, content)
        return self.own_file(path)

    def own_file(self, path: Path) -> ListedFile:
        """A file of our folder as it can be chosen."""
        return ListedFile(path.name, path.name[13:], in_words(path.resolve()), path.stat().st_size, True)


def refuse_name(name: str) -> None:
    """Raises: DataError, for a name that is none of a file alone."""
    if not name or not name.isprintable() or len(name) > 255 or {"/", "\\"} & set(name) or name in (".", ".."):
        found = "holds a folder" if {"/", "\\"} & set(name) else "cannot be shown"
        raise DataError(f"{printable(name[:80])!r}: the name {found}, expected a file's name alone; rename the file")


def refuse_head(name: str, head: bytes) -> None:
    """Raises: DataError, for the first bytes of a file that is neither rows nor can be converted."""
    for mark, (found, fix) in _MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{printable(name)}: is {found}, expected rows as JSON Lines, JSON, CSV or Parquet; {fix}")
    shape = recognise(head, whole=False)
    if shape is not None and shape.fix:
        raise DataError(
            f"{printable(name)}: {shape.found}, expected rows as JSON Lines, JSON, CSV or Parquet; {shape.fix}"
        )


def harmless(name: str) -> str:
    """The name in letters, digits, dots, - and _."""
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "rows"
    stem, dot, suffix = made.rpartition(".")
    return made if len(made) <= 80 else f"{stem[: 79 - len(suffix)]}{dot}{suffix}"[:80]


def in_bytes(num_bytes: int) -> str:
    """A size for people, in decimal units as disks have them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes} bytes"


def in_words(path: Path) -> str:
    """The path as a config names it: from the working folder on where it is below."""
    here = Path.cwd().resolve()
    resolved = path if path.is_absolute() else here / path
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(resolved)


def _too_large(name: str, num_bytes: int) -> str:
    return (
        f"{printable(name)}: has {in_bytes(num_bytes)}, expected at most {in_bytes(MAX_UPLOAD_BYTES)} by the browser; "
        "copy it to a folder of the server, and choose it there"
    )


def files_below(folder: Path, depth: int, suffixes: Collection[str]) -> Iterator[Path]:
    """Data files in a folder and those below it, without runs, hidden folders and links."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith(".") or path.name in _SKIPPED or path.is_symlink():
            continue
        if path.is_file() and path.suffix.lower() in suffixes:
            yield path
        elif depth > 1 and path.is_dir() and not (path / "config.yaml").is_file():
            yield from files_below(path, depth - 1, suffixes)
