"""A run's data files: read, checked by every rule that needs no tokenizer, and each known by one identity."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.schema import DataConfig, DataSource
from trainer.data.read.checks import DataReport, check_files
from trainer.data.read.data_files import opened
from trainer.data.read.origins import origin_beside
from trainer.errors import Attempts, DataError
from trainer.kinds import Method
from trainer.runs.files import sha256_of
from trainer.runs.manifest import DataFile, Role


@dataclass(frozen=True, slots=True)
class CheckedData:
    """Rows of the files, and each file as it was read."""

    report: DataReport
    files: tuple[DataFile, ...]


def without_validation(settings: DataConfig) -> str | None:
    """Say what a run without held-out rows lacks and how to hold some out; None where it has them."""
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


def check_data(settings: DataConfig, method: Method | None) -> CheckedData:
    """Read every file and check every rule that needs no tokenizer, of rows for `method`: None takes either kind.

    Raises: DataError, with every row that breaks a rule, or where a file changed meanwhile.
    """
    listed = listed_files(settings)
    digests = _digests(listed)
    report = check_files(
        [Path(source.path) for role, source in listed if role == "train"],
        [Path(source.path) for role, source in listed if role == "validation"],
        backend="local",
        allow_leak=settings.allow_leak,
        method=method,
    )
    report.raise_on_errors()
    if changed := [path for path, digest in _digests(listed).items() if digest != digests[path]]:
        raise DataError(
            *(f"{path}: the file was changed while it was read, expected it to rest; try again" for path in changed)
        )
    return CheckedData(report, data_files(settings, report, digests))


def listed_files(settings: DataConfig) -> list[tuple[Role, DataSource]]:
    """The training files, then the validation files, each with its weight."""
    validation = [DataSource(path=path) for path in settings.validation_paths]
    return [*(("train", source) for source in settings.train_sources), *(("validation", file) for file in validation)]


def data_files(
    settings: DataConfig, report: DataReport, digests: Mapping[str, str] | None = None
) -> tuple[DataFile, ...]:
    """The files of a config that `report` is of. A file that is listed twice is twice among them."""
    listed = listed_files(settings)
    digests = _digests(listed) if digests is None else digests
    names = row_names([source.path for _, source in listed])
    counts = {"train": Counter(row.file for row in report.conversations)}
    counts["validation"] = Counter(row.file for row in report.validation)
    times = Counter((role, Path(source.path).resolve()) for role, source in listed)
    found = []
    for role, source in listed:
        resolved = Path(source.path).resolve()
        rows = counts[role][names[source.path]] // times[role, resolved]
        origin = origin_beside(resolved, digests[source.path])
        found.append(DataFile(source.path, role, digests[source.path], rows, source.weight, origin))
    return tuple(found)


def row_names(paths: Iterable[str]) -> dict[str, str]:
    """By what rows and findings call the file of each path: as it was written first, `a//b` as `a/b`."""
    names: dict[Path, str] = {}
    return {path: names.setdefault(Path(path).resolve(), str(Path(path))) for path in paths}


def weights_of(files: Sequence[DataFile]) -> dict[str, float]:
    """Times that an epoch uses each row of a training file, by the name that the row has.

    The rows of a file that is listed twice are there twice, so that its weights add up.
    """
    names = row_names(file.path for file in files)
    weights: dict[str, list[float]] = {}
    for file in files:
        if file.role == "train":
            weights.setdefault(names[file.path], []).append(file.weight)
    return {name: sum(of_file) / len(of_file) for name, of_file in weights.items()}


def apart(paths: Iterable[str], suffix: str | None = None) -> dict[str, str]:
    """For each path a name without folders: one name for one file, however it is spelled, and another for another.

    `suffix` stands in place of their own.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    found: dict[str, str] = {}
    for path in paths:
        resolved = Path(path).resolve()
        if resolved not in names:
            own = Path(path).name if suffix is None else f"{Path(path).stem}{suffix}"
            name, number = own, len(names)
            while name in taken:
                name, number = f"{number}-{own}", number + 1
            names[resolved] = name
            taken.add(name)
        found[path] = names[resolved]
    return found


def _digests(listed: Sequence[tuple[Role, DataSource]]) -> dict[str, str]:
    """The sha256 of each file; reading its rows reports a file that cannot be read."""
    paths = [source.path for _, source in listed]
    return {path: sha256_of(path) for path in paths if Path(path).is_file() and os.access(path, os.R_OK)}
