"""The local backend: this machine's GPU or CPU."""

import importlib.util
import logging
import warnings
from collections.abc import Callable

from rich.console import Console

from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, MissingDependency
from trainer.runs import Run, create_run, refuse_existing
from trainer.training.dataset import TrainingData, check_data, render_data
from trainer.training.fit import Outcome, fit
from trainer.training.prepare import Prepared, Reading, find_reading, prepare

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")


def check(config: RunConfig, report: Callable[[str], None]) -> Prepared:
    """Verify everything that can be verified without training, and resolve the config.

    Raises: MissingDependency, ConfigError, DataError.
    """
    refuse_existing(config)
    return _prepare(config, report)


def read(config: RunConfig, report: Callable[[str], None]) -> Reading:
    """How the config's model reads text; nothing is looked at that only training needs.

    Raises: MissingDependency, ConfigError.
    """
    _check_packages(config)
    be_quiet()
    return find_reading(config, report)


def render(config: RunConfig, report: Callable[[str], None]) -> tuple[Reading, TrainingData]:
    """The rows of the config as its model reads them, whatever this machine could train.

    Raises: MissingDependency, ConfigError, DataError.
    """
    checked = check_data(config.data)
    reading = read(config, report)
    return reading, render_data(checked, reading.config.data, reading.renderer, reading.max_length)


def launch(prepared: Prepared, console: Console, created: Callable[[Run], None]) -> Outcome:
    """Create the run and train it; `created` is told the run before training starts.

    Raises: ConfigError, when the run exists; TrainingError, when it fails.
    """
    run = create_run(prepared.config)
    created(run)
    import torch

    if (num_gpus := torch.cuda.device_count()) > 1:
        run.event(f"{num_gpus} GPUs are visible; this run uses the first", level="warning")
    return fit(prepared, run, console)


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
    return fit(_prepare(run.config(), report), run, console)


def _prepare(config: RunConfig, report: Callable[[str], None]) -> Prepared:
    _check_packages(config)
    be_quiet()
    return prepare(config, report)


def _check_packages(config: RunConfig) -> None:
    wanted = [*PACKAGES, *config.tracking.report_to]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    problems = [
        f"tracking.report_to: {name} is not installed; run: pip install {name}"
        for name in missing
        if name not in PACKAGES
    ]
    if core := [name for name in missing if name in PACKAGES]:
        problems.append(
            f"the local backend needs {', '.join(core)}, which is not installed; "
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
