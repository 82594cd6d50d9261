"""The model hub: whether it can be reached, and what a model's weights are without fetching them."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from trainer.errors import ConfigError, quoted
from trainer.model.weight_files import INDEX, SINGLE, TensorInfo, files_of, read_tensors, refuse_names


class OutOfSightError(Exception):
    """The weights cannot be looked at from here; the message says why."""


def is_out_of_reach() -> bool:
    """True where the hub's name does not even resolve: the client would try for half a minute before it says so."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return bool(constants.HF_HUB_OFFLINE)
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


def tensors_of(model: str, revision: str | None, local_only: bool) -> dict[str, TensorInfo]:
    """Names and shapes of a model's tensors: from its files where they were fetched before, else from their headers.

    Raises: ConfigError, when it has no safetensors or they are damaged; OutOfSightError.
    """
    folder = _cached(model, revision)
    if folder is not None and (local_only or _is_whole(folder)):
        return read_tensors(folder, "model.base")
    if local_only:
        raise OutOfSightError("they were not fetched before, and the hub is not asked")
    return _headers(model, revision)


def _cached(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in (SINGLE, INDEX):
        found = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _is_whole(folder: Path) -> bool:
    try:
        return bool(files_of(folder, "model.base"))
    except ConfigError:
        return False


def _headers(model: str, revision: str | None) -> dict[str, TensorInfo]:
    """By requests for the first bytes of each file."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        found = HfApi().get_safetensors_metadata(model, revision=revision)
    except NotASafetensorsRepoError:
        raise ConfigError(
            f"model.base: {model!r} has no safetensors weights on the hub, expected {SINGLE} or {INDEX}; choose a "
            "revision or a model that has them"
        ) from None
    except SafetensorsParsingError as error:
        raise ConfigError(
            f"model.base: the weights of {model!r} on the hub are damaged: {quoted(error, 160)}"
        ) from None
    except Exception as error:  # the client raises many kinds
        raise OutOfSightError(f"the hub did not show them: {quoted(str(error), 120)}") from error
    refuse_names(sorted(found.files_metadata), f"{model}/{INDEX}", "model.base")
    return {
        name: TensorInfo(info.dtype, tuple(info.shape))
        for file in found.files_metadata.values()
        for name, info in file.tensors.items()
    }
