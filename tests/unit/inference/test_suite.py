"""Items of the suite: their checks, the bundled file, files of a user's own, and the score."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.inference.client import Reply
from trainer.inference.suite.checks import Expectation, is_right
from trainer.inference.suite.items import BUNDLED, Suite, read_suite
from trainer.inference.suite.kept import scored
from trainer.inference.tool_calls import Call
from trainer.training.plan import with_suite


def says(text: str = "", *calls: Call, ended: bool = True) -> Reply:
    return Reply(text, calls, ended)


@pytest.mark.parametrize(("check", "right", "wrong"), [
    ({"letter": "B"}, ["B", "B.", "(B)", "**B**", "B. Venus", "The answer is B.", "Option B is right", "It is B"],
     ["A", "A or B", "Venus", "", "The answer is A, not B"]),
    ({"letter": "A"}, ["A", "A.", "(A)", "A) Mercury", "The answer is (A)"], ["A dog is a mammal", "B", "A planet"]),
    ({"number": 42}, ["42", "42.", "7 * 6 = 42", "**42**", "The sum is 42.0"], ["7 * 6", "42 of 43", "-42", ""]),
    ({"number": 1000}, ["1,000", "1000 euros", "1 000"], ["1,0000", "100"]),
    ({"json": {"a": [1, None]}}, ['{"a": [1, null]}', '```json\n{"a": [1.0, null]}\n```', ' {"a":[1,null]} '],
     ['Here: {"a": [1, null]}', '{"a": [1]}', '{"a": [true, null]}', ""]),
    ({"json": None}, ["null"], ["", "None"]),
    ({"refuses": True}, ["I can't help with that.", "I can\u2019t do this", "Sorry, no.", "I cannot"],
     ["First, take a pipe", ""]),
    ({"refuses": False, "words": [["kill"]]}, ["Use kill -9"], ["I cannot help", "Use stop", ""]),
    ({"words": [["où"], ["gare", "station"]]}, ["Où est la gare ?", "OU EST LA STATION"], ["Où ?", "la gare"]),
    ({"rules": {"exactly": "yes"}}, ["Yes.", "yes", '"Yes!"'], ["Yes, it is", "no", ""]),
    ({"rules": {"exactly_cased": "OK"}}, ["OK", "OK."], ["ok"]),
    ({"rules": {"starts_with": "Snow", "ends_with": "flowers"}}, ["Snow, flowers.", '"Snow flowers"'], ["flowers"]),
    ({"rules": {"ends_with": "?"}}, ["Coffee?"], ["Coffee."]),
    ({"rules": {"mentions": ["a b"], "without": ["wheel"]}}, ["A  B wheels"], ["a b Wheel", "a c"]),
    ({"rules": {"words": 2, "most_words": 3}}, ["glad, merry"], ["glad", "very glad person"]),
    ({"rules": {"most_words": 3}}, ["glad", "very glad person"], ["a very glad person", ""]),
    ({"rules": {"lines": 2}}, ["a\n\nb\n"], ["a", "a\nb\nc"]),
    ({"rules": {"bullets": 2}}, ["- a\n* b"], ["- a", "- a\nb"]),
    ({"rules": {"numbered": 2}}, ["1. a\n2. b"], ["1. a\n1. b", "1. a"]),
    ({"rules": {"lower": True}}, ["snow"], ["Snow"]),
    ({"rules": {"upper": True}}, ["SNOW!"], ["Snow"]),
])  # fmt: skip
def test_a_check_tells_right_from_wrong(check: dict[str, object], right: list[str], wrong: list[str]) -> None:
    read = Expectation.model_validate(check)
    assert {text: is_right(read, says(text)) for text in right} == dict.fromkeys(right, True)
    assert {text: is_right(read, says(text)) for text in wrong} == dict.fromkeys(wrong, False)
    assert not is_right(read, says(right[0], ended=False))


def test_a_call_must_be_the_one_that_is_right() -> None:
    check = Expectation.model_validate({"call": {"name": "timer", "arguments": {"minutes": 10}}})
    assert is_right(check, says("", Call("timer", {"minutes": 10.0})))
    for reply in (
        says("timer(10)"), says("", Call("timer", {"minutes": 5})), says("", Call("clock", {"minutes": 10})),
        says("", Call("timer", {"minutes": 10}), Call("timer", {"minutes": 10})),
    ):  # fmt: skip
        assert not is_right(check, reply)
    none = Expectation.model_validate({"call": None})
    assert is_right(none, says("Hello!"))
    assert not is_right(none, says(""))
    assert not is_right(none, says("Hello!", Call("timer", {"minutes": 10})))


def test_the_bundled_suite_is_whole() -> None:
    suite = read_suite(BUNDLED)
    assert len(suite.items) >= 120
    assert {item.kind for item in suite.items} == {
        "choice", "arithmetic", "json", "tool-call", "refusal", "translation", "instruction",
    }  # fmt: skip
    letters = [item.check.letter for item in suite.items if item.kind == "choice"]
    assert {letter: letters.count(letter) for letter in "ABCD"} == {"A": 6, "B": 6, "C": 6, "D": 6}
    for item in suite.items:  # a model that says nothing has nothing right
        assert not is_right(item.check, says(""))


@pytest.mark.parametrize("most", [1, 7, 42, 100, 128, 500])
def test_fewer_items_are_of_every_kind_alike(most: int) -> None:
    suite = read_suite(BUNDLED)
    fewer = suite.of_each_kind(most)
    assert len(fewer.items) == min(most, len(suite.items))
    assert [item for item in suite.items if item in fewer.items] == list(fewer.items)
    had, taken = (Counter(item.kind for item in items) for items in (suite.items, fewer.items))
    short = [taken[kind] for kind in had if taken[kind] < had[kind]]
    assert max(short, default=0) - min(short, default=0) <= 1
    assert all(taken[kind] == had[kind] for kind in had if taken[kind] < min(short, default=0))
    assert (fewer == suite) == (most >= len(suite.items)) == (fewer.sha256 == suite.sha256)


@pytest.mark.parametrize(("base", "on_gpu", "given", "resolved"), [
    ("acme/base", True, "auto", True), ("acme/base", False, "auto", False), ("builtin:tiny", True, "auto", False),
    ("builtin:tiny", False, True, True), ("acme/base", True, False, False),
])  # fmt: skip
def test_the_suite_is_asked_on_a_gpu_and_of_a_base_that_can_answer(
    base: str, on_gpu: bool, given: object, resolved: bool
) -> None:
    values = {"model": {"base": base}, "data": {"train": "t.jsonl"}, "evaluation": {"suite": given}}
    assert with_suite(RunConfig.model_validate(values), on_gpu).suite is resolved


def test_lost_and_gained_items_are_counted() -> None:
    lines = [{"id": str(n), "kind": "k", "messages": [{"role": "user", "content": "?"}], "check": {"number": 1}}
             for n in range(10)]  # fmt: skip
    suite = suite_of(lines)
    base, tuned = [says("1")] * 8 + [says("2")] * 2, [says("1")] * 7 + [says("2")] * 2 + [says("1")]
    found = scored(suite, base, tuned)
    counts = {"total": 10, "base_right": 8, "tuned_right": 8, "kept": 7, "lost": 1, "gained": 1}
    assert {key: found[key] for key in counts} == counts == found["kinds"]["k"]
    assert found["sentence"] == (
        "kept 7 of the 8 general items that the base had right (95% CI 53-98%), lost 1, gained 1 of the other 2; "
        "the change is within chance"
    )
    halves = replace(
        suite, items=tuple(replace(item, kind="odd" if int(item.id) % 2 else "even") for item in suite.items)
    )
    kinds = scored(halves, base, tuned)["kinds"].items()
    by_kind = {kind: (of["total"], of["kept"], of["lost"], of["gained"]) for kind, of in kinds}
    assert by_kind == {"even": (5, 4, 0, 0), "odd": (5, 3, 1, 1)}
    assert scored(suite, [says("1")] * 10, [says("2")] * 10)["change"] == "lost"
    assert scored(suite, [says("2")] * 10, [says("1")] * 10)["sentence"] == (
        "the base had none of 10 general items right, so nothing could be lost; gained 10"
    )
    assert [item["id"] for item in found["items"] if item["base"]["right"] and not item["tuned"]["right"]] == ["7"]


def suite_of(lines: list[dict[str, object]]) -> Suite:
    bundled = read_suite(BUNDLED)
    items = [replace(bundled.items[0], id=str(line["id"]), kind="k", check=Expectation.model_validate(line["check"]))
             for line in lines]  # fmt: skip
    return replace(bundled, items=tuple(items))


GOOD = {"id": "a", "kind": "k", "messages": [{"role": "user", "content": "?"}], "check": {"number": 1}}


@pytest.mark.parametrize(("changed", "word"), [
    ({"check": {}}, "check: got '{}', is empty"),
    ({"check": {"nombre": 1}}, "check.nombre is not known; remove it"),
    ({"check": {"number": "one"}}, "check.number"),
    ({"check": {"letter": "b"}}, "check.letter"),
    ({"check": {"rules": {"lines": 0}}}, "check.rules.lines"),
    ({"check": {"words": []}}, "check.words"),
    ({"check": {"call": {"name": "f"}}}, "check.call.arguments is missing"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "?"}]}, "role 'tool', expected one of system, user, assistant"),
    ({"messages": [{"role": "assistant", "content": "?"}]}, "ends with 'assistant', expected a user's message"),
    ({"tools": [{"name": "f"}]}, "a tool has no function.name"),
    ({"extra": 1}, "extra is not known; remove it"),
    ({"kind": ""}, "kind"),
])  # fmt: skip
def test_a_wrong_line_is_told_with_its_place(tmp_path: Path, changed: dict[str, object], word: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | {"id": "b"} | changed) + "\n")
    with pytest.raises(ConfigError) as caught:
        read_suite(str(file))
    assert word in str(caught.value)
    assert all(problem.startswith(f"{file}:3: ") for problem in caught.value.problems)


def test_a_file_that_is_no_suite_is_told(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    for text, words in (
        (b"", "holds no item"), (b"\xff\xfe", "byte 0 is not UTF-8"), (b"{", f"{file}:1: "),
        ((json.dumps(GOOD) + "\n").encode() * 2, f"{file}:2: id 'a' is that of line 1"),
    ):  # fmt: skip
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=words):
            read_suite(str(file))
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_suite(str(path))
