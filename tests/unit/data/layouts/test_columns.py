"""Which columns are question, answer and system prompt."""

from collections import Counter

import pytest

from trainer.data.layouts.columns import FORM, Columns, columns_of, parse_columns, rows_of_columns
from trainer.errors import ConfigError

RIGHT = {
    "nothing": (None, [], None),
    "two": ("prompt=q,answer=a", [], Columns("a", "q")),
    "three, with spaces": (" prompt = the q , answer=a,system=s", [], Columns("a", "the q", "s")),
    "questions": ("answer=a", ["What is {t}?"], Columns("a", questions=("What is {t}?",))),
    "questions alone": (None, ["What is {t}?"], Columns(None, questions=("What is {t}?",))),
}


@pytest.mark.parametrize(("text", "questions", "expected"), RIGHT.values(), ids=RIGHT)
def test_the_columns_as_they_are_given(text, questions, expected):
    assert parse_columns(text, questions) == expected


BRACES = 'expected a text with the name of a column in braces, such as "What is a {term}?"; write a brace itself twice'
WRONG = {
    "no name": ("prompt=,answer=a", [], [f"--columns: is 'prompt=,answer=a', expected {FORM}; name each column once"]),
    "twice": ("answer=a,answer=b", [], [f"--columns: is 'answer=a,answer=b', expected {FORM}; name each column once"]),
    "empty": ("", [], [f"--columns: is '', expected {FORM}; name each column once"]),
    "other": ("q=q,answer=a", [], [f"--columns: is 'q=q,answer=a', expected {FORM}; name each column once"]),
    "no answer": ("prompt=q", [], [f"--columns: is 'prompt=q', expected {FORM}; name prompt and answer"]),
    "both": ("prompt=q,answer=a", ["{t}?"],
             ["--columns: names a prompt beside --question, expected one of the two; remove one"]),
    "no column": ("answer=a", ["What?"], [f"--question: 'What?' names no column, {BRACES}"]),
    "a format": ("answer=a", ["{t:>5}"], [f"--question: '{{t:>5}}' names no column, {BRACES}"]),
    "open": ("answer=a", ["{t"], [f"--question: '{{t' cannot be read (expected '}}' before end of string), {BRACES}"]),
    "two mistakes": ("x", ["What?"], [f"--question: 'What?' names no column, {BRACES}",
                                      f"--columns: is 'x', expected {FORM}; name each column once"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "questions", "problems"), WRONG.values(), ids=WRONG)
def test_every_mistake_is_told(text, questions, problems):
    with pytest.raises(ConfigError) as raised:
        parse_columns(text, questions)
    assert list(raised.value.problems) == problems


def test_an_answer_that_is_not_named_is_found_beside_the_columns_of_the_question():
    wanted = parse_columns(None, ["What is {definition}?"])
    assert columns_of(["definition", "Answer"], wanted) == Columns("Answer", questions=wanted.questions)


def test_each_question_makes_a_row_and_a_doubled_brace_is_one():
    columns = parse_columns("answer=a", ["{t}?", "{{{t}}} of {n}"])
    rows = rows_of_columns({"t": "hub", "n": 3, "a": "Yes"}, columns, Counter())
    assert [row["messages"][0]["content"] for row in rows] == ["hub?", "{hub} of 3"]
    assert {row["messages"][1]["content"] for row in rows} == {"Yes"}
