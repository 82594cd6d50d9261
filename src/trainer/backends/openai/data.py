"""The files that are uploaded: checked by the rules of the service, and one file for each role.

A file behind a URL is fetched once, to where the config names it. What is uploaded is written anew from the data files
whenever it is needed, so that no copy of them is left anywhere.
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
from urllib.parse import urlsplit

from trainer.backends.http import Say, patiently, timeout_seconds
from trainer.backends.openai.catalog import find_in_catalog
from trainer.backends.openai.client import OURS
from trainer.backends.openai.prices import TokenCount, count
from trainer.config.schema import RunConfig
from trainer.data.files.new_files import new_files
from trainer.data.read.checks import DataReport, check_files
from trainer.data.read.data_files import BYTE_ORDER_MARK, numbered_lines, opened
from trainer.data.read.rows import MAX_SERVICE_FILE_BYTES
from trainer.data.read.sources import data_files
from trainer.errors import BackendError, ConfigError, DataError
from trainer.runs.manifest import DataFile, Role, Upload

PIECE_BYTES = 2**20
MAX_ROW_TOKENS = 65_536  # where nothing is known of the model
SHORTER_ROWS = {"gpt-3.5-turbo": 16_385}  # of models that the table lacks
SURE_TOKENS = 8_192  # the shortest context of any model of the table


@dataclass(frozen=True, slots=True)
class ServiceData:
    """The run's rows, what is known of them, and what will be uploaded."""

    report: DataReport
    train: TokenCount
    validation: TokenCount
    files: tuple[DataFile, ...]
    uploads: tuple[Upload, ...]
    max_length: int


def check_service_data(config: RunConfig, family: str) -> ServiceData:
    """Check every row by the rules of the service. Raises: DataError, with every row that breaks one."""
    report = check_files(
        [Path(path) for path in paths_of(config, "train")],
        [Path(path) for path in paths_of(config, "validation")],
        backend="local" if config.openai.service == OURS else "openai",  # whose rules the training will follow
        allow_leak=config.data.allow_leak,
        method=config.training.method,
    )
    train, validation = count(report.conversations, family), count(report.validation, family)
    limit = longest_row(family)
    if isinstance(config.data.max_length, int):
        limit = min(limit, config.data.max_length)
    problems = list(map(str, report.errors))
    if train.is_exact:  # an upper bound proves nothing: `notes_on_length` tells of it
        problems += _long_rows(report, train, validation, limit)
    if problems:
        raise DataError(*problems)
    return ServiceData(report, train, validation, data_files(config.data, report), uploads_of(config), limit)


def longest_row(family: str) -> int:
    """The tokens beyond which the service cuts a training example off."""
    row = find_in_catalog(family)
    known = None if row is None else row.context
    return known or SHORTER_ROWS.get(family, MAX_ROW_TOKENS)


def refuse_urls(config: RunConfig) -> None:
    """Raises: ConfigError, with everything that is wrong with the config's URL variables."""
    if problems := list(_url_problems(config)):
        raise ConfigError(*problems)


def fetch_files(config: RunConfig, say: Say) -> None:
    """Fetch what the config's URL variables point to; a file that is there must be the same.

    Raises: ConfigError, BackendError, DataError. No message shows a URL.
    """
    for path, variable in _files_behind_urls(config):
        _fetch(path, variable, say)


def missing_files(config: RunConfig) -> list[Path]:
    """Those that are still to be fetched."""
    return [path for path, _ in _files_behind_urls(config) if not path.exists()]


def paths_of(config: RunConfig, role: Role) -> tuple[str, ...]:
    """The data files of a role, in the order given."""
    if role == "train":
        return tuple(source.path for source in config.data.train_sources)
    return config.data.validation_paths


def uploads_of(config: RunConfig) -> tuple[Upload, ...]:
    """Files to upload, measured. Raises: DataError, where one cannot be read."""
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


def place_in_files(paths: Sequence[str], number: int) -> str:
    """`file:line` of the row that is line `number` of the upload, counted from 1; empty where there is none."""
    row = 0
    for path in paths:
        with opened(Path(path)) as source:
            for line in numbered_lines(source):
                row += not line.blank
                if row == number and not line.blank:
                    return f"{path}:{line.number}"
    return ""


def notes_on_length(checked: ServiceData) -> list[str]:
    """Rows that may be too long, where their tokens could not be counted."""
    if checked.train.is_exact:
        return []
    return list(_long_rows(checked.report, checked.train, checked.validation, checked.max_length))


