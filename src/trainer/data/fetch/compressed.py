"""Compressed files: gzip and Zstandard, known by their first bytes."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trainer.data.fetch.limits import Limited
from trainer.data.quoting import printable
from trainer.errors import DataError
from trainer.extras import need

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SUFFIXES = (".gz", ".zst", ".zstd")
_PIECE_BYTES = 1 << 20
_ZSTD_BYTES = 1 << 10  # read at a time: four bytes may hold a block of 128 KiB


def is_compressed_name(name: str) -> bool:
    """True for the name of a file that is unpacked before it is read."""
    return name.lower().endswith(SUFFIXES)


def unpacked(raw: IO[bytes], plain: IO[bytes], name: str, address: str) -> str | None:
    """Write the content of `raw` to `plain`, and return its name; None where it is not compressed.

    Raises: DataError, when it is damaged or unpacks to too much; MissingDependency, without zstandard.
    """
    raw.seek(0)
    head = raw.read(len(ZSTD))
    raw.seek(0)
    damaged: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)
    if head.startswith(GZIP):
        pieces = _gzip_pieces(raw)
    elif head == ZSTD:
        need("unpacking Zstandard files", "zstandard", extra="sources", otherwise="unpack it with unzstd")
        import zstandard

        pieces = _zstd_pieces(raw)
        damaged = (*damaged, zstandard.ZstdError)
    else:
        return None
    target = Limited(plain, address)
    try:
        for piece in pieces:
            target.write(piece)
    except damaged as error:
        raise DataError(
            f"{printable(address)}: cannot be unpacked ({error}), expected a whole file; get it again"
        ) from error
    return name.removesuffix(Path(name).suffix) if is_compressed_name(name) else name


def _gzip_pieces(raw: IO[bytes]) -> Iterator[bytes]:
    stream = gzip.GzipFile(fileobj=raw)
    while piece := stream.read(_PIECE_BYTES):
        yield piece


def _zstd_pieces(raw: IO[bytes]) -> Iterator[bytes]:
    """Content of all frames. Raises: EOFError, where the last one is cut off: zstandard's stream reader just ends."""
    import zstandard

    frame = None
    while packed := raw.read(_ZSTD_BYTES):
        while packed:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(packed)
            packed = frame.unused_data
            frame = None if frame.eof else frame
    if frame:
        raise EOFError("the file ends within a frame")
