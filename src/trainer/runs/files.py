"""Files that are whole at any instant, and logs that grow by whole lines.

A file is written beside its place, flushed and renamed. A log is read by what is new in it, or from its end: a long one
is never read twice.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.runs.growth import end_cursor, growth, lines_before


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Replace `path` in one step: a reader, or a crash, sees the old content or the new one."""
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write_flushed(beside, data)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the error of the writing is the one to report
            beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_flushed(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and have it on disk; a crash can leave a part of it. Raises: FileExistsError."""
    with path.open("xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


@contextlib.contextmanager
def folders_above(*paths: Path) -> Iterator[None]:
    """The folders above new files or folders, made where they are missing, and removed where the block fails.

    Raises: OSError.
    """
    missing = {folder for path in paths for folder in path.absolute().parents if not folder.exists()}
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in sorted(missing, key=lambda folder: len(folder.parts), reverse=True):
            with contextlib.suppress(OSError):  # it holds what others made, or was never made
                folder.rmdir()
        raise


def expanded(path: str | Path) -> Path:
    """The path with `~` as the home folder, as shells write it; unchanged where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises RuntimeError there


def nearest_folder(path: Path) -> Path:
    """The nearest existing parent of a path, which may be no folder."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def flush_folder(folder: Path) -> None:
    """Make renames and new files in `folder` survive a power cut, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not every platform opens folders
        return
    try:
        os.fsync(handle)
    except OSError:  # nor does every mount flush them
        pass
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """`write_whole` for JSON; NaN and Infinity, which are not JSON, are refused."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file, or None where there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def read_record(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is none yet, or a mount shows only a part of it."""
    try:
        value = read_json(path)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def stamp(path: Path) -> tuple[int, ...] | None:
    """File number, size and time of change, which differ once a file may hold something else; None without a file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def refuse_newer(path: Path, found: object, known: int) -> None:
    """Raises: ConfigError, when a file's `format` is one that this version does not know yet."""
    if isinstance(found, int) and found > known:
        raise ConfigError(
            f"{path}: is of format {found}, expected {known} or an earlier one; a newer version wrote it, so upgrade "
            "with: pip install --upgrade azure-llm-trainer"
        )


def sha256_of(path: str | Path) -> str:
    """The digest of a file's bytes. Raises: OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, value: dict[str, Any], flush: bool = False) -> None:
    """Append one JSON object as one line in one write, so that lines never mix."""
    append_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n", flush)


def append_text(path: Path, line: str, flush: bool = False) -> None:
    """Append `line` in one write, on a new line even where a crash or a full disk cut the last one short.

    With `flush` it survives a power cut once this has returned.
    """
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + line.encode())
        if flush:
            os.fsync(file.fileno())
    if flush and size == 0:
        flush_folder(path.parent)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that a crash cut short is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.split("\n")[:-1]:
        if (record := record_of(line)) is not None:
            yield record


class NewLines:
    """The lines that a file has got since it was last asked; a line that is still being written waits."""

    def __init__(self, path: Path) -> None:
        self.path, self.cursor = path, ""

    def read(self) -> Iterator[str]:
        """Of a resumed run, which begins its measurements anew, all of them."""
        while (found := growth(self.path, self.cursor)).lines:
            self.cursor = found.cursor
            yield from found.lines
        self.cursor = found.cursor

    def skip(self) -> None:
        """Take what is there now for known."""
        self.cursor = end_cursor(self.path)


def from_the_end(path: Path) -> Iterator[str]:
    """The whole lines of a file, the last one first."""
    return (line for _, line in lines_before(path))


def last_records(path: Path, count: int) -> list[dict[str, Any]]:
    """The last objects of a JSON-lines file, in its order."""
    found = (record for line in from_the_end(path) if (record := record_of(line)) is not None)
    return list(islice(found, count))[::-1]


def record_of(line: str) -> dict[str, Any] | None:
    """The object of a line; None where it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


GENERATOR = b'<meta name="generator" content="azure-llm-trainer">'
EARLIER = b"content=\"default-src 'none'; style-src 'unsafe-inline'"  # how pages began before they named their maker
HEAD_BYTES = 1000


def refuse_other_file(option: str, file: Path) -> None:
    """Raises: ConfigError, when something else than a page of ours is there."""
    if file.is_dir() or (file.exists() and not file.is_file()):
        raise ConfigError(f"{option}: {str(file)!r} is no regular file, expected a page's file; choose another name")
    if file.exists() and not _is_page_of_ours(file):
        raise ConfigError(
            f"{option}: {str(file)!r} exists and is no page of this program, expected a new file; "
            "choose another name or remove it"
        )


def write_page(option: str, file: Path, page: str) -> None:
    """Write a page whole. Raises: ConfigError, when another file is there or it cannot be written."""
    refuse_other_file(option, file)
    try:
        write_whole(file, page)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written: {error.strerror}, expected a file in a folder that exists"
        ) from None


def _is_page_of_ours(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError:
        return False
    return head.startswith(b"<!doctype html>") and (GENERATOR in head or EARLIER in head)


def cache_folder() -> Path:
    """TRAINER_CACHE, or a folder of ours in the user's cache."""
    if own := os.environ.get("TRAINER_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "azure-llm-trainer"
