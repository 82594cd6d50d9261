"""The local backend: this machine's GPU or CPU."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, ExitCode, MissingDependency
from trainer.inference.evaluation import evaluate as evaluation
from trainer.inference.report.mlflow_artifact import log_report, remember_mlflow_run
from trainer.inference.report.write import write_report
from trainer.runs import Run, create_run, refuse_existing
from trainer.training.fit import Outcome, fit
from trainer.training.prepare import Prepared, prepare

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
EVALUATION_PACKAGES = ("matplotlib", "rapidfuzz", "sacrebleu")


def check(config: RunConfig, report: Callable[[str], None]) -> Prepared:
    """Verify everything that can be verified without training, and resolve the config.

    Raises: MissingDependency, ConfigError, DataError.
    """
    refuse_existing(config)
    return _prepare(config, report)


def launch(prepared: Prepared, console: Console, created: Callable[[Run], None]) -> Outcome:
    """Create the run and train it; `created` is told the run before training starts.

    Raises: ConfigError, when the run exists; TrainingError, when it fails.
    """
    run = create_run(prepared.config)
    created(run)
    import torch

    if (num_gpus := torch.cuda.device_count()) > 1:
        run.event(f"{num_gpus} GPUs are visible; this run uses the first", level="warning")
    return _evaluated(fit(prepared, run, console), run, console)


def resume(run: Run, console: Console, report: Callable[[str], None]) -> Outcome:
    """Go on with a run that was interrupted or failed.

    Raises: ConfigError, when it is running, finished, or its data or base has changed.
    """
    match run.state:
        case "running" | "validating_files":
            status = run.status()
            raise ConfigError(
                f"run {run.name!r}: is running as process {status.get('pid')} on {status.get('host')!r}, expected a "
                "stopped run; stop that process first"
            )
        case "succeeded" | "cancelled" as state:
            raise ConfigError(
                f"run {run.name!r}: is {state}, expected an unfinished run; "
                f"to train it further start a new run with model.base={run.path}"
            )
    return _evaluated(fit(_prepare(run.config(), report), run, console), run, console)


def evaluate(
    run: Run, console: Console, file: Path | None = None, max_rows: int | None = None, max_new_tokens: int | None = None
) -> dict[str, Any]:
    """Compare a run's model with its base on held-out rows, and write its report.

    Raises: ConfigError, DataError, MissingDependency, TrainingError.
    """
    _check_packages(EVALUATION_PACKAGES, run.config())
    be_quiet()
    result = evaluation.evaluate(run, console, file, max_rows, max_new_tokens)
    page = write_report(run, result)
    run.event(result["verdict"]["sentence"], kind="evaluation", report=str(page))
    if "mlflow" in run.config().tracking.report_to:
        try:
            log_report(run)
        except Exception as error:  # the tracker's many ways to fail do not undo the report
            _warn(f"the report was not stored in MLflow: {error}", run, console)
    return result


def _evaluated(outcome: Outcome, run: Run, console: Console) -> Outcome:
    """A run that is done ends with what it achieved; whatever goes wrong in finding out does not undo the run."""
    config, again = run.config(), f"trainer evaluate {run.path}"
    if outcome.exit_code is not ExitCode.DONE:
        return outcome
    if "mlflow" in config.tracking.report_to:
        try:
            remember_mlflow_run(run)
        except Exception as error:
            _warn(f"the MLflow run is not known, so that no report can be stored there: {error}", run, console)
    if not config.evaluation.enabled:
        return outcome
    console.print(outcome.summary, highlight=False, markup=False, soft_wrap=True)
    if not config.data.validation_paths:
        message = f"no rows were held out, so nothing shows whether it got better; hold some out: {again} --rows FILE"
    else:
        try:
            return replace(outcome, summary=evaluate(run, console)["verdict"]["sentence"])
        except KeyboardInterrupt:
            message = f"the run is complete; its comparison with the base was interrupted, repeat it with: {again}"
        except Exception as error:
            message = f"the run is complete; its comparison with the base failed: {error}; repeat it with: {again}"
    run.event(message, level="warning")
    return replace(outcome, summary=message)


def _warn(message: str, run: Run, console: Console) -> None:
    run.event(message, level="warning")
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def _prepare(config: RunConfig, report: Callable[[str], None]) -> Prepared:
    _check_packages(EVALUATION_PACKAGES if config.evaluation.enabled else (), config)
    be_quiet()
    return prepare(config, report)


def _check_packages(more: Sequence[str], config: RunConfig) -> None:
    wanted, trackers = (*PACKAGES, *more), config.tracking.report_to
    problems = [
        f"tracking.report_to: {name} is not installed; run: pip install {name}"
        for name in trackers
        if importlib.util.find_spec(name) is None
    ]
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        problems.append(
            f"the local backend needs {', '.join(missing)}, which is not installed; "
            "run: pip install 'azure-llm-trainer[local]'"
        )
    if problems:
        raise MissingDependency(*problems)


def be_quiet() -> None:
    """The libraries' own bars and advice would drown what we say; their errors still come through."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
