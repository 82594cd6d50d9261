"""A run's adapter with all that a server elsewhere needs, in one folder: what is registered as a model.

Unlike an export it loads no model: the adapter and the tokenizer are the run's own files, byte for byte, so that there
is nothing to compare. The base stays where it is if the model hub has it, pinned by its commit; else it comes along.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError
from trainer.inference.trained import (
    ADAPTER_FILES,
    copy_adapter,
    stop_ids,
    trained_adapter,
    trained_base,
    trained_tokenizer,
    with_stops,
)
from trainer.model.adapter import seal_adapter
from trainer.model.base import Base
from trainer.model.model_files import model_files
from trainer.runs import Run, files
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.manifest import PinnedBase

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

BASE_FOLDER = "base"
BASE_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder that is whole. `digests` are sha256 by path; `sha256` is over all of them: the content's address."""

    folder: Path
    sha256: str
    digests: dict[str, str]
    base: PinnedBase
    step: int | None


def write_bundle(run: Run, folder: Path, checkpoint: str | None = None, with_base: bool = False) -> Bundle:
    """Write the run's adapter, or that of a checkpoint, to the new folder `folder`.

    `with_base` takes a hub's base along too, for where the hub cannot be reached. Raises: ConfigError.
    """
    adapter, base = trained_adapter(run), trained_base(run)
    weights = _checkpoint(run, checkpoint) if checkpoint else adapter
    tokenizer = trained_tokenizer(run)
    folder.mkdir(parents=True)
    copy_adapter(adapter, folder, without=ADAPTER_FILES)
    for name in ADAPTER_FILES:
        shutil.copyfile(weights / name, folder / name)
    takes_base = with_base or not base.from_hub
    if takes_base:
        _copy_base(base, folder / BASE_FOLDER)
    _generation(base, tokenizer).save_pretrained(folder)
    _name_base(folder / "adapter_config.json", base, takes_base)
    step = int(checkpoint) if checkpoint else None
    seal_adapter(folder, step or run.status().get("adapter_step"))
    files.write_json(folder / "parity.json", _origin(run, base))
    digests = digests_of(folder)
    return Bundle(folder, digest_of(digests), digests, base.pinned(), step)


def digests_of(folder: Path) -> dict[str, str]:
    """sha256 of every file by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.stat().st_size < 1 << 20
        else _large(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest_of(digests: dict[str, str]) -> str:
    """One address of many files."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _large(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checkpoint(run: Run, step: str) -> Path:
    found = {str(checkpoint.step): checkpoint for checkpoint in list_checkpoints(run.checkpoints)}
    if step not in found:
        known = ", ".join(found) or "none"
        raise ConfigError(f"--checkpoint: {run.path} has no checkpoint {step!r}, expected one of: {known}")
    if problem := found[step].problem():
        raise ConfigError(f"--checkpoint: {step} of {run.path} is not whole: {problem}; choose another step")
    return found[step].path


def _copy_base(base: Base, folder: Path) -> None:
    source = Path(base.source)
    if base.from_hub:
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(base.source, revision=base.revision, allow_patterns=list(BASE_FILES)))
    folder.mkdir()
    for file in model_files(source):
        if any(file.match(pattern) for pattern in BASE_FILES) and file.parent == source:
            shutil.copyfile(file, folder / file.name)


def _generation(base: Base, tokenizer: "PreTrainedTokenizerBase") -> "GenerationConfig":
    """The settings of the base's authors, with every id that ends an answer."""
    from transformers import GenerationConfig

    from trainer.data.render.rendering import Renderer

    try:
        own = GenerationConfig.from_pretrained(base.source, **base.loading)
    except OSError:  # there is none
        own = GenerationConfig()
    stops = stop_ids(Renderer(tokenizer).end_markers, tokenizer.eos_token_id, own.eos_token_id)
    padding = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else stops[0]
    return with_stops(own, stops, padding)


def _name_base(config: Path, base: Base, is_inside: bool) -> None:
    named = {"base_model_name_or_path": base.source, "revision": base.revision}
    if is_inside:
        named = {"base_model_name_or_path": BASE_FOLDER, "revision": None}
    files.write_json(config, json.loads(config.read_text(encoding="utf-8")) | named)


def _origin(run: Run, base: Base) -> dict[str, Any]:
    """Facts for a server; `drift` is missing, as the files are those that were trained."""
    settings = run.config()
    return {
        "run": run.name,
        "merged": False,
        "quantization": settings.model.quantization,
        "template_sha256": run.manifest().template_sha256,
        "dtype": settings.model.dtype,
        "base": base.name,
        "lora_r": settings.lora.r,
        "use_dora": settings.lora.use_dora,
        "max_length": base.max_length,
    }
