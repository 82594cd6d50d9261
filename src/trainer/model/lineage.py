"""`model.base: runs/<name>[@step]`: the base and the adapter of an earlier run, or a base that is refused early."""

from dataclasses import dataclass
from pathlib import Path

from trainer.config.schema import LoraSettings, RunConfig
from trainer.errors import Attempts, ConfigError
from trainer.model.base import read_template
from trainer.model.base_folder import refuse_base
from trainer.model.tiny import refuse_former
from trainer.runs import Run
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.manifest import PinnedBase


@dataclass(frozen=True, slots=True)
class Parent:
    """An earlier run whose adapter is trained further."""

    run: Run
    adapter: Path
    step: int | None

    @property
    def adapter_file(self) -> Path:
        return self.adapter / "adapter_model.safetensors"

    @property
    def base(self) -> PinnedBase:
        """The parent's own base, as its manifest pins it."""
        return self.run.manifest().base

    @property
    def from_hub(self) -> bool:
        """True where the base is pinned by a hub commit, and not by the digest of a folder."""
        return self.base.weights_sha256 is None


def find_parent(config: RunConfig) -> Parent | None:
    """The run that `model.base` names, or None where it names a model.

    Raises: ConfigError, when it has the form of a run that is not there or has no such adapter.
    """
    name, _, step = config.model.base.partition("@")
    folder = Path(name)
    if not (folder / "config.yaml").is_file():
        if folder.parent == Path(config.run.root):
            raise ConfigError(f"model.base: {name!r} is no run, expected one of those listed by: trainer runs")
        return None
    run = Run(folder)
    if run.find_manifest() is None:
        raise ConfigError(f"model.base: {name!r} stopped before it had loaded its base, expected a finished run")
    refuse_former(run)
    adapter = run.adapter if not step else _checkpoint(run, step)
    if not (adapter / "adapter_config.json").is_file():
        raise ConfigError(
            f"model.base: {name!r} has no adapter (its state is {run.state}), expected a finished run; "
            "finish it or name a checkpoint as <run>@<step>"
        )
    return Parent(run, adapter, int(step) if step else None)


def inherit(config: RunConfig, parent: Parent) -> RunConfig:
    """The config with the parent's LoRA shape and quantization, where it does not set its own.

    Raises: ConfigError, when it asks for another LoRA shape: an adapter keeps the one it was made with.
    """
    before = parent.run.config()
    problems = [
        f"lora.{name}: is {getattr(config.lora, name)!r}, but {parent.run.path} was trained with "
        f"{getattr(before.lora, name)!r}; leave it out to continue that adapter"
        for name in sorted(config.lora.model_fields_set & LoraSettings.model_fields.keys())
        if name != "lora_dropout" and getattr(config.lora, name) != getattr(before.lora, name)
    ]
    if problems:
        raise ConfigError(*problems)
    lora = before.lora.model_copy(update={name: getattr(config.lora, name) for name in config.lora.model_fields_set})
    inherited = {
        name: getattr(before.model, name)
        for name in ("quantization", "dtype", "chat_template")
        if name not in config.model.model_fields_set
    }
    return config.model_copy(update={"lora": lora, "model": config.model.model_copy(update=inherited)})


def _checkpoint(run: Run, step: str) -> Path:
    found = {str(checkpoint.step): checkpoint for checkpoint in list_checkpoints(run.checkpoints)}
    chosen = found.get(step.lstrip("0") or "0")
    if chosen is None:
        known = ", ".join(found) or "none"
        raise ConfigError(f"model.base: {run.path} has no checkpoint {step!r}, expected one of: {known}")
    if problem := chosen.problem():
        raise ConfigError(f"model.base: checkpoint {step} of {run.path} is not whole: {problem}; choose another step")
    return chosen.path


def refuse_model(config: RunConfig) -> None:
    """Look for errors in the section `model` that show before any library is loaded.

    Raises: ConfigError, for a base that cannot be one, an earlier run without an adapter, an unreadable template.
    """
    attempts = Attempts()
    attempts.make(_refuse_base, config)
    if config.model.chat_template is not None:
        attempts.make(read_template, config.model.chat_template)
    attempts.end()


def _refuse_base(config: RunConfig) -> None:
    parent = find_parent(config)
    if parent is None:
        refuse_base(config.model.base)
    else:
        inherit(config, parent)
