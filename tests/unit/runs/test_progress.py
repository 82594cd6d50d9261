"""Following a run: each step once with the time that is left, until it ends, and then as it did."""

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.commands import performed
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run, progress


@pytest.fixture
def run(settings: Callable[..., RunConfig]) -> Run:
    made = create_run(settings(run__name="one"))
    made.set_status("running", total_steps=30)
    return made


def measure(run: Run, step: int, seconds: float, **measured: float) -> None:
    """A step of 100 tokens that took `seconds`."""
    run.append_metrics({"step": step, "num_tokens": 100 * step, "tokens_per_second": 100 / seconds})
    run.append_result({"step": step, "train_loss": 1 / step} | measured)


def test_the_time_left_is_the_median_of_the_last_steps(run: Run) -> None:
    assert progress.seconds_left(run, 0) is None
    measure(run, 1, 60.0)  # the first one warms up
    assert progress.seconds_left(run, 1) == pytest.approx(29 * 60)
    for step in range(2, 5):
        measure(run, step, 2.0)
    assert progress.seconds_left(run, 4) == pytest.approx(26 * 2)
    for step in range(5, 26):
        measure(run, step, 3.0)
    assert progress.seconds_left(run, 25) == pytest.approx(5 * 3)
    assert progress.seconds_left(run, 30) is None


def test_steps_between_two_measurements_share_their_time(run: Run) -> None:
    for step in (10, 20):
        run.append_metrics({"step": step, "num_tokens": 100 * step, "tokens_per_second": 50.0})
    assert progress.seconds_left(run, 20) == pytest.approx(10 * 2)


@pytest.mark.parametrize("lines", ['{"step": 1}\n', "{torn\n", '{"step": 1, "num_tokens": "x"}\n', ""])
def test_no_time_is_told_where_none_was_measured(run: Run, lines: str) -> None:
    (run.path / "metrics.jsonl").write_text(lines)
    assert progress.seconds_left(run, 1) is None


def test_a_service_that_tells_no_speed_gets_no_time_left(run: Run) -> None:
    run.append_metrics({"step": 1, "train_loss": 2.0})
    run.append_metrics({"step": 2, "train_loss": 2.0})
    assert (
        progress.in_words({"step": 2, "train_loss": 2.0}, 30, progress.seconds_left(run, 2)) == "step 2/30  loss 2.000"
    )


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7_100, "118 min"), (9_000, "2 h 30 min")]
)
def test_a_duration_has_the_unit_that_fits(seconds: float, told: str) -> None:
    assert progress.duration(seconds) == told


def follow(run: Run, *words: str) -> tuple[int, list[str]]:
    done = performed(("logs", str(run.path), "--follow", *words), lambda: 0.0)
    return done.code, done.out.splitlines()


def meanwhile(monkeypatch: pytest.MonkeyPatch, *happenings: Callable[[], None]) -> None:
    """Let each of these happen while one more look is waited for."""
    coming = iter(happenings)
    monkeypatch.setattr(time, "sleep", lambda seconds: next(coming)())


def test_every_step_is_shown_as_it_comes_and_those_of_before_are_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        measure(run, step, 2.0)

    def go_on() -> None:
        measure(run, 3, 2.0)
        measure(run, 4, 2.0, train_mean_token_accuracy=0.5, valid_loss=0.75, full_valid_loss=0.7)

    def end() -> None:
        run.event("checkpoint at step 5")
        measure(run, 5, 2.0)
        run.set_status("succeeded")

    meanwhile(monkeypatch, go_on, end)
    code, lines = follow(run)
    assert code == 0
    assert [line for line in lines if line.startswith("step")] == [
        "step 2/30  loss 0.500  about 56 s left",
        "step 3/30  loss 0.333",
        "step 4/30  loss 0.250  accuracy 50.0%  valid 0.750  all valid 0.700  about 52 s left",
        "step 5/30  loss 0.200",
    ]
    assert any("checkpoint at step 5" in line for line in lines)


def test_a_resumed_run_shows_no_step_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        measure(run, step, 2.0)

    def go_back() -> None:
        results = run.path / "results.csv"
        results.write_text("".join(results.read_text().splitlines(keepends=True)[:2]))

    again = [partial(measure, run, step, 2.0) for step in (2, 3, 4)]
    meanwhile(monkeypatch, go_back, *again, partial(run.set_status, "succeeded"))
    _, lines = follow(run)
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["3/30", "4/30"]


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1), ("paused", 75)])
def test_following_ends_as_the_run_did_and_says_how_to_go_on(run: Run, state: str, code: int) -> None:
    run.set_status(state)  # type: ignore[arg-type]
    done = performed(("logs", str(run.path), "--follow"), lambda: 0.0)
    resumable = f"one is {state}; resume with: train --resume {run.path}\n"
    told = {
        "succeeded": "trained; its comparison with the base is missing",
        "cancelled": "one is cancelled; it holds no",
    }
    assert (done.code, done.err.startswith(told.get(state, resumable))) == (code, True), done.err
    assert performed(("logs", str(run.path)), lambda: 0.0).code == 0


def test_the_last_things_that_happened_and_the_steps_that_follow(run: Run) -> None:
    for number in range(5):
        run.event(f"thing {number}")
    measure(run, 7, 1.0)
    run.set_status("failed")
    code, lines = follow(run, "--tail", "2")
    assert (code, [line.split()[-1] for line in lines[:2]], lines[2:]) == (
        1,
        ["3", "4"],
        ["step 7/30  loss 0.143"],
    )
