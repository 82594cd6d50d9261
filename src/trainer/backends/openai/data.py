"""The files that are uploaded: checked with this service's rules, written out as it wants them, one for each role.

What is uploaded is made anew from the data files whenever it is needed, so that no copy of them is left anywhere.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from trainer.backends.openai.tokens import Count, count
from trainer.config.schema import RunConfig
from trainer.data.read.checks import DataReport, check_files
from trainer.data.read.data_files import BYTE_ORDER_MARK, numbered_lines, opened
from trainer.data.read.sources import data_files
from trainer.errors import DataError
from trainer.runs.manifest import DataFile, Role, Upload

# https://learn.microsoft.com/azure/foundry/openai/quotas-limits: the longest example; gpt-4.1-nano reads less.
MAX_ROW_TOKENS = 65_536
SHORTER_ROWS = {"gpt-4.1-nano": 32_768, "gpt-3.5-turbo": 16_385}


@dataclass(frozen=True, slots=True)
class Checked:
    """The run's rows, what is known of them, and what will be uploaded."""

    report: DataReport
    train: Count
    validation: Count
    files: tuple[DataFile, ...]
    uploads: tuple[Upload, ...]
    max_length: int


def check_data(config: RunConfig, family: str) -> Checked:
    """Check every row by the rules of the service. Raises: DataError, with every row that breaks one."""
    report = check_files(
        [Path(path) for path in paths_of(config, "train")],
        [Path(path) for path in paths_of(config, "validation")],
        backend="openai",
        allow_leak=config.data.allow_leak,
    )
    train, validation = count(report.conversations, family), count(report.validation, family)
    limit = SHORTER_ROWS.get(family, MAX_ROW_TOKENS)
    if isinstance(config.data.max_length, int):
        limit = min(limit, config.data.max_length)
    problems = list(map(str, report.errors))
    if train.encoding:  # an upper bound proves nothing: `notes_on_length` tells of it
        problems += _long_rows(report, train, validation, limit)
    raise_on(problems)
    return Checked(report, train, validation, data_files(config.data, report), uploads_of(config), limit)


def paths_of(config: RunConfig, role: Role) -> tuple[str, ...]:
    """The data files of a role, in the order given."""
    if role == "train":
        return tuple(source.path for source in config.data.train_sources)
    return config.data.validation_paths


def uploads_of(config: RunConfig) -> tuple[Upload, ...]:
    """What will be uploaded, measured. Raises: DataError, where a file cannot be read."""
    roles: tuple[Role, ...] = ("train", "validation") if config.data.validation_paths else ("train",)
    found = []
    for role in roles:
        with prepared(config, role) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(Upload(role, paths_of(config, role), file.tell(), digest))
    return tuple(found)


def imported_from(config: RunConfig, role: Role) -> str | None:
    """The environment variable with the URL from which the service fetches the file itself, as Azure can."""
    settings = config.openai
    if settings.service != "azure":
        return None
    return settings.train_url_variable if role == "train" else settings.validation_url_variable


@contextmanager
def prepared(config: RunConfig, role: Role) -> Iterator[BufferedRandom]:
    """The rows of a role as one nameless file, which ends with the block and with the process.

    What the service fetches itself is as it stands there, byte for byte.
    """
    with tempfile.TemporaryFile() as file:
        if config.openai.file_bom and not imported_from(config, role):
            file.write(BYTE_ORDER_MARK)
        for path in paths_of(config, role):
            with opened(Path(path)) as source:
                if imported_from(config, role):
                    shutil.copyfileobj(source, file)
                    continue
                for line in numbered_lines(source):
                    if not line.blank:
                        file.write(line.raw + b"\n")
        file.flush()
        file.seek(0, os.SEEK_SET)
        yield file


def notes_on_length(checked: Checked) -> list[str]:
    """Rows that may be too long, where their tokens could not be counted."""
    if checked.train.encoding:
        return []
    return list(_long_rows(checked.report, checked.train, checked.validation, checked.max_length))


def _long_rows(report: DataReport, train: Count, validation: Count, limit: int) -> Iterator[str]:
    """The rows that the service would cut off without a word."""
    lengths = [
        *zip(report.conversations, train.rows, strict=True),
        *zip(report.validation, validation.rows, strict=True),
    ]
    bound = "" if train.encoding else "up to "
    for row, num_tokens in lengths:
        if num_tokens > limit:
            yield (
                f"{row.place}: LENGTH: has {bound}{num_tokens:,} tokens, expected at most {limit:,}, beyond which the "
                "service cuts it off; shorten it or leave it out"
            )


def raise_on(problems: Sequence[str]) -> None:
    """Raises: DataError, when there are problems."""
    if problems:
        raise DataError(*problems)
