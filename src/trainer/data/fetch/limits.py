"""A bound on the size of what is fetched."""

import os
import shutil
from pathlib import Path
from typing import IO

from trainer.data.quoting import printable
from trainer.errors import ConfigError, DataError, file_words

VARIABLE = "TRAINER_MAX_SOURCE_BYTES"
MAX_BYTES = 20 * 10**9
SPARE_BYTES = 200 * 10**6  # left free on the disk


def max_bytes() -> int:
    """The largest file that is fetched, or that a compressed one may unpack to. Raises: ConfigError."""
    text = os.environ.get(VARIABLE, "")
    if text and not (text.isdecimal() and int(text)):
        raise ConfigError(f"{VARIABLE}: is {text!r}, expected a number of bytes; correct the variable, or unset it")
    return int(text or MAX_BYTES)


class Limited:
    """A file to write, which refuses to grow beyond the bound. Raises: DataError."""

    def __init__(self, file: IO[bytes], address: str) -> None:
        self.file, self.address, self.limit = file, address, max_bytes()

    def expect(self, num_bytes: int) -> None:
        """Refuse a size that is known beforehand: by the bound, and by the room on the disk."""
        if num_bytes > self.limit:
            raise self._too_large(f"holds {num_bytes:,} bytes")
        if num_bytes + SPARE_BYTES > (free := shutil.disk_usage(Path(self.file.name).parent).free):
            raise DataError(
                f"{printable(self.address)}: holds {num_bytes:,} bytes, expected at most the {free:,} that are free on "
                "the disk of the cache; make room, or name another folder in TRAINER_CACHE"
            )

    def write(self, piece: bytes) -> int:
        if self.file.tell() + len(piece) > self.limit:
            raise self._too_large("holds more")
        try:
            return self.file.write(piece)
        except OSError as error:
            place = Path(self.file.name).parent
            raise DataError(
                f"{printable(self.address)}: cannot be kept in {place} ({file_words(error)}), expected room for it; "
                "make room, or name another folder in TRAINER_CACHE"
            ) from error

    def tell(self) -> int:
        return self.file.tell()

    def restart(self) -> None:
        """Forget what was written."""
        self.file.seek(0)
        self.file.truncate()

    def _too_large(self, found: str) -> DataError:
        accepted = f"expected at most {self.limit:,} bytes; divide it, or raise {VARIABLE}"
        return DataError(f"{printable(self.address)}: {found}, {accepted}")
