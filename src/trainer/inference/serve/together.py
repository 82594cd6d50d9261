"""Conditions for sharing a base in memory: the same weights, held in the same form, under names that differ."""

from collections.abc import Sequence

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.manifest import PinnedBase


def refuse_apart(runs: Sequence[Run]) -> None:
    """Raises: ConfigError, for runs that cannot be served together, or whose models would have one name."""
    names = [run.name for run in runs]
    problems = [
        f"RUN: {' and '.join(str(run.path) for run in runs if run.name == name)} have one name, expected names that "
        "differ; name each run once, and serve two of one name apart"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if problems:
        raise ConfigError(*problems)
    first = runs[0]
    refuse_others(first.manifest().base, first.config().model, first.name, runs[1:])


def refuse_others(base: PinnedBase, settings: ModelConfig, whose: str, runs: Sequence[Run]) -> None:
    """Raises: ConfigError, for each run that was not trained on this base in this form."""
    problems = []
    for run in runs:
        own, model = run.manifest().base, run.config().model
        if not _is_same(own, base):
            problems.append(
                f"run {run.name!r}: its base is {own}, expected {base}, which is that of {whose!r}; serve it apart"
            )
            continue
        for name in ("quantization", "dtype"):
            if (found := getattr(model, name)) != (expected := getattr(settings, name)):
                problems.append(
                    f"run {run.name!r}: model.{name} is {found!r}, expected {expected!r}, in which the base of "
                    f"{whose!r} is held; serve it apart"
                )
    if problems:
        raise ConfigError(*problems)


def _is_same(one: PinnedBase, other: PinnedBase) -> bool:
    """True of equal weights, whatever path they have; of a hub's model where no commit of it was noted, by its name."""
    if one.weights_sha256 or other.weights_sha256:
        return one.weights_sha256 == other.weights_sha256
    return one.name == other.name and (one.revision == other.revision or not (one.is_pinned and other.is_pinned))
