"""Which rows ask the same, or go on from one another."""

import pytest

from tests.conftest import talk
from trainer.data.files.related_rows import related_rows


def row(question, answer="Yes.", system=None, *more):
    head = [("system", system)] if system else []
    turns = [(("user", "assistant")[i % 2], text) for i, text in enumerate([question, answer, *more])]
    return talk(*head, *turns)


TOGETHER = {
    "copies": ([row("a"), row("a")], [[0, 1]]),
    "other white space": ([row("a b"), row(" a  b", "Yes. ")], [[0, 1]]),
    "another answer": ([row("a"), row("a", "No.")], [[0, 1]]),
    "turns of one conversation": ([row("a"), row("a", "Yes.", None, "b", "No."), row("b")], [[0, 1], [2]]),
    "from the end to the start": ([row("a", "Yes.", None, "b", "No."), row("a")], [[0, 1]]),
    "over three rows": ([row("a", "1"), row("a", "2"), row("a", "2", None, "b", "3")], [[0, 1, 2]]),
    "a greeting that no row ends with": (
        [row("a", "Yes.", None, "b", "1"), row("a", "Yes.", None, "c", "2")], [[0], [1]]),
    "another system prompt": ([row("a"), row("a", "Yes.", "Be brief.")], [[0], [1]]),
    "nothing": ([row("a"), row("b")], [[0], [1]]),
    "answers without a question": (
        [talk(("assistant", text)) for text in "aba"], [[0, 2], [1]]),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_what_belongs_together(rows, expected):
    assert related_rows(rows) == expected
