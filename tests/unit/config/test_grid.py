"""Grids of settings: their values, the names of their runs, and what is no grid."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.fields import NAME
from trainer.config.grid import LONGEST_NAME, combinations
from trainer.errors import ConfigError


def names(*texts: str) -> list[str]:
    return [found.name("own") for found in combinations(texts, 64)]


def test_every_combination_is_a_run_and_the_last_setting_varies_fastest() -> None:
    found = combinations(["training.learning_rate=1e-4,2e-4", "training.n_epochs=3", "lora.r=8, 16"], 64)
    assert [str(one) for one in found] == [
        f"training.learning_rate={rate} lora.r={rank}" for rate in ("1e-4", "2e-4") for rank in (8, 16)
    ]
    assert found[0].overrides == ("training.learning_rate=1e-4", "training.n_epochs=3", "lora.r=8")
    assert [one.name("own") for one in found][:2] == ["own-learning_rate-1e-4-r-8", "own-learning_rate-1e-4-r-16"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("data.train=[a,b],c", ["[a,b]", "c"]),
        ("data.train=[a,[b,c]],{d: 1, e: 2}", ["[a,[b,c]]", "{d: 1, e: 2}"]),
        ("run.suffix='a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("model.base=it's,b", ["it's", "b"]),
        ("model.base=a],b", ["a]", "b"]),
    ],
)
def test_a_comma_in_brackets_or_quotes_parts_no_values(text: str, values: list[str]) -> None:
    key = text.partition("=")[0]
    assert [found.varied for found in combinations([text], 64)] == [((key, value),) for value in values]


def test_a_name_says_which_of_two_settings_is_meant_and_keeps_apart_what_it_cannot_hold() -> None:
    assert names("training.seed=1,2", "evaluation.seed=3") == ["own-seed-1", "own-seed-2"]
    assert names("training.seed=1,2", "evaluation.seed=3,4")[0] == "own-training.seed-1-evaluation.seed-3"
    several = names("data.train=[a/b],[a_b],[a b]", f"model.base={'x' * 200},{'x' * 201}")
    assert len(set(several)) == 6
    longest = combinations([f"lora.{letter * 30}=1,2" for letter in "abcdef"], 64)
    assert {len(one.name("own")) for one in longest} == {LONGEST_NAME}
    assert len({one.name("own") for one in longest}) == 64


def test_a_grid_that_grows_keeps_the_names_of_its_runs() -> None:
    assert set(names("lora.r=4,8")) < set(names("lora.r=2,4,8"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters=",[]{}'\""), min_size=1).map(str.strip).filter(bool),
                min_size=2, max_size=6, unique=True))  # fmt: skip
def test_whatever_the_values_are_names_are_names_and_differ(values: list[str]) -> None:
    found = names(f"model.base={','.join(values)}")
    assert len(set(found)) == len(values)
    assert all(re.fullmatch(NAME, name) for name in found)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        combinations(["data.train", "lora.r=4,4", "training.seed=1,", "run.name=a,b", "backend.kind=local,openai"], 64)
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "not understood, expected section.name=value,value",
        "'4' is given twice, expected once",
        "holds an empty value, expected one between all commas; put a text with commas in quotes",
        "run.name has several values, expected one for the whole grid",
        "backend.kind has several values, expected one for the whole grid",
    ]
    with pytest.raises(ConfigError, match=r"lora.r is given twice, expected all its values in one list"):
        combinations(["lora.r=4", "lora.r=8,16"], 64)
    with pytest.raises(ConfigError, match=r"got no setting with two values, expected one"):
        combinations(["lora.r=4"], 64)


def test_a_grid_is_not_larger_than_allowed() -> None:
    texts = [f"training.seed={','.join(map(str, range(13)))}", "lora.r=1,2,3,4,5"]
    with pytest.raises(ConfigError, match=r"the grid has 65 runs, expected 64 at most; .*--max-runs 65"):
        combinations(texts, 64)
    assert len(combinations(texts, 65)) == 65
