"""Numbers that pages and people send, and values as pages show them."""

import pytest

from trainer.web.words import sentence, whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("100", 100), ("101", 100), ("9" * 5000, 100), ("0" * 5000 + "1", 1)]
    + [(text, None) for text in ("", "-1", "+1", "1.0", "x", " 1", "1_0", "\N{SUPERSCRIPT TWO}", "\u0664", "\0")],
)
def test_a_number_is_digits_that_can_be_read_and_never_more_than_the_most(text: str, number: int | None) -> None:
    assert whole_number(text, 100) == number


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("is missing; add it", "Is missing; add it"),
        ("notes.pdf: page 1 holds no text", "notes.pdf: page 1 holds no text"),
        ("asking m at vllm: refused", "Asking m at vllm: refused"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_and_a_name_as_it_is_written(text: str, shown: str) -> None:
    assert sentence(text) == shown
