"""Words that differ are marked, and nothing is lost."""

import pytest

from trainer.inference.report.page import compare_words


def test_words_that_differ_are_marked() -> None:
    answer, reference = compare_words("The hub is a small wheel.", "The hub is the centre.")
    assert answer == [("same", "The hub is "), ("other", "a"), ("same", " "), ("other", "small"), ("same", " "),
                      ("other", "wheel"), ("same", ".")]  # fmt: skip
    assert reference == [("same", "The hub is "), ("missed", "the"), ("same", " "), ("missed", "centre"), ("same", ".")]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("", "a b"), ("a b", ""), ("a  b\n\nc", "a b c"), ("猫が好き", "犬が好き"), ("<b>&amp;</b>", "x"), ("A", "a")],
)
def test_the_pieces_are_the_texts(answer: str, reference: str) -> None:
    pieces = compare_words(answer, reference)
    assert tuple("".join(text for _, text in side) for side in pieces) == (answer, reference)


def test_equal_texts_have_no_marks() -> None:
    assert compare_words("one two", "one two") == ([("same", "one two")], [("same", "one two")])
