"""The local backend: this machine's GPU or CPU."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.backends.resumable import lacks, refuse_running, refuse_to_resume
from trainer.config.load import load_config
from trainer.config.schema import RunConfig
from trainer.data.read.checks import DataReport
from trainer.data.read.sources import CheckedData
from trainer.errors import ConfigError, ExitCode, MissingDependency, TrainerError
from trainer.extras import absent, missing
from trainer.inference.evaluation import local_model
from trainer.inference.report.mlflow_artifact import log_report, remember_mlflow_run
from trainer.inference.report.write import write_report
from trainer.runs import Run, create_run, find_or_adopt, refuse_existing
from trainer.runs.lock import locked
from trainer.runs.outcome import Outcome
from trainer.training import row_findings
from trainer.training.dataset import TrainingData, render_data
from trainer.training.fingerprint import fingerprint, refuse_changes
from trainer.training.fit import fit
from trainer.training.interrupt import Interruption
from trainer.training.plan import MEMORY
from trainer.training.prepare import Prepared, Reading, find_reading, prepare
from trainer.training.ranks import Ranks, join
from trainer.training.render import Rendering

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
EVALUATION_PACKAGES = ("matplotlib", "rapidfuzz", "sacrebleu")


def check(
    config: RunConfig, report: Callable[[str], None], may_exist: bool = False, checked: CheckedData | None = None
) -> Prepared:
    """Verify everything that can be verified without training, and resolve the config.

    `checked` is what its data files hold, where they have been read already.

    Raises: MissingDependency, ConfigError, DataError.
    """
    if may_exist:
        config = _with_plan(config)
    else:
        refuse_existing(config)
    return _prepare(config, report, checked)


def _with_plan(config: RunConfig) -> RunConfig:
    """The config with the memory plan of the run that exists: this machine may have other memory left."""
    existing = Path(config.run.root) / str(config.run.name) / "config.yaml"
    if not existing.is_file():
        return config
    try:
        stored = load_config(existing).memory
    except ConfigError:  # cut short by a mount; it is written anew
        return config
    left = {name: getattr(stored, name) for name in MEMORY if getattr(config.memory, name) == "auto"}
    return config.model_copy(update={"memory": config.memory.model_copy(update=left)})


def read(config: RunConfig) -> Reading:
    """How the config's model reads text; nothing is looked at that only training needs.

    Raises: MissingDependency, ConfigError.
    """
    _check_packages((), config)
    be_quiet()
    return find_reading(config)


def with_row_findings(config: RunConfig, report: DataReport, limit: int | None) -> DataReport:
    """`report`, which holds its rows, with what the config's model has against them; at most `limit` findings.

    Raises: MissingDependency, ConfigError.
    """
    reading = read(config)
    rendering = Rendering(reading.renderer, reading.max_length, reading.config.data.on_overlength)
    files = [*(source.path for source in config.data.train_sources), *config.data.validation_paths]
    return row_findings.with_row_findings(report, rendering, files, limit)


def render(config: RunConfig, checked: CheckedData) -> tuple[Reading, TrainingData]:
    """The rows of the config as its model reads them, whatever this machine could train.

    Raises: MissingDependency, ConfigError, DataError.
    """
    reading = read(config)
    return reading, render_data(checked, reading.config.data, reading.renderer, reading.max_length)


def create(prepared: Prepared, auto_resume: bool) -> tuple[Run, bool]:
    """The run's folder, made new, or with `auto_resume` the one that is there; and whether it was.

    Raises: ConfigError, when it exists and should not, or cannot be written.
    """

    def make() -> tuple[Run, bool]:
        existing = find_or_adopt(prepared.config) if auto_resume else None
        return existing or create_run(prepared.config), existing is not None

    return prepared.ranks.first(make)


def launch(prepared: Prepared, run: Run, console: Console) -> Outcome:
    """Train a run that has been created.

    Raises: TrainingError, when it fails.
    """
    import torch

    if (num_gpus := torch.cuda.device_count()) > 1:
        run.event(f"{num_gpus} GPUs are visible; TRAINER_PROCESSES=1 uses the first", level="warning")
    return _fitted(prepared, run, console)


def resume(
    run: Run,
    console: Console,
    report: Callable[[str], None],
    overrides: Sequence[str] = (),
    allowed: Collection[str] = (),
) -> Outcome:
    """Go on with a run that was interrupted, failed, or waits to be begun.

    `overrides` change its settings; those that change its result must also be named in `allowed`.

    Raises: ConfigError, when it is in use, finished, or something else has changed; DataError, TrainingError.
    """
    refuse_to_resume(run)
    if lacks(run):
        if overrides:
            raise ConfigError(
                f"run {run.name!r}: lacks only its comparison, expected no overrides; resume it without them"
            )
        return _completed(run, console, join(), _trained(run))
    if overrides and run.find_manifest() is None:
        raise ConfigError(f"run {run.name!r}: has not begun, expected no overrides; start a new run with them")
    if run.state != "queued":
        run.answer()  # a request to a process that is gone
    try:
        prepared = _prepare(load_config(run.path / "config.yaml", _complete(overrides)), report)
    except TrainerError as error:
        if run.state == "queued":  # nobody waits for an answer
            run.set_status("failed", error=str(error))
        raise
    return _fitted(prepared, run, console, allowed)


def go_on(prepared: Prepared, run: Run, console: Console, allowed: Collection[str] = ()) -> Outcome:
    """What a job does that is started again: go on with the run, or say that it has finished already.

    Raises: ConfigError, when it is in use, or its settings are others now; TrainingError.
    """
    if prepared.ranks.first(lambda: _is_complete(prepared, run, allowed)):
        if prepared.ranks.first(lambda: lacks(run)):
            return _completed(run, console, prepared.ranks, _trained(run))
        return Outcome(ExitCode.DONE, f"run {run.name!r} has finished already")
    return _fitted(prepared, run, console, allowed)


def _is_complete(prepared: Prepared, run: Run, allowed: Collection[str]) -> bool:
    """Whether the run has reached its end with these settings. Raises: ConfigError."""
    refuse_running(run)
    if run.state != "succeeded":
        run.answer()  # a request to a process that is gone
        return False
    now = fingerprint(prepared)
    return not refuse_changes(run.manifest().fingerprint or now, now, allowed, run.path)


def _complete(overrides: Sequence[str]) -> list[str]:
    """A resolved config holds what follows from others: who sets one of them sets the other free."""
    rate, multiplier = "training.learning_rate=", "training.learning_rate_multiplier="
    freed = [f"{multiplier}auto" for text in overrides if text.startswith(rate)]
    freed += [rate for text in overrides if text.startswith(multiplier)]
    limited = any(text.startswith("memory.limit_gb=") for text in overrides)
    freed += [f"memory.{name}=auto" for name in (*MEMORY, "shard_base") if limited]
    return [*freed, *overrides]


def evaluate(
    run: Run,
    console: Console,
    file: Path | None = None,
    max_rows: int | None = None,
    max_new_tokens: int | None = None,
    ranks: Ranks | None = None,
    replace_report: bool = False,
) -> dict[str, Any]:
    """Compare a run's model with its base on held-out rows, and write its report; `page` in the result is its path.

    Where `ranks` hold the base in parts, each of them calls this, and the first one writes.

    Raises: ConfigError, DataError, MissingDependency, TrainingError.
    """
    _check_packages(EVALUATION_PACKAGES, run.config())
    be_quiet()
    result = local_model.evaluate(run, console, file, max_rows, max_new_tokens, ranks)
    if ranks is not None and not ranks.is_first:
        return result
    page = write_report(run, result, replace_report)
    run.event(result["verdict"]["sentence"], kind="evaluation", report=str(page))
    _log_report(run, console)
    return result | {"page": str(page)}


def _trained(run: Run) -> Outcome:
    """How training ended that was done by an earlier process."""
    return Outcome(ExitCode.DONE, str(run.status().get("summary", "finished")))


def _log_report(run: Run, console: Console) -> None:
    if "mlflow" in run.config().tracking.report_to:
        try:
            log_report(run)
        except Exception as error:  # the tracker's many ways to fail do not undo the report
            _warn(f"the report was not stored in MLflow: {error}", run, console)


def _fitted(prepared: Prepared, run: Run, console: Console, allowed: Collection[str] = ()) -> Outcome:
    """A run that is done ends with what it achieved; whatever goes wrong in finding out does not undo the run."""
    outcome = fit(prepared, run, console, allowed)
    if outcome.exit_code is not ExitCode.DONE:
        return outcome
    if prepared.ranks.is_first and "mlflow" in prepared.config.tracking.report_to:
        try:
            remember_mlflow_run(run)
        except Exception as error:
            _warn(f"the MLflow run is not known, so that no report can be stored there: {error}", run, console)
    return _completed(run, console, prepared.ranks, outcome)


def _completed(run: Run, console: Console, ranks: Ranks, outcome: Outcome) -> Outcome:
    """What follows training: the comparison with the base, its report, and MLflow's copy of that."""
    if not ranks.is_first:
        _help_to_compare(run, console, ranks)
        return outcome
    config, again = run.config(), f"trainer evaluate {run.path}"
    if run.comparison():  # made before this process was started
        _log_report(run, console)
        return replace(outcome, summary=str(run.comparison()["verdict"]["sentence"]))
    if not config.evaluation.enabled:
        return outcome
    console.print(outcome.summary, highlight=False, markup=False, soft_wrap=True)
    if not config.data.validation_paths:
        message = f"no rows were held out, so nothing shows whether it got better; hold some out: {again} --rows FILE"
    else:
        with Interruption() as interruption:
            try:
                with locked(run.path, lambda message: console.print(message, markup=False)):
                    return replace(outcome, summary=evaluate(run, console, ranks=ranks)["verdict"]["sentence"])
            except KeyboardInterrupt:
                message = (
                    "the run is trained; its comparison with the base was interrupted; make it with: "
                    f"trainer resume {run.path}"
                )
                outcome = replace(outcome, exit_code=interruption.exit_code)
            except Exception as error:
                message = f"the run is complete; its comparison with the base failed: {error}; repeat it with: {again}"
    run.event(message, level="warning")
    return replace(outcome, summary=message)


