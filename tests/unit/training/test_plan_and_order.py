from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import REPOSITORY
from trainer.config import RunConfig
from trainer.config.load import load_config
from trainer.training.curve import Curve
from trainer.training.order import StepOrder, epoch_order, rows_per_epoch
from trainer.training.plan import make_plan, resolve


@pytest.mark.parametrize(
    ("rows", "n_epochs", "batch_size", "total_steps"),
    [
        (1, 25, 1, 25),
        (10, 10, 1, 100),
        (33, 4, 1, 132),
        (34, 3, 1, 102),
        (120, 3, 6, 60),
        (1000, 3, 16, 189),
        (9000, 2, 16, 1126),
        (60_000, 1, 16, 3750),
    ],
)
def test_auto_looks_at_the_number_of_rows(
    settings: Callable[..., RunConfig], rows: int, n_epochs: int, batch_size: int, total_steps: int
) -> None:
    config = settings(training__n_epochs="auto", training__batch_size="auto")
    plan = make_plan(config, rows, max_length=100, token_budget=1000)
    assert (plan.n_epochs, plan.batch_size, plan.total_steps) == (n_epochs, batch_size, total_steps)


@pytest.mark.parametrize(("name", "steps", "rows"), [("tiny", 900, 7200), ("smollm", 60, 480)])
def test_a_demo_trains_no_more_than_its_time_allows(name: str, steps: int, rows: int) -> None:
    """On two cores 900 steps of the tiny base take two minutes, and 60 steps of SmolLM2 four."""
    config = load_config(REPOSITORY / "configs" / f"{name}.yaml")
    per_epoch, compared = (
        len((REPOSITORY / str(file)).read_text(encoding="utf-8").splitlines())
        for file in (config.data.train, config.data.validation)
    )
    plan = make_plan(config, per_epoch, max_length=100, token_budget=1000)
    assert plan.total_steps <= steps
    assert plan.n_epochs * per_epoch <= rows
    assert compared <= 20
    assert len((REPOSITORY / "data" / "questions.txt").read_text(encoding="utf-8").splitlines()) <= 10


def test_a_resolved_config_holds_no_auto_and_plans_the_same(settings: Callable[..., RunConfig]) -> None:
    config = RunConfig.model_validate({"model": {"base": "b"}, "data": {"train": "t.jsonl"}})
    plan = make_plan(config, 77, max_length=100, token_budget=1000)
    resolved = resolve(config, plan, "float32")
    assert "auto" not in resolved.model_dump_json()
    assert RunConfig.model_validate(resolved.model_dump()) == resolved
    assert make_plan(resolved, 77, max_length=100, token_budget=1000) == plan


def test_the_multiplier_scales_the_base_rate(settings: Callable[..., RunConfig]) -> None:
    config = RunConfig.model_validate(
        {"model": {"base": "b"}, "data": {"train": "t"}, "training": {"learning_rate_multiplier": 2}}
    )
    assert make_plan(config, 10, 100, 1000).learning_rate == pytest.approx(4e-4)


def test_an_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    files = ["a"] * 50
    first, second = (epoch_order(files, {"a": 1.0}, seed=1, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == epoch_order(files, {"a": 1.0}, seed=1, epoch=0)
    assert first != epoch_order(files, {"a": 1.0}, seed=2, epoch=0)


def test_weights_repeat_and_thin_out_files() -> None:
    files = ["often"] * 4 + ["seldom"] * 10
    weights = {"often": 2.5, "seldom": 0.5}
    order = epoch_order(files, weights, seed=0, epoch=0)
    counts = Counter(order)
    assert sorted(counts[row] for row in range(4)) == [2, 2, 3, 3]
    assert sum(counts[row] for row in range(4, 14)) == 5
    assert len(order) == rows_per_epoch({"often": 4, "seldom": 10}, weights) == 15


def test_steps_cover_the_epoch_and_the_last_one_holds_the_rest() -> None:
    steps = StepOrder(["a"] * 10, {"a": 1.0}, batch_size=4, seed=0)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert len(steps) == 3
    assert [row for step in steps for row in step] == epoch_order(["a"] * 10, {"a": 1.0}, 0, 0)


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


def test_a_restored_curve_goes_on_like_the_one_it_was_taken_from() -> None:
    curve, restored = Curve(3, 0.0), Curve(3, 0.0)
    curve.add(1, 0.5, 1.0)
    curve.add(2, 1.0, 2.0)
    restored.restore(curve.state())
    assert restored == curve
