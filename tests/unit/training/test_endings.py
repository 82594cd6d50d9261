"""How `fit` ends a run: with the adapter of the chosen checkpoint, or with the failure in words."""

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from trainer.config import RunConfig
from trainer.errors import ConfigError, ExitCode, TrainingError
from trainer.model.adapter import ADAPTER, ADAPTER_CONFIG
from trainer.runs import Run, create_run
from trainer.runs.checkpoint import Checkpoint, folder_of
from trainer.training import fit as fitting
from trainer.training.fit import fit
from trainer.training.prepare import Prepared, prepare


def prepared_run(config: RunConfig) -> tuple[Prepared, Run]:
    prepared = prepare(config, lambda message: None)
    return prepared, create_run(prepared.config)


@pytest.mark.apart
@pytest.mark.parametrize(("adapter_from", "chosen_step"), [("best", 1), ("last", 4)])
def test_the_result_is_the_chosen_checkpoint_and_another_fit_changes_nothing(
    settings: Callable[..., RunConfig], adapter_from: str, chosen_step: int
) -> None:
    """No loss is below the first by more than 100 nats: the first step stays the best."""
    config = settings(
        training__n_epochs=1,
        training__eval_steps=1,
        training__early_stopping_threshold=100.0,
        training__adapter_from=adapter_from,
    )
    prepared, run = prepared_run(config)
    outcome = fit(prepared, run, Console(file=io.StringIO()))
    status = run.status()
    assert outcome.exit_code is ExitCode.DONE
    assert (status["state"], status["step"], status["adapter_step"]) == ("succeeded", 4, chosen_step)
    chosen = folder_of(run.checkpoints, chosen_step)
    for name in (ADAPTER, ADAPTER_CONFIG):
        assert (run.adapter / name).read_bytes() == (chosen / name).read_bytes()
    assert Checkpoint(run.adapter).problem() is None
    before = {path: path.read_bytes() for path in (*run.measured, *run.adapter.iterdir())}
    again = fit(prepared, run, Console(file=io.StringIO()))
    assert (again, {path: path.read_bytes() for path in before}) == (outcome, before)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "results.csv"), "results.csv: "),
        (RuntimeError("[gloo/transport] Connection closed by peer"), "another process of this run has ended"),
        (torch.OutOfMemoryError("CUDA"), "out of memory; lower memory.token_budget"),
        (ValueError("odd"), "unexpected ValueError: odd; --debug shows where"),
    ],
    ids=["full-disk", "lost-rank", "out-of-memory", "unexpected"],
)
def test_a_failure_is_told_in_words(settings: Callable[..., RunConfig], error: Exception, told: str) -> None:
    run = create_run(settings())
    found = fitting._in_words(error, run)
    assert isinstance(found, TrainingError)
    assert str(found).startswith(told)


@pytest.mark.parametrize("error", [TrainingError("step 1: bad"), ConfigError("lora.r: bad")])
def test_what_is_in_words_already_stays_as_it_is(tmp_path: Path, error: Exception) -> None:
    assert fitting._in_words(error, Run(tmp_path)) is error


@pytest.mark.apart
def test_a_run_that_fails_says_so_in_its_status_and_events(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    prepared, run = prepared_run(settings(training__n_epochs=1))
    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(TrainingError, match="free space, then resume with: train --resume") as failure:
        fit(prepared, run, Console(file=io.StringIO()))
    assert (run.state, run.status()["error"]) == ("failed", str(failure.value))
    assert list(run.events())[-1]["message"] == str(failure.value)


@pytest.mark.apart
def test_ctrl_c_before_the_first_step_pauses_the_run(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    prepared, run = prepared_run(settings())
    monkeypatch.setattr(fitting, "load_model", interrupt)
    outcome = fit(prepared, run, Console(file=io.StringIO()))
    assert (outcome.exit_code, run.state) == (ExitCode.RESUMABLE, "paused")
    assert str(run.path) in outcome.summary
