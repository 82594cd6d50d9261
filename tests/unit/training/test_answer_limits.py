"""`auto` becomes how many held-out rows are answered, and how long an answer may get."""

from dataclasses import replace

import pytest

from tests.conftest import talk
from trainer.config.schema import EvaluationConfig
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.training.answer_limits import resolve_limits
from trainer.training.dataset import Row


def row(*answers: int) -> Row:
    """A row whose answers have these many tokens."""
    turns = [turn for _ in answers for turn in (("user", "q"), ("assistant", "a"))]
    labels = [label for length in answers for label in (IGNORE_INDEX, *[7] * length)]
    return Row(talk(*turns), (Example(tuple([7] * len(labels)), tuple(labels)),))


@pytest.mark.parametrize(("answers_per_row", "max_rows"), [(1, 50), (2, 25), (3, 17), (200, 1)])
def test_auto_takes_as_many_rows_as_hold_fifty_answers(answers_per_row: int, max_rows: int) -> None:
    assert resolve_limits(EvaluationConfig(), [row(*[1] * answers_per_row)] * 4).max_rows == max_rows


@pytest.mark.parametrize(("longest", "limit"), [(1, 64), (42, 64), (43, 65), (200, 300), (683, 1024), (5000, 1024)])
def test_auto_leaves_an_answer_half_as_much_room_again(longest: int, limit: int) -> None:
    assert resolve_limits(EvaluationConfig(), [row(1), row(1, longest, 1)]).max_new_tokens == limit


def test_a_thought_that_is_only_read_gets_room_too() -> None:
    said = talk(("user", "q" * 20), ("assistant", "a" * 20))
    thinks = replace(said.messages[1], reasoning_content="t" * 60)
    labels = (*[IGNORE_INDEX] * 240, *[7] * 60)
    made = Row(replace(said, messages=(said.messages[0], thinks)), (Example((7,) * 300, labels),))
    found = [resolve_limits(EvaluationConfig(), [made], trained).max_new_tokens for trained in (True, "auto", False)]
    assert found == [90, 90, 360], "its characters are 60 of 100, and so of 300 tokens"


def test_numbers_that_are_given_stay() -> None:
    given = EvaluationConfig(max_rows=3, max_new_tokens=5)
    assert resolve_limits(given, [row(1000)] * 100) == given


def test_without_held_out_rows_no_auto_is_left() -> None:
    assert resolve_limits(EvaluationConfig(), []) == EvaluationConfig(max_rows=50, max_new_tokens=64)
