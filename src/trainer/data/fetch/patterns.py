"""Files of this machine that a config or a command line names: by a path, or by a pattern such as data/*.jsonl."""

import glob
from pathlib import Path

from trainer.data.fetch.compressed import is_compressed_name
from trainer.data.fetch.limits import Limited
from trainer.data.fetch.store import Download, Fetched
from trainer.data.quoting import printable
from trainer.data.read.data_files import opened
from trainer.errors import DataError
from trainer.runs.files import sha256_of

_PIECE_BYTES = 1 << 20


def matching(path: str) -> list[str]:
    """The files that a pattern matches, by name; a path that is no pattern, or is a file itself, as it is.

    Raises: DataError, where a pattern matches no file.
    """
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    found = sorted(name for name in glob.iglob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207  # as typed
    if not found:
        below = "" if Path(path).is_absolute() else f" (looked for below {printable(str(Path.cwd()))})"
        raise DataError(
            f"{printable(path)}: no file matches the pattern, expected one at least; check the pattern{below}"
        )
    return found


def is_packed(path: str) -> bool:
    """True for a file that is read from a copy which is unpacked."""
    return is_compressed_name(path)


def download_of(path: str) -> Download:
    """Copies a compressed file, unless the copy is of the same bytes."""

    def download(revision: str | None, target: Limited) -> Fetched | None:
        with opened(Path(path)) as file:
            if (digest := sha256_of(path)) == revision:
                return None
            while piece := file.read(_PIECE_BYTES):
                target.write(piece)
        return Fetched(Path(path).name, digest)

    return download
