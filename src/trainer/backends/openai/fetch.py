"""Data files that are somewhere else, behind a URL: fetched once, to where the config names the file."""

import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from urllib.parse import urlsplit

from trainer.backends.http import Say, patiently, timeout_seconds
from trainer.config.schema import RunConfig
from trainer.data.files.new_files import new_files
from trainer.data.read.rows import MAX_SERVICE_FILE_BYTES
from trainer.errors import BackendError, ConfigError

PIECE_BYTES = 2**20


def refuse_urls(config: RunConfig) -> None:
    """Raises: ConfigError, with everything that is wrong with the config's URL variables."""
    if problems := list(_variables(config)):
        raise ConfigError(*problems)


def fetch_files(config: RunConfig, say: Say) -> None:
    """Fetch what the config's URL variables point to; a file that is there must be the same.

    Raises: ConfigError, BackendError, DataError. No message shows a URL.
    """
    for path, variable in _places(config):
        _fetch(path, variable, say)


def missing_files(config: RunConfig) -> list[Path]:
    """Those that are still to be fetched."""
    return [path for path, _ in _places(config) if not path.exists()]


def _places(config: RunConfig) -> Iterator[tuple[Path, str]]:
    """Each file that is behind a URL, and the variable that holds it."""
    settings = config.openai
    if settings.train_url_variable:
        yield Path(config.data.train_sources[0].path), settings.train_url_variable
    if settings.validation_url_variable:
        yield Path(config.data.validation_paths[0]), settings.validation_url_variable


def _variables(config: RunConfig) -> Iterator[str]:
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
        elif not _is_safe(os.environ[variable]):
            yield f"openai.{name}: {variable!r} does not hold an https URL; correct its value"
        if len(paths) != 1:
            role = name.partition("_")[0]
            yield f"openai.{name}: is set with {len(paths)} files in data.{role}, expected one to fetch it to; name one"


def _is_safe(url: str) -> bool:
    """Encrypted on its way, or of this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost"))


def _fetch(path: Path, variable: str, say: Say) -> None:
    import tempfile

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
    import hashlib

    file.seek(0)
    with path.open("rb") as there:
        if hashlib.file_digest(file, "sha256").digest() == hashlib.file_digest(there, "sha256").digest():
            return
    raise ConfigError(
        f"{path}: exists, and is not what ${variable} points to, expected the same file or none; "
        "move it away, or name another path in the config"
    )
