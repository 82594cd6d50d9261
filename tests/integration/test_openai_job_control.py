"""A job that is paused, cancelled, capped or taken down, and what is refused before there is one."""

import re
from pathlib import Path

import pytest

from tests.loopback import Fault, Loopback, status
from tests.openai_runs import Settings, environment, is_post, loopback, quiet, rows, run_to_end, settings, tuning
from tests.tuning import MODEL, Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.errors import BackendError, ConfigError
from trainer.runs import create_run
from trainer.runs.ledger import Ledger

__all__ = ["environment", "loopback", "settings", "tuning"]


def test_pause_and_resume(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    backend.refresh(run, quiet)
    backend.pause(run, quiet)
    outcome = backend.follow(run, quiet)
    assert (run.state, outcome.exit_code) == ("paused", 75)
    backend.resume(run, quiet)
    assert backend.follow(run, quiet).exit_code == 0


def test_a_ledger_that_is_damaged_while_a_job_is_followed_is_told(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    with (run.path / "ledger.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ConfigError, match=r"ledger\.jsonl:\d+: is "):
        backend.follow(run, quiet)


def test_a_launch_that_was_interrupted_is_not_resumed_above_the_cap(
    settings: Settings, tuning: Tuning, tmp_path: Path
) -> None:
    backend = OpenAIService()
    run = backend.create(backend.check(settings("backend.spend_cap=0.1", "training.n_epochs=3"), quiet), False)
    rows(tmp_path / "train.jsonl", 1000)
    with pytest.raises(ConfigError, match=r"backend\.spend_cap: is 0\.10, the quote is "):
        backend.resume(run, quiet)
    assert (tuning.files, tuning.jobs) == ({}, {})
    rows(tmp_path / "train.jsonl", 12)
    backend.resume(run, quiet)
    assert len(tuning.jobs) == 1


def test_a_pause_that_is_refused_is_told(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    loopback.faults = [Fault("too early", match=is_post("/pause"), answer=status(400))]
    with pytest.raises(BackendError, match="does not pause its job now: the service answered 400"):
        backend.pause(run, quiet)
    assert run.state == "running"


def test_cancel_ends_what_bills(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    assert len(Ledger(run.path).billing()) == 1
    backend.cancel(run, quiet)
    assert run.state == "cancelled"
    assert Ledger(run.path).billing() == []
    said: list[str] = []
    backend.cancel(run, said.append)
    assert said == ["one: is cancelled already"]
    with pytest.raises(ConfigError, match="is cancelled, expected one that has not ended"):
        backend.pause(run, quiet)


def test_epochs_chosen_above_the_cap_end_the_job(settings: Settings, tuning: Tuning) -> None:
    backend = OpenAIService()
    tuning.script = [*["running"] * 20, "succeeded"]
    config = settings("backend.spend_cap=5.0", "openai.training_price=500")
    plan = backend.check(config, quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    tuning.numbers = {"n_epochs": 40}
    said: list[str] = []
    backend.follow(run, said.append)
    assert run.state == "cancelled"
    [reason] = [line for line in said if "backend.spend_cap is 5.00: the job is cancelled" in line]
    assert reason.startswith("the service has chosen 40 epochs")


def test_teardown_removes_everything_in_order(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    tuning.azure = True
    run = run_to_end(settings(service="azure"))
    OpenAIService().teardown(run, True, quiet)
    deleted = [request.path.split("/")[3] for request in loopback.requests if request.method == "DELETE"]
    assert deleted == ["models", "fine_tuning", "files", "files"]
    assert (tuning.files, tuning.jobs) == ({}, {})
    assert Ledger(run.path).open() == []


def test_a_model_that_cannot_be_tuned_is_refused_before_anything_is_made(settings: Settings, tuning: Tuning) -> None:
    tuning.azure = True
    with pytest.raises(ConfigError, match="cannot be fine-tuned here, expected one of"):
        OpenAIService().check(settings("model.base=text-embedding-3", service="azure"), quiet)
    with pytest.raises(ConfigError, match=f"did you mean {re.escape(MODEL)}"):
        OpenAIService().check(settings("model.base=gpt-4.1-mini-2025-04-41"), quiet)
    assert tuning.files == {}


def test_a_service_without_fine_tuning_is_found_out_before(settings: Settings, loopback: Loopback) -> None:
    loopback.faults = [Fault("403", match=lambda request: request.path.endswith("/jobs"), answer=status(403))]
    with pytest.raises(BackendError, match="reading the list of fine-tuning jobs: the service answered 403"):
        OpenAIService().check(settings(), quiet)
