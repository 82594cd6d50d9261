"""The curve of validation losses: the best step, when to stop early, and what is said of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import make_settings
from trainer.runs import create_run
from trainer.training.curve import Curve, recorded_curve


def measured(losses: Sequence[float], patience: int | None = None, threshold: float = 0.0) -> Curve:
    """A curve with a measurement every 10 steps."""
    curve = Curve(patience, threshold)
    for number, loss in enumerate(losses, 1):
        curve.add(10 * number, float(number), loss)
    return curve


@pytest.mark.parametrize(
    ("losses", "threshold", "best_step"),
    [
        ((), 0.0, None),
        ((3.0,), 0.0, 10),
        ((3.0, 1.0, 2.0), 0.0, 20),
        ((3.0, 3.0), 0.0, 10),  # of equal ones the first
        ((3.0, 2.75, 2.5), 0.5, 10),
        ((3.0, 2.75, 2.5, 2.25), 0.5, 40),  # small falls add up
        ((float("inf"), float("inf")), 0.0, 10),  # the first is always the best so far
    ],
)
def test_the_best_is_below_all_before_it_by_more_than_the_threshold(
    losses: tuple[float, ...], threshold: float, best_step: int | None
) -> None:
    curve = measured(losses, threshold=threshold)
    assert curve.best_step == best_step
    assert curve.best_loss == (float("inf") if best_step is None else losses[best_step // 10 - 1])


def test_a_measurement_is_the_best_exactly_where_the_best_moves() -> None:
    curve, said, moved = Curve(None, 0.0), [], []
    for step, loss in enumerate((2.0, 2.0, 1.0, 3.0, 0.5)):
        before = curve.best_step
        said.append(curve.add(step, 0.0, loss))
        moved.append(curve.best_step != before)
    assert said == moved == [True, False, True, False, True]


@pytest.mark.parametrize(("patience", "due"), [(1, [2, 3, 5, 6, 7]), (2, [3, 6, 7]), (3, [7]), (4, []), (None, [])])
def test_stopping_is_due_after_as_many_measurements_without_a_better_one(patience: int | None, due: list[int]) -> None:
    losses = (2.0, 2.1, 2.0, 1.0, 1.1, 1.0, 1.3)
    assert [number for number in range(8) if measured(losses[:number], patience).should_stop] == due


@pytest.mark.parametrize("losses", [(), (2.0,), (2.0, 1.0, 1.5, 1.6)])
def test_a_curve_that_went_through_a_checkpoint_is_the_same(losses: tuple[float, ...]) -> None:
    curve, restored = measured(losses, patience=3, threshold=0.1), Curve(3, 0.1)
    restored.restore(json.loads(json.dumps(curve.state(), allow_nan=False)))
    assert restored == curve
    assert restored.add(90, 9.0, 1.7) == curve.add(90, 9.0, 1.7)
    assert (restored, restored.should_stop) == (curve, curve.should_stop)


def test_a_state_that_is_written_later_is_that_of_its_step() -> None:
    """The checkpoint writer turns it into JSON while training measures on."""
    curve = measured((2.0, 1.0))
    state = curve.state()
    before = json.dumps(state)
    curve.add(30, 3.0, 0.5)
    assert json.dumps(state) == before


def test_the_curve_of_a_run_s_files_is_that_of_its_training(tmp_path: Path) -> None:
    run = create_run(make_settings(tmp_path)(training__n_epochs=4, training__early_stopping_threshold=0.1))
    run.set_status("running", total_steps=40)
    for step, loss in ((10, 2.0), (20, 1.95), (30, 1.5)):
        run.append_result({"step": step - 5, "train_loss": 1.0})
        run.append_result({"step": step, "valid_loss": loss})
    curve, n_epochs = recorded_curve(run)
    expected = measured((2.0, 1.95, 1.5), threshold=0.1)
    assert (curve, n_epochs) == (expected, 4)


def test_overfitting_is_said_in_words() -> None:
    curve = Curve(patience=None, threshold=0.0)
    for step, loss in ((10, 2.0), (20, 1.0), (30, 1.3), (40, 1.6)):
        curve.add(step, step / 20, loss)
    assert curve.overfitting() == "validation loss rose from epoch 1.5 on, from 1.000 at step 20 to 1.600 at step 40"


FALLING = {
    (1.70, 1.26, 1.20): "from 1.260 at step 20 to 1.200 at step 30: train longer, such as training.n_epochs=6",
    (
        3.0,
        2.0,
        1.0,
        0.9,
        0.8,
        0.7,
    ): "from 0.900 at step 40 to 0.700 at step 60: train longer, such as training.n_epochs=6",
    (1.70, 1.21, 1.20): None,  # by less than a fiftieth
    (1.70, 1.20, 1.26): None,
    (1.70,): None,  # nothing to hold it against
    (): None,
}


@pytest.mark.parametrize("losses", FALLING)
def test_a_loss_that_falls_to_the_end_is_told_with_what_to_do(losses: tuple[float, ...]) -> None:
    curve = Curve(patience=None, threshold=0.0)
    for number, loss in enumerate(losses, 1):
        curve.add(10 * number, float(number), loss)
    words = FALLING[losses]
    assert curve.still_falling(3) == (
        None if words is None else f"validation loss was still falling at the end, {words}"
    )


@pytest.mark.parametrize("losses", [(2.0, 0.019, 0.006), (2.0, 0.006, 0.019)])
def test_next_to_nothing_is_no_change_worth_telling(losses: tuple[float, ...]) -> None:
    curve = Curve(patience=None, threshold=0.0)
    for number, loss in enumerate(losses, 1):
        curve.add(number * 10, number, loss)
    assert curve.still_falling(3) is None
    assert curve.overfitting() is None


def test_a_loss_that_only_wobbles_is_not_overfitting() -> None:
    curve = Curve(patience=None, threshold=0.0)
    for step, loss in ((10, 2.0), (20, 1.0), (30, 1.01)):
        curve.add(step, step / 20, loss)
    assert curve.overfitting() is None


def test_stopping_early_waits_for_the_patience_and_asks_for_the_threshold() -> None:
    curve = Curve(patience=2, threshold=0.1)
    stops = []
    for step, loss in enumerate((1.0, 0.95, 0.8, 0.79, 0.78)):
        curve.add(step, 0.0, loss)
        stops.append(curve.should_stop)
    assert stops == [False, False, False, False, True]
    assert curve.best_step == 2
