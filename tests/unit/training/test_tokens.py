"""Arrays give back the examples that went in, and count them alike."""

import numpy as np
import pytest

from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.training.tokens import Tokens

HIDDEN = IGNORE_INDEX
ROWS = [
    [Example((5, 300, 70_000), (HIDDEN, 300, 70_000))],
    [],
    [Example((1, 2), (HIDDEN, 2)), Example((1, 9, 9, 0), (HIDDEN, HIDDEN, HIDDEN, 0))],
    [Example((4,), (HIDDEN,))],
    [],
]


@pytest.mark.parametrize("cut", range(len(ROWS) + 1))
def test_examples_come_back_as_they_went_in(cut: int) -> None:
    tokens = Tokens.joined([Tokens.of(ROWS[:cut]), Tokens.of(ROWS[cut:])])
    assert [list(tokens.examples(row)) for row in range(len(ROWS))] == ROWS
    assert all(type(token) is int for row in range(len(ROWS)) for e in tokens.examples(row) for token in e.labels)


def test_counts_are_those_of_the_examples() -> None:
    tokens = Tokens.of(ROWS)
    assert tokens.num_tokens.tolist() == [sum(len(e.input_ids) for e in row) for row in ROWS]
    assert tokens.num_supervised.tolist() == [sum(e.num_supervised for e in row) for row in ROWS]
    assert (tokens.longest, Tokens.of([]).longest) == (4, 0)


def test_a_token_takes_five_bytes() -> None:
    tokens = Tokens.of(ROWS)
    assert (tokens.ids.dtype, tokens.trained.dtype) == (np.int32, np.int8)
