"""Parts of a run's result: its adapter, the base it was trained on, and the tokenizer with its chat template."""

import hashlib
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.kinds import is_service
from trainer.model.base import Base, find_base
from trainer.model.lineage import find_parent
from trainer.model.tiny import FOLDER as TINY_FOLDER
from trainer.model.tiny import NAME as TINY
from trainer.model.tiny import refuse_former
from trainer.runs import Run
from trainer.runs.checkpoint import MANIFEST
from trainer.runs.files import read_record, sha256_of
from trainer.runs.lifecycle import further
from trainer.runs.manifest import NAME as MANIFEST_NAME
from trainer.runs.manifest import DamagedManifest
from trainer.training.fingerprint import PARENT_ADAPTER

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


def trained_adapter(run: Run) -> Path:
    """The folder of the run's adapter. Raises: ConfigError, when the run has none yet."""
    has_weights = (run.adapter / "adapter_model.safetensors").is_file()
    if is_service(run.backend) and not has_weights:
        raise ConfigError(
            f"run {run.name!r}: its model is kept by the service, which gives no weights away, expected a run with an "
            f"adapter; talk to it with: trainer chat {run.path}"
        )
    if not has_weights:
        raise ConfigError(
            f"run {run.name!r}: has no adapter (its state is {run.state}), expected a finished run; {further(run)}"
        )
    return run.adapter


def starting_adapter(run: Run) -> Path | None:
    """The folder of the adapter that training began with; None where it began anew.

    Raises: ConfigError, when the run that it came from is gone, or has another one now.
    """
    manifest = run.manifest()
    if manifest.parent is None:
        return None
    parent = find_parent(run.config())
    if parent is None:
        raise ConfigError(f"model.base: {run.config().model.base!r} is gone, expected the run that training began with")
    if manifest.fingerprint is None or PARENT_ADAPTER not in manifest.fingerprint:
        raise DamagedManifest(run.path / MANIFEST_NAME)
    if manifest.fingerprint[PARENT_ADAPTER] != sha256_of(parent.adapter_file):
        raise ConfigError(f"{parent.adapter_file}: is another one now, expected the adapter that training began with")
    return parent.adapter


def copy_adapter(adapter: Path, target: Path, without: Collection[str] = ()) -> None:
    """Copy what lies in an adapter's folder, but its manifest and the names in `without`.

    Also from folders in it: a tokenizer with several chat templates has one.
    """
    for file in sorted(file for file in adapter.rglob("*") if file.is_file()):
        if file.name not in (MANIFEST, *without):
            copy = target / file.relative_to(adapter)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def trained_base(run: Run) -> Base:
    """The base that the run's manifest pins. Raises: ConfigError, when it is gone or has changed."""
    pinned = run.manifest().base
    refuse_former(run)
    revision = pinned.revision if pinned.weights_sha256 is None else None
    name = _named_by_adapter(run, pinned.name) if is_service(run.backend) else pinned.name
    base = find_base(run.config().model.model_copy(update={"base": name, "revision": revision}))
    if pinned.is_pinned and base.pinned() != pinned:
        raise ConfigError(
            f"run {run.name!r}: its base {pinned.name!r} has changed since training: was {pinned}, is "
            f"{base.pinned()}; bring the old one back"
        )
    return base


def _named_by_adapter(run: Run, name: str) -> str:
    """The hub id of the base that a server has trained, which may offer it under another name; else that name."""
    found = str(read_record(run.adapter / "adapter_config.json").get("base_model_name_or_path") or "")
    if Path(found).name == TINY_FOLDER.name:  # wherever the trainer is installed there
        return TINY
    return name if not found or Path(found).is_absolute() else found


def trained_tokenizer(run: Run) -> "PreTrainedTokenizerBase":
    """The tokenizer that was stored with the adapter; its chat template is the trained one.

    Raises: ConfigError, when it cannot be read or its template is another one.
    """
    trained_template = run.manifest().template_sha256
    tokenizer = stored_tokenizer(run.adapter)
    if trained_template is not None and template_digest(tokenizer) != trained_template:
        raise ConfigError(
            f"run {run.name!r}: the chat template in {str(run.adapter)!r} is not the trained one; "
            "bring the old file back"
        )
    return tokenizer


def template_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 of the chat template, as the manifest holds it."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def stored_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder. Raises: ConfigError, when there is none that can be read."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizer classes raise many kinds
        raise ConfigError(f"{folder}: the tokenizer cannot be loaded: {error}; bring the old files back") from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def with_stops(generation: "GenerationConfig", stops: list[int], padding: int) -> "GenerationConfig":
    """The base's own settings, ending where the template ends a turn."""
    from transformers import GenerationConfig

    # Without the private marks: one says that the settings may be made anew from the model's config.
    kept = {name: value for name, value in generation.to_diff_dict().items() if not name.startswith("_")}
    if not generation.do_sample:  # of no effect then, and transformers refuses to store them
        kept = {name: value for name, value in kept.items() if name not in ("temperature", "top_p", "top_k")}
    return GenerationConfig(**kept | {"eos_token_id": stops, "pad_token_id": padding})


def stop_ids(end_markers: Iterable[int], *configured: int | Sequence[int] | None) -> list[int]:
    """Every id that ends an answer: the template's end markers, and those of the base's own settings."""
    found = set(end_markers)
    for ids in configured:
        found |= set() if ids is None else {ids} if isinstance(ids, int) else set(ids)
    return sorted(found)
