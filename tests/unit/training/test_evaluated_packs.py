"""Packs of the validation rows: made once for a token budget, and not kept where they are many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from trainer.data.pack.packing import Pack, make_packs
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.training import validation
from trainer.training.dataset import Rows
from trainer.training.tokens import Tokens
from trainer.training.validation import ValidationRows


@dataclass
class Maker:
    budget: int
    calls: int = 0

    def __call__(self, examples: Sequence[Example]) -> list[Pack]:
        self.calls += 1
        return make_packs(examples, self.budget)


def rows() -> Rows:
    examples = [Example(ids, (IGNORE_INDEX, *ids[1:])) for ids in [(1, 2, 3), (1, 2), (1, 2, 4, 5, 6)]]
    return Rows([object()] * 3, Tokens.of([[example] for example in examples]), 0)  # type: ignore[list-item]


def test_packs_are_made_once_for_each_budget() -> None:
    held, maker = ValidationRows(rows(), 3), Maker(100)
    first = held.packs(100, maker)
    assert held.packs(100, maker) is first
    assert maker.calls == 1
    maker.budget = 1
    assert len(held.packs(1, maker)) > len(first)
    assert maker.calls == 2


def test_only_the_first_rows_count() -> None:
    held = ValidationRows(rows(), 2)
    assert (held.count, held.num_supervised, held.longest()) == (2, 3, 3)
    assert sum(pack.num_supervised for pack in held.packs(100, Maker(100))) == held.num_supervised
    assert ValidationRows(rows(), 9).count == 3


def test_many_tokens_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_KEPT_TOKENS", 2)
    held, maker = ValidationRows(rows(), 3), Maker(100)
    assert np.all([held.packs(100, maker) for _ in range(2)])
    assert maker.calls == 2
