"""Trackers that also get the metrics: transformers' own callbacks, each guarded, so that none of them fails a run."""

import os
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import SFTConfig

from trainer.config.schema import RunConfig, WandbRun
from trainer.runs import Run

Tell = Callable[[str], None]


class TrackedArguments(SFTConfig):  # type: ignore[misc]  # trl is not typed
    """TRL's settings, which show the trackers ours as well."""

    ours: Mapping[str, Any] = {}  # a mapping of its own is set for each run

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **self.ours}


def shown_settings(config: RunConfig) -> dict[str, Any]:
    """The run's settings by their dotted names, as trackers take them: numbers, words and nothing else."""
    return dict(_flat(config.model_dump(mode="json"), "config"))


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}.{name}")
        elif value is not None:
            found.append((f"{prefix}.{name}", value if isinstance(value, bool | int | float) else str(value)))
    return found


class Guarded(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """A tracker that is told of everything until it fails; that is said once, and the run continues without it."""

    def __init__(self, name: str, make: Callable[[], TrainerCallback], tell: Tell) -> None:
        self.name, self.tell = name, tell
        self.tracker: TrainerCallback | None = None
        try:
            self.tracker = make()
        except Exception as error:  # of any kind: a tracker has many ways to fail
            self._leave(error)

    def _leave(self, error: Exception) -> None:
        self.tracker = None
        words = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
        self.tell(f"{self.name} gets no more metrics, and the run continues: {reason}")

    def pass_on(self, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the tracker of an event. It gets a copy of the control, by which it could steer the training."""
        if self.tracker is not None:
            try:
                getattr(self.tracker, event)(args, state, copy(control), **kwargs)
            except Exception as error:  # as above
                self._leave(error)


def _passing(event: str) -> Callable[..., None]:
    def passing(self: Guarded, *args: Any, **kwargs: Any) -> None:
        self.pass_on(event, *args, **kwargs)

    return passing


for _event in [name for name in dir(TrainerCallback) if name.startswith("on_")]:
    setattr(Guarded, _event, _passing(_event))


def wandb_variables(names: WandbRun) -> dict[str, str]:
    """The names as the client of Weights & Biases reads them; the run's own name is an argument of training."""
    given = {"PROJECT": names.project, "ENTITY": names.entity, "TAGS": ",".join(names.tags)}
    return {f"WANDB_{name}": text for name, text in given.items() if text}


def tracker_callbacks(config: RunConfig, run: Run, tell: Tell) -> list[TrainerCallback]:
    """The trackers of a run. TensorBoard writes into its folder, for which transformers has no setting."""

    def tensorboard() -> TrainerCallback:
        from torch.utils.tensorboard import SummaryWriter

        return TensorBoardCallback(SummaryWriter(run.path / "tensorboard"))

    os.environ.update(wandb_variables(config.tracking.wandb))
    makers = INTEGRATION_TO_CALLBACK | {"tensorboard": tensorboard}
    return [Guarded(name, makers[name], tell) for name in config.tracking.report_to]
