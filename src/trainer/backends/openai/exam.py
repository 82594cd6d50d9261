"""The held-out rows of a run that exists: those that were quoted, drawn again."""

from pathlib import Path

from trainer.backends.openai.limits import Exam, plan_exam
from trainer.backends.openai.names import launch_of
from trainer.config.schema import RunConfig
from trainer.data.read.checks import check_files
from trainer.errors import ConfigError, DataError
from trainer.runs import Run


def find_exam(run: Run, config: RunConfig) -> Exam:
    """The rows that were quoted. Raises: ConfigError, DataError, when there are none, or others now."""
    recorded = {file.path: file for file in run.manifest().files("validation")}.values()  # listed twice, read once
    told = "has changed since the run was made, expected the same rows; bring them back"
    if changed := [f"{file.path}: {told}" for file in recorded if not file.is_unchanged]:
        raise DataError(*changed)
    report = check_files([], [Path(file.path) for file in recorded], backend="openai", allow_leak=True)
    training = config.training.model_copy(update={"seed": seed_at_start(run)})
    exam = plan_exam(config.model_copy(update={"training": training}), report.validation, launch_of(run).family)
    if exam is None:
        raise ConfigError(
            f"run {run.name!r}: has nothing to compare with, expected data.validation and evaluation.enabled; "
            "start a new run with held-out rows"
        )
    return exam


def seed_at_start(run: Run) -> int:
    """The seed by which the rows were drawn; the service's own comes later."""
    return run.manifest().seed
