"""Training in this process, and what follows it: the comparison with the base, its report, and that in the trackers."""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.backends.contract import Plan
from trainer.backends.http import Say
from trainer.backends.local.plan import make_plan
from trainer.backends.local.resumable import lacks_result, refuse_running, refuse_to_resume
from trainer.config.load import load_config
from trainer.config.schema import RunConfig
from trainer.data.read.sources import CheckedData
from trainer.errors import ConfigError, ExitCode, TrainerError
from trainer.inference.evaluation import local_model
from trainer.inference.report.mlflow_artifact import remember_mlflow_run
from trainer.inference.report.run_report import OWN_PAGE, write_report
from trainer.inference.report.standings import settle_gate
from trainer.inference.report.tracked_report import attach_report
from trainer.inference.suite.items import NO_SUITE, asked_suite, read_suite
from trainer.runs import Run, refuse_existing
from trainer.runs.lifecycle import note_gate
from trainer.runs.lock import locked
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.run import Outcome
from trainer.training.fingerprint import fingerprint, refuse_changes
from trainer.training.fit import fit
from trainer.training.interrupt import Interruption
from trainer.training.plan import MEMORY
from trainer.training.prepare import Prepared, be_quiet, check_packages, prepare
from trainer.training.ranks import Ranks, join

EVALUATION_PACKAGES = ("matplotlib", "rapidfuzz", "sacrebleu")


def check(config: RunConfig, say: Say, may_exist: bool = False, checked: CheckedData | None = None) -> Plan[Prepared]:
    """Verify everything that can be verified without training, and resolve the config.

    `checked` is what its data files hold, where they have been read already.

    Raises: MissingDependency, ConfigError, DataError.
    """
    if may_exist:
        config = _with_memory_plan(config)
    else:
        refuse_existing(config)
    return make_plan(_prepare(config, say, checked))


def check_waiting(config: RunConfig, say: Say, checked: CheckedData, may_exist: bool = False) -> Plan[Prepared]:
    """`check` for a run that starts when others have ended: its memory is planned anew then, by the config as it is.

    Raises: MissingDependency, ConfigError, DataError.
    """
    if not may_exist:
        refuse_existing(config)
    plan = make_plan(_prepare(config, say, checked, waits=True))
    return replace(plan, config=plan.config.model_copy(update={"memory": config.memory}))


def _with_memory_plan(config: RunConfig) -> RunConfig:
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


def resume(
    run: Run,
    console: Console,
    say: Say,
    overrides: Sequence[str] = (),
    allowed: Collection[str] = (),
) -> Outcome:
    """Resume a run that was interrupted, failed, or waits to be begun.

    `overrides` change its settings; those that change its result must also be named in `allowed`.

    Raises: ConfigError, when it is in use, finished, or something else has changed; DataError, TrainingError.
    """
    refuse_to_resume(run)
    if lacks_result(run):
        if overrides:
            raise ConfigError(
                f"run {run.name!r}: lacks only its comparison, expected no overrides; resume it without them"
            )
        return _completed(run, console, join(), _trained(run))
    if overrides and not (run.path / MANIFEST).is_file():
        raise ConfigError(f"run {run.name!r}: has not begun, expected no overrides; start a new run with them")
    if run.state != "queued":
        run.answer()  # a request to a process that is gone
    try:
        prepared = _prepare(load_config(run.path / "config.yaml", _complete(overrides)), say)
    except TrainerError as error:
        if run.state == "queued":  # nobody waits for an answer
            run.set_status("failed", error=str(error))
        raise
    return _fitted(prepared, run, console, allowed)


def train(prepared: Prepared, run: Run, console: Console, allowed: Collection[str] = ()) -> Outcome:
    """Train a run that has been created; resume what was begun, or say that it has finished already.

    Raises: ConfigError, when it is in use, or its settings are others now; TrainingError.
    """
    import torch

    if prepared.ranks.first(lambda: _is_complete(prepared, run, allowed)):
        if prepared.ranks.first(lambda: lacks_result(run)):
            return _completed(run, console, prepared.ranks, _trained(run))
        return Outcome(ExitCode.DONE, f"run {run.name!r} has finished already")
    if (num_gpus := torch.cuda.device_count()) > 1:
        run.event(f"{num_gpus} GPUs are visible; TRAINER_PROCESSES=1 uses the first", level="warning")
    return _fitted(prepared, run, console, allowed)


def _is_complete(prepared: Prepared, run: Run, allowed: Collection[str]) -> bool:
    """True if the run has reached its end with these settings. Raises: ConfigError."""
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
    suite: str | None = None,
    suite_items: int | None = None,
) -> dict[str, Any]:
    """Compare a run's model with its base on held-out rows, and write its report; `page` in the result is its path.

    `suite` names general items that both answer too: `builtin`, a file, or `none`; by default as the config says.
    `suite_items` is the most of them.
    Where `ranks` shard the base, each of them calls this, and the first one writes.

    Raises: ConfigError, DataError, MissingDependency, TrainingError.
    """
    check_packages(EVALUATION_PACKAGES, run.config())
    be_quiet()
    settings = run.config().evaluation
    name = asked_suite(suite, settings)
    items = None if name == NO_SUITE else read_suite(name)
    most = suite_items or (settings.suite_items if suite is None else None)
    if items is not None and most is not None:
        items = items.of_each_kind(most)
    result = local_model.evaluate(run, console, file, max_rows, max_new_tokens, ranks, items)
    if ranks is not None and not ranks.is_first:
        return result
    page = write_report(run, result, replace_report)
    run.event(result["verdict"]["sentence"], kind="evaluation", report=str(page))
    if page.stem == OWN_PAGE:
        settle_gate(run, result)
    _log_report(run, console)
    return result | {"page": str(page)}


def _trained(run: Run) -> Outcome:
    """Outcome of training by an earlier process."""
    return Outcome(ExitCode.DONE, str(run.status().get("summary", "finished")))


def _log_report(run: Run, console: Console) -> None:
    attach_report(run, lambda message: _warn(message, run, console))


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
    """Complete a trained run: compare it with the base, report it, give that to the trackers."""
    if not ranks.is_first:
        _help_to_compare(run, console, ranks)
        return outcome
    config, again = run.config(), f"trainer evaluate {run.path}"
    if sentence := run.verdict_sentence():  # made before this process was started
        _log_report(run, console)
        return replace(outcome, summary=sentence)
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
    if config.evaluation.gate is not None and outcome.exit_code is ExitCode.DONE:
        note_gate(run, False, f"gate {config.evaluation.gate} does not hold: the comparison could not be made")
    return replace(outcome, summary=message)


def _help_to_compare(run: Run, console: Console, ranks: Ranks) -> None:
    """The first process compares; it needs the others where each holds a part of the base."""
    config = run.config()
    if config.memory.shard_base and config.evaluation.enabled and config.data.validation_paths:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                evaluate(run, console, ranks=ranks)
            except Exception as error:  # the first one only sees that this one is gone
                words = f"process {ranks.rank + 1}: {error}"
                Console(stderr=True).print(words, highlight=False, markup=False, soft_wrap=True)


def _warn(message: str, run: Run, console: Console) -> None:
    run.event(message, level="warning")
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def _prepare(config: RunConfig, say: Say, checked: CheckedData | None = None, waits: bool = False) -> Prepared:
    check_packages(EVALUATION_PACKAGES if config.evaluation.enabled else (), config)
    be_quiet()
    return prepare(config, say, checked, waits)
