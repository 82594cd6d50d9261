"""All attempts of a run share the time that was quoted and agreed to."""

from pathlib import Path

import pytest

from trainer.backends.azureml.job import JobPlan, with_remaining_time
from trainer.errors import ConfigError
from trainer.runs import Run, ledger
from trainer.runs.ledger import Ledger, Thing

PLAN = JobPlan("first", None, 1, 3600)


def job(attempt: int) -> Thing:
    return Thing("azureml", "job", f"first-{attempt}", "workspace", "by the hour")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    times: list[str] = []
    monkeypatch.setattr(ledger, "now", lambda: times.pop(0))
    return times


def test_what_the_service_says_counts(tmp_path: Path, clock: list[str]) -> None:
    clock += ["2026-01-01T10:00:00+00:00"] * 4
    for attempt, seconds in ((1, 600.0), (2, 300.0)):
        Ledger(tmp_path).write(job(attempt), "intended")
        Ledger(tmp_path).write(job(attempt), "exists", id="x", seconds=seconds)
    assert with_remaining_time(Run(tmp_path), PLAN).timeout_seconds == 2700


def test_where_it_does_not_say_the_whole_time_since_the_creation_counts(tmp_path: Path, clock: list[str]) -> None:
    clock += ["2026-01-01T10:00:00+00:00", "2026-01-01T10:00:01+00:00", "2026-01-01T10:50:00+00:00"]
    Ledger(tmp_path).write(job(1), "intended")
    Ledger(tmp_path).write(job(1), "exists", id="x")
    Ledger(tmp_path).write(job(1), "exists", status="Failed", seconds=None)
    assert with_remaining_time(Run(tmp_path), PLAN).timeout_seconds == 600


def test_a_job_that_was_refused_has_used_nothing(tmp_path: Path, clock: list[str]) -> None:
    clock += ["2026-01-01T10:00:00+00:00", "2026-01-01T10:50:00+00:00"]
    Ledger(tmp_path).write(job(1), "intended")
    Ledger(tmp_path).write(job(1), "refused")
    assert with_remaining_time(Run(tmp_path), PLAN).timeout_seconds == 3600


def test_no_job_is_made_for_time_that_was_not_agreed_to(tmp_path: Path, clock: list[str]) -> None:
    clock += ["2026-01-01T10:00:00+00:00"] * 2
    Ledger(tmp_path).write(job(1), "intended")
    Ledger(tmp_path).write(job(1), "exists", id="x", seconds=3590.0)
    with pytest.raises(ConfigError, match=r"its jobs have used 1\.0 of 1\.0 hours, expected time to be left"):
        with_remaining_time(Run(tmp_path), PLAN)
