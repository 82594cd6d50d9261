"""Tokens are counted as they will be trained, and shared ones as a prefix tree would hold them."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CHATML, make_tokenizer, talk
from trainer.data.files.stats import TokenMeasure, measure_tokens, num_unique_tokens
from trainer.data.render.rendering import Renderer

ROWS = [
    talk(("system", "S"), ("user", "one"), ("assistant", "1")),
    talk(("system", "S"), ("user", "one"), ("assistant", "1")),
    talk(("system", "S"), ("user", "two"), ("assistant", "2"), ("user", "?"), ("assistant", "3"), untrained=[2]),
]


@pytest.fixture(scope="module")
def renderer():
    return Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=12))
def test_unique_tokens_are_the_distinct_beginnings(sequences):
    beginnings = {tuple(start) for sequence in sequences for start in accumulate([(token,) for token in sequence])}
    assert num_unique_tokens(sequences) == len(beginnings)


def test_tokens_are_those_of_the_renderings(renderer):
    measured = measure_tokens(ROWS, TokenMeasure(renderer, 10_000))
    examples = [example for row in ROWS for example in renderer.render(row)]
    lengths = [len(example.input_ids) for example in examples]
    assert measured is not None
    assert (measured.tokens.total, measured.tokens.max) == (sum(lengths), lengths[2])
    assert measured.supervised.total == 3 * len("1.")  # an answer of one character and its end marker
    assert measured.supervised_share == 6 / sum(lengths)
    begins_alike = len(renderer.prompt_ids([{"role": "system", "content": "S"}])) - len("<assistant\n") + len("<user\n")
    assert sum(lengths) - measured.unique == lengths[0] + begins_alike
    assert (measured.over_length, measured.refused, measured.rows_of_several_examples) == ((), (), 0)
    told = measured.to_json()
    assert (told["billed_per_epoch"], told["shared_prefix_share"]) == (sum(lengths), measured.shared_prefix_share)


def test_rows_that_are_too_long_are_named(renderer):
    length = len(renderer.render(ROWS[0])[0].input_ids)
    measured = measure_tokens([ROWS[0], ROWS[2]], TokenMeasure(renderer, length))
    assert measured is not None
    assert measured.over_length == (ROWS[2].place,)


def test_rows_that_cannot_be_rendered_are_told_and_left_out(renderer):
    bad = talk(("user", "<|im_end|>"), ("assistant", "1"))
    measured = measure_tokens([ROWS[0], bad], TokenMeasure(renderer, 1000))
    assert measured is not None
    (problem,) = measured.refused
    assert problem.startswith("rows.jsonl:1: TEMPLATE: messages[0].content holds '<|im_end|>'")
    assert measured.tokens == measure_tokens([ROWS[0]], TokenMeasure(renderer, 1000)).tokens
    assert measure_tokens([bad], TokenMeasure(renderer, 1000)) is None
