from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from trainer.config import RunConfig
from trainer.config.load import load_config
from trainer.config.schema import DpoConfig
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
    idle = {"training": {"dpo"}, "azureml": True, "openai": True}  # nothing here reads these
    assert '"auto"' not in resolved.model_dump_json(exclude=idle)
    assert RunConfig.model_validate(resolved.model_dump()) == resolved
    assert make_plan(resolved, 77, max_length=100, token_budget=1000) == plan


def test_the_strength_of_a_preference_is_a_number_before_training() -> None:
    def resolved(**training: Any) -> RunConfig:
        values = {"model": {"base": "b"}, "data": {"train": "t.jsonl"}, "training": {"method": "dpo"} | training}
        config = RunConfig.model_validate(values)
        return resolve(config, make_plan(config, 77, max_length=100, token_budget=1000), "float32")

    assert resolved().training.dpo == DpoConfig(beta=0.1)
    assert resolved(dpo={"beta": 0.5, "loss": "ipo"}).training.dpo == DpoConfig(beta=0.5, loss="ipo")


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
