"""The encoding of a file: known from its first bytes, or named by its author; never guessed."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from trainer.data.quoting import printable, quoted
from trainer.data.read.data_files import opened
from trainer.data.read.file_shape import recognise
from trainer.errors import ConfigError, DataError

_CHUNK_BYTES = 1 << 20
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SHOWN_BYTES = 20  # on each side of a byte that is not UTF-8


def find_encoding(path: Path, wanted: str | None = None, *, skip_bad: bool = False) -> str:
    """The codec that reads all of `path`: `wanted`, else UTF-8, or UTF-16 or UTF-32 where the first bytes say so.

    The codec skips a byte order mark. With `skip_bad` rows may hold bytes that are not UTF-8.

    Raises: ConfigError, when `wanted` is no encoding; DataError, when the file is not text in that encoding.
    """
    with opened(path) as file:
        head = file.read(64)
    found = _checked(wanted) if wanted else _by_first_bytes(head)
    if (error := _mistake(path, found)) is None:
        return found
    shape = recognise(head, whole=False)
    if skip_bad and found == "utf-8-sig" and not (shape and shape.fix):
        return found
    if shape and shape.fix:
        raise DataError(f"{printable(str(path))}: {shape.found}, expected text; {shape.fix}")
    raise DataError(_refusal(path, found, error, wanted))


def _checked(name: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        raise ConfigError(
            f"--encoding: {quoted(name)} is not known, expected the name of an encoding; "
            "try utf-8, utf-16, latin-1 or cp1252"
        ) from None
    return "utf-8-sig" if codecs.lookup(name).name == "utf-8" else name


def _by_first_bytes(head: bytes) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    # A file of the layouts read here begins with ASCII, which as UTF-16 has a zero in every other byte.
    zeros = [at for at, byte in enumerate(head[:4]) if byte == 0]
    return "utf-16-le" if zeros == [1, 3] else "utf-16-be" if zeros == [0, 2] else "utf-8-sig"


def _mistake(path: Path, encoding: str) -> UnicodeError | None:
    """Error that `path` raises as text in `encoding`; its place is that in the whole file."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    for chunk in _chunks(path):
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            error.start += offset + len(chunk) - len(error.object)
            return error
        except UnicodeError as error:
            return error
        offset += len(chunk)
    return None


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of `path`, and an empty chunk at the end."""
    with opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
    yield b""


def _refusal(path: Path, encoding: str, error: UnicodeError, wanted: str | None) -> str:
    name = printable(str(path))
    shown = "UTF-8" if encoding == "utf-8-sig" else encoding
    at = f"at byte offset {error.start} " if isinstance(error, UnicodeDecodeError) else ""
    if wanted or encoding != "utf-8-sig" or not isinstance(error, UnicodeDecodeError):
        return f"{name}: {at}is not {shown}, expected text in one encoding; give its true encoding with --encoding"
    line, sample = _around(path, error.start)
    return (
        f"{name}:{line}: {at}is not {shown}, expected text in one encoding; save it as UTF-8, name its encoding "
        f"(with --encoding cp1252 it reads {quoted(sample)}), or leave such rows out with --skip-bad"
    )


def _around(path: Path, at: int) -> tuple[int, str]:
    """The number of the line with byte `at`, and what of it stands near, as Windows in the West would read it."""
    with opened(path) as file:
        before = file.read(at)
        after = file.read(_SHOWN_BYTES)
    begin = max(at - _SHOWN_BYTES, before.rfind(b"\n") + 1)
    text = (before[begin:] + after.partition(b"\n")[0]).decode("cp1252", errors="replace")
    return before.count(b"\n") + 1, text.strip()
