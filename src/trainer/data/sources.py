"""A run's data files: read, checked by every rule that needs no tokenizer, and known by the digest of their bytes."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.config.schema import DataConfig
from trainer.data.checks import DataReport, check_files
from trainer.data.data_files import opened
from trainer.errors import Attempts, DataError


@dataclass(frozen=True, slots=True)
class CheckedData:
    """What the files hold, and the digest of each as it was read."""

    report: DataReport
    digests: Mapping[str, str]


def without_validation(settings: DataConfig) -> str | None:
    """What a run without held-out rows lacks and how to hold some out, or None where it has them."""
    if settings.validation_paths:
        return None
    return (
        "nothing, so no best checkpoint is chosen and nothing will show whether it got better; hold rows out with: "
        f"trainer data split {settings.train_sources[0].path}"
    )


def refuse_unreadable(settings: DataConfig) -> None:
    """Raises: DataError, with every file that is not there or cannot be read: known before anything is loaded."""
    attempts = Attempts()
    for path in (*(source.path for source in settings.train_sources), *settings.validation_paths):
        attempts.make(_open_once, Path(path))
    attempts.end()


def _open_once(path: Path) -> None:
    with opened(path):
        pass


def check_data(settings: DataConfig) -> CheckedData:
    """Read every file and check every rule that needs no tokenizer.

    Raises: DataError, with every row that breaks a rule, or where a file changed meanwhile.
    """
    digests = _digests(settings)
    report = check_files(
        [Path(source.path) for source in settings.train_sources],
        [Path(path) for path in settings.validation_paths],
        backend="local",
        allow_leak=settings.allow_leak,
    )
    report.raise_on_errors()
    if changed := [path for path, digest in _digests(settings).items() if digest != digests[path]]:
        raise DataError(
            *(f"{path}: the file was changed while it was read, expected it to rest; try again" for path in changed)
        )
    return CheckedData(report, digests)


def _digests(settings: DataConfig) -> dict[str, str]:
    """The sha256 of each file; a file that cannot be read is told of where its rows are."""
    paths = [*(source.path for source in settings.train_sources), *settings.validation_paths]
    return {path: sha256_of(path) for path in paths if Path(path).is_file() and os.access(path, os.R_OK)}


def sha256_of(path: str) -> str:
    """Digest of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
