"""`model.base` of this backend: a model of the service, one that it has tuned, or an earlier run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.backends.openai.prices import family_of
from trainer.config.kinds import is_service
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.checkpoint import STATE, folder_of, list_checkpoints
from trainer.runs.files import read_record


@dataclass(frozen=True, slots=True)
class Base:
    """What is tuned further. `family` names prices and the encoding, `tuned` says that it is not a model of all."""

    model: str  # as the service knows it
    family: str
    parent: tuple[str, int | None] | None = None  # the run and the step that it comes from

    @property
    def is_tuned(self) -> bool:
        """Whether it was made by fine-tuning, and is deployed and listed under a name of its own."""
        return self.parent is not None or ":" in self.model or ".ft-" in self.model or self.model.startswith("ft")


def find_base(name: str) -> Base:
    """The model that a config's `model.base` names. Raises: ConfigError, for a run without such a model."""
    folder, _, step = name.partition("@")
    if not (Path(folder) / "config.yaml").is_file():
        return Base(name, family_of(name))
    run = Run(Path(folder))
    if not is_service(run.backend):
        raise ConfigError(
            f"model.base: run {run.name!r} was trained on the {run.backend} backend, expected one of the openai "
            "backend, whose model the service keeps; name another"
        )
    manifest = run.find_manifest()
    launch = None if manifest is None else manifest.launch
    family = family_of(run.config().model.base) if launch is None else launch.family
    if not step:
        model = run.status().get("fine_tuned_model")
        if not model:
            raise ConfigError(
                f"model.base: run {run.name!r} is {run.state}, expected one that has succeeded; "
                "finish it or name a checkpoint as RUN@STEP"
            )
        return Base(str(model), family, (run.name, None))
    return Base(checkpoint_model(run, step), family, (run.name, int(step) if step.isdigit() else None))


def checkpoint_model(run: Run, name: str) -> str:
    """The model that the service made of a checkpoint, named by its step, its id or that model.

    Raises: ConfigError, when the run has no such checkpoint.
    """
    found = {checkpoint.step: _record(run, checkpoint.step) for checkpoint in list_checkpoints(run.checkpoints)}
    for step, record in found.items():
        if name.removeprefix("step-").lstrip("0") == str(step) or name in (record.get("id"), record.get("model")):
            return str(record["model"])
    known = ", ".join(map(str, found)) or "none so far"
    raise ConfigError(
        f"run {run.name!r}: has no checkpoint {name!r}, expected one of {known}; list them with: "
        f"trainer checkpoints {run.path}"
    )


def _record(run: Run, step: int) -> dict[str, Any]:
    return read_record(folder_of(run.checkpoints, step) / STATE)
