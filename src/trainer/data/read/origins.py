"""Records of where data files were fetched from: each beside its file."""

from pathlib import Path

from trainer.runs.files import read_record
from trainer.runs.manifest import Origin

SUFFIX = ".origin.json"


def record_of(path: Path) -> Path:
    """The record's own file."""
    return path.with_name(path.name + SUFFIX)


def origin_beside(path: Path, sha256: str) -> Origin | None:
    """The origin of the file at `path`, which holds `sha256`; None where it has none, or has changed since."""
    match read_record(record_of(path)):
        case {
            "address": str(address),
            "revision": str() | None as revision,
            "sha256": str(fetched),
            "num_bytes": int(num_bytes),
            "file_sha256": file_sha256,
        } if file_sha256 == sha256:
            return Origin(address, revision, fetched, num_bytes)
    return None
