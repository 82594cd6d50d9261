"""Data files from anywhere as files on this machine, a workspace's data assets among them."""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.http import Say
from trainer.config.azureml import AzureMLConfig
from trainer.config.schema import RunConfig
from trainer.data.fetch.addresses import LocalFile, Locator

if TYPE_CHECKING:
    from trainer.data.fetch.store import Download
    from trainer.runs import Run


def with_local_data(config: RunConfig, say: Say) -> RunConfig:
    """The config with its data on this machine: patterns expanded, addresses fetched once, compressed files unpacked.

    Raises: DataError, ConfigError, BackendError, with every file that cannot be had.
    """
    data = _locator(config.azureml, say).config(config.data)
    return config if data is config.data else config.model_copy(update={"data": data})


def local_files(paths: list[Path], say: Say) -> list[LocalFile]:
    """The data files that a command line names. Raises: DataError, ConfigError, BackendError."""
    return _locator(AzureMLConfig(), say).files(paths)


def local_file(path: Path, say: Say) -> LocalFile:
    """The one data file that an argument names. Raises: DataError, ConfigError, BackendError."""
    return _locator(AzureMLConfig(), say).file(path)


def fetch_again(run: "Run", say: Say) -> None:
    """Fetch the data of a run that is gone from this machine; it must be what the run has read.

    Raises: DataError, ConfigError, BackendError.
    """
    from trainer.runs.damage import readable_manifest

    if manifest := readable_manifest(run):
        _locator(run.config().azureml, say).again(manifest.data)


def _locator(settings: AzureMLConfig, say: Say) -> Locator:
    def asset_download(address: str) -> "Download":
        from trainer.backends.azureml.data_assets import download_of

        return download_of(address, settings, say)

    return Locator(say, asset_download)
