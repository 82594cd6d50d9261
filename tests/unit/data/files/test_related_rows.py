"""Which rows ask the same, or go on from one another."""

from dataclasses import replace

import pytest

from tests.conftest import talk
from trainer.data.files.related_rows import related_rows


def row(question, answer="Yes.", system=None, *more):
    head = [("system", system)] if system else []
    turns = [(("user", "assistant")[i % 2], text) for i, text in enumerate([question, answer, *more])]
    return talk(*head, *turns)


def pair(question, preferred, other, *more):
    """A preference row; `more` are turns of its prompt after the question."""
    asked = row(question, *more[:1], None, *more[1:]).messages if more else row(question).messages[:1]
    answer, rejected = (talk(("assistant", text)).messages for text in (preferred, other))
    return replace(row(question), messages=(*asked, *answer), num_prompt=len(asked), non_preferred=rejected)


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
    "pairs of one prompt": ([pair("a", "1", "2"), pair("a", "3", "4"), pair("b", "1", "2")], [[0, 1], [2]]),
    "a pair that goes on from the preferred answer": ([pair("a", "1", "2"), pair("a", "3", "4", "1", "b")], [[0, 1]]),
    "a pair that goes on from the other answer": ([pair("a", "1", "2"), pair("a", "3", "4", "2", "b")], [[0, 1]]),
    "a pair that goes on from none": ([pair("a", "1", "2"), pair("a", "3", "4", "9", "b")], [[0], [1]]),
    "nothing": ([row("a"), row("b")], [[0], [1]]),
    "answers without a question": (
        [talk(("assistant", text)) for text in "aba"], [[0, 2], [1]]),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_what_belongs_together(rows, expected):
    assert related_rows(rows) == expected
