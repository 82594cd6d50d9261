"""The reference of pairs: computed in parts, kept under all that it depends on, and the measures held against it."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import talk
from tests.unit.training.test_engine import build
from tests.unit.training.test_pair_steps import LOSS, executor_of, expected_loss, plain, random_pairs
from trainer.runs.intervals import wilson
from trainer.training import pair_loop, reference
from trainer.training.dataset import Rows
from trainer.training.fingerprint import BASE_MODEL, PARENT_ADAPTER
from trainer.training.pair_loop import PairValidation
from trainer.training.pairs import Pair
from trainer.training.reference import DEPENDS_ON, Pairs, compute_reference, find_reference
from trainer.training.tokens import Tokens

pytestmark = pytest.mark.apart

FINGERPRINT = {name: f"some {name}" for name in (*DEPENDS_ON, PARENT_ADAPTER, "training.learning_rate")}


def pairs_of(found: Sequence[Pair]) -> Pairs:
    tokens = Tokens.of([(*pair.preferred, *pair.other) for pair in found])
    return Pairs(Rows([talk(("user", "?"), ("assistant", "!"))] * len(found), tokens, 0))


def changed(pairs: Pairs, name: str) -> Pairs:
    """The same, but for one value of an array of its tokens."""
    array = getattr(pairs.rows.tokens, name).copy()
    array[-1] ^= 1
    other = copy.copy(pairs.rows)
    other.tokens = replace(pairs.rows.tokens, **{name: array})
    return Pairs(other)


def digest(parts: Sequence[Pairs], kind: Any = "base", **changes: str) -> str:
    return find_reference(Path("x"), parts, FINGERPRINT | changes, kind).digest


def test_the_digest_is_of_rows_masks_and_base_and_of_nothing_else() -> None:
    first, second = pairs_of(random_pairs()), pairs_of(random_pairs(1))
    parts = (first, second)
    digests = [
        digest(parts),
        digest((second, first)),
        digest((first, changed(second, "ids"))),
        digest((first, changed(second, "trained"))),
        digest(parts, "run"),
        digest(parts, "run", **{PARENT_ADAPTER: "another"}),
        *(digest(parts, **{name: "another"}) for name in (BASE_MODEL, "model.quantization", "model.dtype")),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(parts, **{PARENT_ADAPTER: "another", "training.learning_rate": "another"}) == digests[0]


@pytest.mark.parametrize("kind", ["base", "run"])
def test_the_reference_is_read_in_parts_without_dropout_by_the_base_or_the_model_as_it_is(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "READ_ROWS", 3)
    model = build("Llama", dropout=0.3)
    alone = copy.deepcopy(model).eval()
    by = alone if kind == "run" else alone.unload()  # type: ignore[operator]
    pairs = pairs_of(random_pairs())
    with torch.no_grad():
        wanted = [[float(plain(by, answer[0])) for answer in pair.answers] for pair in pairs]
    model.train()
    asked: list[int] = []
    found = compute_reference(
        executor_of(model, 100, tmp_path, 0.3), pairs, kind, lambda rows: asked.append(rows) is None
    )
    assert found == pytest.approx(np.array(wanted), rel=1e-7)
    assert (asked, model.training) == ([0, 3], True)
    assert compute_reference(executor_of(model, 100, tmp_path, 0.3), pairs, kind, lambda rows: rows < 3) is None


def test_held_out_pairs_are_evaluated_in_parts_without_dropout_beside_their_own_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_loop, "READ_ROWS", 2)
    model = build("Llama", dropout=0.3)
    alone, pairs = copy.deepcopy(model).eval(), pairs_of(random_pairs(prompts=(30, 30, 12, 40, 20)))
    base = copy.deepcopy(alone).unload()  # type: ignore[operator]
    with torch.no_grad():
        now, before = ([[plain(of, answer[0]) for answer in pair.answers] for pair in pairs] for of in (alone, base))
    pairs.reference = np.array([[float(logp) for logp in row] for row in before])
    validation = PairValidation(executor_of(model.train(), 100, tmp_path, 0.3), pairs, 3, LOSS)
    measured = validation.measure(1, epoch_end=True)
    for part, count in (("valid", 3), ("full_valid", 5)):
        found = {name.removeprefix(f"{part}_"): value for name, value in measured.items() if name.startswith(part)}
        loss = expected_loss(LOSS, pairs[:count], [(row[0], row[1]) for row in now[:count]])
        logps, references = np.array([[float(logp) for logp in row] for row in now])[:count], pairs.reference[:count]
        rewards = LOSS.beta * (logps - references)
        wins = rewards[:, 0] > rewards[:, 1]
        assert found["loss"] == pytest.approx(float(loss))
        assert found["reward_margin"] == pytest.approx((rewards[:, 0] - rewards[:, 1]).mean())
        assert (found["preferred_logp"], found["other_logp"]) == pytest.approx(tuple(logps.mean(0)))
        assert found["reward_accuracy"] == wins.mean()
        assert (found["reward_accuracy_low"], found["reward_accuracy_high"]) == wilson(wins.sum(), count)
    assert model.training