def _help_to_compare(run: Run, console: Console, ranks: Ranks) -> None:
    """The first process compares; it needs the others where each holds a part of the base."""
    config = run.config()
    if config.memory.shard_base and config.evaluation.enabled and config.data.validation_paths:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                evaluate(run, console, ranks=ranks)
            except Exception as error:  # the first one only sees that this one is gone
                told = f"process {ranks.rank + 1}: {error}"
                Console(stderr=True).print(told, highlight=False, markup=False, soft_wrap=True)


def _warn(message: str, run: Run, console: Console) -> None:
    run.event(message, level="warning")
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def _prepare(config: RunConfig, report: Callable[[str], None], checked: CheckedData | None = None) -> Prepared:
    _check_packages(EVALUATION_PACKAGES if config.evaluation.enabled else (), config)
    be_quiet()
    return prepare(config, report, checked)


def _check_packages(more: Sequence[str], config: RunConfig) -> None:
    wanted, trackers = (*PACKAGES, *more), config.tracking.report_to
    problems = [f"tracking.report_to: {name} is not installed; run: pip install {name}" for name in absent(trackers)]
    if gone := absent(wanted):
        problems.append(str(missing("the local backend", *gone, extra="local")))
    if problems:
        raise MissingDependency(*problems)


def be_quiet() -> None:
    """The libraries' own bars and advice would drown what we say; their errors still come through."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