def notes_on_model(checked: ServiceData, family: str) -> list[str]:
    """Notes on what the rows ask of an open model and no document promises."""
    row = find_in_catalog(family)
    if row is None or not row.weight_is_unsaid:
        return []
    notes, rows = [], [*checked.report.conversations, *checked.report.validation]
    if unweighted := sum(any(message.weight == 0 for message in each.messages) for each in rows):
        notes.append(
            f"weight 0 stands in {unweighted:,} of {len(rows):,} rows, and no document says that {row.name} honors it: "
            "those answers may be trained on; leave them out, or try a few rows first"
        )
    longest = max(checked.train.longest, checked.validation.longest)
    if row.context is None and longest > SURE_TOKENS:
        notes.append(
            f"no document says how long a training example of {row.name} may be: the longest row has {longest:,} "
            f"tokens, and {SURE_TOKENS:,} are sure"
        )
    return notes


def _long_rows(report: DataReport, train: TokenCount, validation: TokenCount, limit: int) -> Iterator[str]:
    """The rows that the service would cut off without a word."""
    lengths = [
        *zip(report.conversations, train.lengths, strict=True),
        *zip(report.validation, validation.lengths, strict=True),
    ]
    bound = "" if train.is_exact else "about " if train.encoding else "up to "
    for row, num_tokens in lengths:
        if num_tokens > limit:
            yield (
                f"{row.place}: LENGTH: has {bound}{num_tokens:,} tokens, expected at most {limit:,}, beyond which the "
                "service cuts it off; shorten it or leave it out"
            )


def _files_behind_urls(config: RunConfig) -> Iterator[tuple[Path, str]]:
    """Each file that is behind a URL, and the variable that holds it."""
    settings = config.openai
    if settings.train_url_variable:
        yield Path(config.data.train_sources[0].path), settings.train_url_variable
    if settings.validation_url_variable:
        yield Path(config.data.validation_paths[0]), settings.validation_url_variable


def _url_problems(config: RunConfig) -> Iterator[str]:
    settings = config.openai
    for name, paths in (
        ("train_url_variable", [source.path for source in config.data.train_sources]),
        ("validation_url_variable", list(config.data.validation_paths)),
    ):
        variable = getattr(settings, name)
        if variable is None:
            continue
        if not os.environ.get(variable):
            yield f"openai.{name}: {variable!r} is not set in the environment, expected the file's URL; set it"
        elif not _is_encrypted_or_local(os.environ[variable]):
            yield f"openai.{name}: {variable!r} does not hold an https URL; correct its value"
        if len(paths) != 1:
            role = name.partition("_")[0]
            yield f"openai.{name}: is set with {len(paths)} files in data.{role}, expected one to fetch it to; name one"


def _is_encrypted_or_local(url: str) -> bool:
    """Encrypted on its way, or of this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost"))


def _fetch(path: Path, variable: str, say: Say) -> None:
    with tempfile.TemporaryFile() as file:
        num_bytes = patiently(lambda: _download(os.environ[variable], variable, file), f"fetching ${variable}", say)
        if path.exists():
            _hold_same(path, variable, file)
            return
        with new_files([path], [], force=False) as (target,):
            file.seek(0)
            while piece := file.read(PIECE_BYTES):
                target.write(piece)
    say(f"{path}: fetched {num_bytes:,} bytes from ${variable}")


def _download(url: str, variable: str, file: BufferedRandom) -> int:
    """Write what the URL holds to `file`; returns the number of bytes."""
    import httpx2

    file.seek(0)
    file.truncate()
    with httpx2.stream("GET", url, timeout=timeout_seconds(), follow_redirects=False) as response:
        if response.status_code != 200:
            raise BackendError(
                f"${variable}: the file's server answered {response.status_code}, expected 200 and the file; "
                "correct the URL, or renew its SAS token"
            )
        for piece in response.iter_bytes():
            file.write(piece)
            if file.tell() > MAX_SERVICE_FILE_BYTES:
                raise BackendError(
                    f"${variable}: the file is larger than {MAX_SERVICE_FILE_BYTES:,} bytes, which the service takes "
                    "at most; divide it"
                )
    return file.tell()


def _hold_same(path: Path, variable: str, file: BufferedRandom) -> None:
    """Raises: ConfigError, when the file that is there is another one."""
    file.seek(0)
    with path.open("rb") as there:
        if hashlib.file_digest(file, "sha256").digest() == hashlib.file_digest(there, "sha256").digest():
            return
    raise ConfigError(
        f"{path}: exists, and is not what ${variable} points to, expected the same file or none; "
        "move it away, or name another path in the config"
    )
