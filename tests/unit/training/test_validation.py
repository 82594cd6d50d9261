"""The validation loss is the mean over all supervised tokens of its rows, as if each row were evaluated alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.unit.training.test_engine import DOUBLE, build, gradients, reference
from tests.unit.training.test_executor import ROWS, executor_of, rows_of
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.errors import TrainingError
from trainer.model.adapter import trainable
from trainer.training.validation import Validation

pytestmark = pytest.mark.apart

FEW = 3


def accuracy(model: PeftModel, rows: Sequence[Example]) -> float:
    """The share of supervised tokens that the model's own logits predict, each row alone."""
    hits = []
    with torch.no_grad():
        for row in rows:
            target = torch.tensor(row.labels[1:])
            found = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].argmax(-1)
            hits.append((found == target)[target != IGNORE_INDEX])
    return float(torch.cat(hits).double().mean())


def validation_of(model: PeftModel, folder: Path, eval_rows: int = FEW, token_budget: int = 90) -> Validation:
    return Validation(executor_of(model, token_budget, folder)[0], rows_of(ROWS), eval_rows)


@pytest.mark.parametrize("token_budget", [1, 10_000])
def test_losses_are_weighted_by_tokens_and_accuracies_counted(tmp_path: Path, token_budget: int) -> None:
    model = build("Llama")
    found = validation_of(model, tmp_path, token_budget=token_budget).measure(1, epoch_end=True)
    expected = {}
    for prefix, rows in (("valid", ROWS[:FEW]), ("full_valid", ROWS)):
        expected[f"{prefix}_loss"] = reference(model.eval(), rows)[0]
        expected[f"{prefix}_mean_token_accuracy"] = accuracy(model, rows)
    assert found == pytest.approx(expected, rel=DOUBLE)
    by_rows = sum(reference(model, [row])[0] for row in ROWS) / len(ROWS)
    assert abs(found["full_valid_loss"] - by_rows) > 100 * DOUBLE  # a mean of the rows' means is another number


def test_inside_of_an_epoch_only_the_few_are_evaluated(tmp_path: Path) -> None:
    validation = validation_of(build("Llama"), tmp_path)
    inside, at_the_end = validation.measure(1, epoch_end=False), validation.measure(2, epoch_end=True)
    assert inside.keys() == {"valid_loss", "valid_mean_token_accuracy"}
    assert inside.items() <= at_the_end.items()


@pytest.mark.parametrize("eval_rows", [len(ROWS), 1000])
def test_where_the_few_are_all_both_are_one(tmp_path: Path, eval_rows: int) -> None:
    found = validation_of(build("Llama"), tmp_path, eval_rows).measure(1, epoch_end=True)
    assert found["full_valid_loss"] == found["valid_loss"]
    assert found["full_valid_mean_token_accuracy"] == found["valid_mean_token_accuracy"]


def test_it_goes_without_dropout_and_leaves_training_as_it_was(tmp_path: Path) -> None:
    model = build("Llama", dropout=0.5).train()
    state = torch.get_rng_state()
    found = validation_of(model, tmp_path).measure(1, epoch_end=False)
    assert found["valid_loss"] == pytest.approx(reference(build("Llama").eval(), ROWS[:FEW])[0], rel=DOUBLE)
    assert (model.training, gradients(model)) == (True, {})
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    model = build("Llama")
    validation = validation_of(model, tmp_path)
    validation.measure(1, epoch_end=False)
    next(iter(trainable(model).values())).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"^step 2: the validation loss is not finite"):
        validation.measure(2, epoch_end=False)


def test_without_rows_there_is_none(tmp_path: Path) -> None:
    executor, _ = executor_of(build("Llama"), 90, tmp_path)
    assert [bool(Validation(executor, rows_of(rows), FEW)) for rows in ([], ROWS)] == [False, True]
