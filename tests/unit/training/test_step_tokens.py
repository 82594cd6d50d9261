"""Tokens of steps are counted as packs hold them; the ways that are compared bound one another."""

import pytest

from tests.conftest import REPOSITORY
from trainer.config.load import load_config
from trainer.data.files.stats import measure_files
from trainer.data.pack.packing import make_packs
from trainer.model.sharing import sharing_of
from trainer.training import step_tokens
from trainer.training.order import StepOrder
from trainer.training.prepare import load_preprocessing

TRAIN = REPOSITORY / "data" / "support_train.jsonl"


def found_for(*settings):
    given = [f"data.train={TRAIN}", "data.validation=", *settings]
    return load_preprocessing(load_config(REPOSITORY / "configs" / "tiny.yaml", given))


@pytest.fixture(scope="module")
def rows():
    found = found_for()
    counted: list[list[list[object]]] = []

    def keep(examples):
        counted.append(examples)
        return step_tokens.count_step_tokens(examples, found)

    counter = step_tokens.TokenMeasure(found.renderer, found.max_length, keep)
    measured = measure_files([TRAIN], [], counter)
    return counted[0], measured.train.tokens


def test_an_epoch_computes_what_its_packs_hold(rows):
    examples, tokens = rows
    found = found_for("training.batch_size=8")
    counted = step_tokens.count_step_tokens(examples, found)
    sharing, _ = sharing_of(found.base.skeleton)
    steps = StepOrder([str(TRAIN)] * 40, {str(TRAIN): 1.0}, 8, 42)
    packs = [
        pack
        for step in steps
        for pack in make_packs([one for row in step for one in examples[row]], counted.token_budget, sharing)
    ]
    assert counted.computed == sum(len(pack.input_ids) for pack in packs)
    assert (counted.rows_per_step, counted.steps, counted.counted_steps) == (8, 5, 5)
    assert counted.unshared == tokens.tokens.total
    assert counted.padded > counted.unshared > counted.computed >= tokens.unique * 0.9
    assert counted.fewer_than_unshared == counted.unshared / counted.computed > 1.2


def test_a_budget_of_nothing_shares_nothing(rows):
    examples, _ = rows
    alone = step_tokens.count_step_tokens(examples, found_for("memory.token_budget=1"))
    # A pack leaves out the last supervised token of a row, which is only predicted, and all that follows it.
    assert alone.token_budget == 1
    assert 0.95 * alone.unshared < alone.computed < alone.unshared


def test_long_epochs_are_counted_in_part(rows, monkeypatch):
    examples, _ = rows
    monkeypatch.setattr(step_tokens, "COUNTED_STEPS", 3)
    counted = step_tokens.count_step_tokens(examples, found_for("training.batch_size=4"))
    assert (counted.steps, counted.counted_steps) == (10, 3)
