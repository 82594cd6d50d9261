"""Both services' words become ours."""

import pytest

from trainer.backends.openai.jobs import state_of
from trainer.backends.openai.mirror import level_of
from trainer.backends.openai.upload import file_state


@pytest.mark.parametrize(
    ("word", "state"),
    [("validating_files", "validating_files"), ("created", "queued"), ("pending", "queued"), ("queued", "queued"),
     ("running", "running"), ("pausing", "running"), ("resuming", "running"), ("paused", "paused"),
     ("succeeded", "succeeded"), ("Failed", "failed"), ("cancelled", "cancelled"), ("canceled", "cancelled"),
     ("of tomorrow", None), (None, None), (7, None)],
)  # fmt: skip
def test_a_job_s_state(word: object, state: str | None) -> None:
    assert state_of(word) == state


@pytest.mark.parametrize(
    ("word", "state"),
    [("processed", "ready"), ("uploaded", "waiting"), ("pending", "waiting"), ("running", "waiting"),
     ("error", "failed"), ("deleted", "failed"), (None, "ready"), ("of tomorrow", "waiting")],
)  # fmt: skip
def test_a_file_s_state(word: object, state: str) -> None:
    assert file_state(word) == state


def test_levels() -> None:
    words = ("info", "warn", "warning", "error", None, "of tomorrow")
    assert [level_of(word) for word in words] == ["info", "warning", "warning", "error", "info", "warning"]
