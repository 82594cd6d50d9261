"""The data files that a config or a command line names, wherever they are, as files on this machine."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.schema import DataConfig, DataSource
from trainer.data.fetch import blobs, hub, patterns, web
from trainer.data.fetch.store import Download, fetch
from trainer.data.quoting import printable
from trainer.data.read.origins import origin_beside
from trainer.errors import Attempts, ConfigError, DataError
from trainer.runs.files import sha256_of
from trainer.runs.manifest import DataFile, Origin

ACCEPTED = "a path, a pattern, https://, az://, hf:// or azureml:NAME:VERSION"
_COLLAPSED = re.compile(r"^([a-z][a-z0-9+.-]+):/(?=[^/])")
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://")
_ASSET = re.compile(r"^azureml:(?!//)")


def spelled(path: Path | str) -> str:
    """An address as it was typed: a Path keeps one slash of two."""
    return _COLLAPSED.sub(r"\1://", str(path))


def is_address(text: str) -> bool:
    """True for what is no path on this machine."""
    return bool(_SCHEME.match(text) or _ASSET.match(text))


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A data file on this machine; `beside` is a path whose folder new files may be written into."""

    path: Path
    beside: Path


class Locator:
    """Finds and fetches data files. `asset_download` knows the data assets of a workspace."""

    def __init__(self, say: Callable[[str], None], asset_download: Callable[[str], Download]) -> None:
        self._say, self._asset_download = say, asset_download
        # The first process of a run has fetched what the others, which repeat its command, then find.
        self._may_ask = "WORLD_SIZE" not in os.environ

    def config(self, data: DataConfig) -> DataConfig:
        """The config with files on this machine in place of patterns and addresses.

        Raises: DataError, ConfigError, with every file that cannot be had.
        """
        attempts = Attempts()
        train, validation = list[str | DataSource](), list[str]()
        for source in data.train_sources:
            for path in attempts.make(self.paths, source.path) or ():
                train.append(path if source.weight == 1 else source.model_copy(update={"path": path}))
        for text in data.validation_paths:
            validation += attempts.make(self.paths, text) or ()
        attempts.end()
        found = {"train": train, "validation": validation or None}
        given = {"train": [path.path for path in data.train_sources], "validation": list(data.validation_paths)}
        if given == {"train": [_path(entry) for entry in train], "validation": validation}:
            return data
        return data.model_copy(update=found)

    def files(self, paths: Sequence[Path]) -> list[LocalFile]:
        """The files that a command line names. Raises: DataError, ConfigError."""
        attempts = Attempts()
        found = [file for path in paths for file in attempts.make(self._files, spelled(path)) or ()]
        attempts.end()
        return found

    def file(self, path: Path) -> LocalFile:
        """The one file that an argument names. Raises: DataError, ConfigError."""
        found = self.files([path])
        if len(found) > 1:
            raise DataError(
                f"{printable(str(path))}: {len(found)} files match the pattern, expected one; name one of them"
            )
        return found[0]

    def paths(self, text: str) -> list[str]:
        """The files on this machine that a text stands for. Raises: DataError, ConfigError."""
        return [str(file.path) for file in self._files(text)]

    def again(self, files: Sequence[DataFile]) -> None:
        """Fetch the files of a run that are gone; each must be what the run has read.

        Raises: DataError, with every file that is another one now.
        """
        attempts = Attempts()
        for file in {file.path: file for file in files}.values():
            if file.origin is not None and not Path(file.path).is_file():
                attempts.make(self._again, file, file.origin)
        attempts.end()

    def _again(self, file: DataFile, origin: Origin) -> None:
        found = Path(self._fetched(origin.address))
        if sha256_of(found) != file.sha256:
            raise DataError(
                f"{printable(origin.address)}: has changed since the run read it (sha256 {sha256_of(found)[:12]}, the "
                f"run's was {file.sha256[:12]}), expected the same rows; bring the old file back to {file.path}, or "
                "start another run"
            )
        if found != Path(file.path):
            raise DataError(
                f"{printable(origin.address)}: was fetched to {found}, expected {file.path}, where the run looks for "
                "it; name the run's cache folder in TRAINER_CACHE"
            )

    def _files(self, text: str) -> list[LocalFile]:
        if text.startswith("az://"):
            return [self._file(blob) for blob in blobs.matching_blobs(text)]
        if is_address(text):
            return [self._file(text)]
        return [self._file(path) for path in patterns.matching(text)]

    def _file(self, text: str) -> LocalFile:
        if not is_address(text) and not patterns.is_packed(text):
            return LocalFile(Path(text), Path(text))
        path = Path(self._fetched(text))
        return LocalFile(path, Path(path.name) if is_address(text) else Path(text).with_name(path.name))

    def _fetched(self, address: str) -> str:
        kept, is_new = fetch(address, self._download_of(address), may_ask=self._may_ask)
        origin = origin_beside(kept.path, sha256_of(kept.path))
        if is_new and origin is not None:
            self._say(f"{printable(address)}: fetched {origin.num_bytes:,} bytes, sha256 {origin.sha256[:12]}")
        return str(kept.path)

    def _download_of(self, address: str) -> Download:
        if _ASSET.match(address):
            return self._asset_download(address)
        match _SCHEME.match(address):
            case None:
                return patterns.download_of(address)
            case found if found[1] == "https":
                return web.download_of(address)
            case found if found[1] == "az":
                return blobs.download_of(address)
            case found if found[1] == "hf":
                return hub.download_of(address, self._say)
            case found if found[1] == "azureml":
                return self._asset_download(address)
            case found:
                fix = "write https://" if found[1] == "http" else "copy the file to one of them"
                plain = address.partition("?")[0]  # a query may hold a secret
                raise ConfigError(f"{printable(plain)}: is not read from {found[1]}://, expected {ACCEPTED}; {fix}")


def _path(entry: str | DataSource) -> str:
    return entry if isinstance(entry, str) else entry.path
