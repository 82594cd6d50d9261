"""When an answer counts as right or nearly right."""

import pytest

from trainer.inference.evaluation.measures import BAR, is_right

LONG = "A ferrule is the tiny cap that neatly finishes the end of cable housing."
RIGHT = [
    (LONG, LONG),
    ("  a FERRULE is the tiny cap that neatly\nfinishes the end of cable housing", LONG),
    ("A ferrule is a tiny cap that neatly finishes the end of the cable housing.", LONG),
    ("Yes", "yes."),
    ('{"b": [1, 2], "a": null}', '{"a": null, "b": [1,2]}'),
    ("The total of all 3 items is 1,250.00 euros today.", "The total of all 3 items is 1,250.00 euros."),
    ("车轮的中心是轮毂。", "车轮的中心是轮毂"),
    ("", ""),
    ("\u22125", "-5"),  # the minus sign of typography
    ("The cold room is kept at \u22125 degrees all day.", "The cold room is kept at -5 degrees all day."),
    ('{"a": 1, "b": [2.0, {"c": 3}]}', '{"a": 1.0, "b": [2, {"c": 3.0}]}'),
    ("[1e3]", "[1000]"),
]
WRONG = [
    ("", LONG),
    ("A ferrule is a key for nipples that mechanics turn to tighten or loosen the spokes.", LONG),
    ("ARP stands for Autonomous Removability System.", "ARP stands for Address Resolution Protocol."),
    ("not approved", "approved"),  # a short answer must be whole
    ("approved by you", "approved by us"),
    ("43", "42"),
    ("The total of all 3 items is 1,260.00 euros.", "The total of all 3 items is 1,250.00 euros."),
    ("The temperature in the cold room is -5 degrees.", "The temperature in the cold room is 5 degrees."),
    ('{"a": 1.5, "b": 2, "c": 3, "d": 4, "e": 5}', '{"a": 15, "b": 2, "c": 3, "d": 4, "e": 5}'),
    ('{"a": true}', '{"a": 1}'),
    ('{"a": "1"}', '{"a": 1}'),
    ("\u22125", "5"),
    ('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f"', '{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}'),
]


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_what_says_the_same_is_right(answer: str, reference: str) -> None:
    assert is_right(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_what_says_another_thing_is_not(answer: str, reference: str) -> None:
    assert not is_right(answer, reference)


def test_the_bar_is_stated_with_its_numbers() -> None:
    assert "more than 5 words" in BAR
    assert "at least 80% of the words" in BAR
