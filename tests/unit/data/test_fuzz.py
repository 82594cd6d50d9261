"""Damaged rows by the million: nothing escapes, what is accepted can be trained, JSON is what the standard says."""

import json
import os
import random
import re
import tracemalloc
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.families import family_tokenizer
from trainer.data.conversations import Conversation
from trainer.data.json_scanner import JsonProblem
from trainer.data.read.checks import DataReport, check_files
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError
from trainer.data.strict_json import parse

pytestmark = pytest.mark.apart

ROOT = Path(__file__).parents[3]
FAMILIES = ("qwen-2.5", "llama-3.1", "mistral-nemo", "qwen-3", "gpt-oss")
BATCH = 2000
LONG_ROWS = 1_000_000
LONG_PARTS = 20

SPLICED = [
    b"\0",
    b"\n",
    b"\r\n",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
]
SPLICED += [b"null", b"true", b"NaN", b"1e999", b"-0", b"\\ud800", b"\\u0000", b"<|im_end|>", b"\x1b[31m", b"\xc3\xa9"]
WORDS = [b'"role"', b'"content"', b'"messages"', b'"system"', b'"user"', b'"assistant"', b'"tool"', b'"tool_calls"']
WORDS += [
    b'"tools"',
    b'"weight"',
    b'"name"',
    b'"id"',
    b'"type"',
    b'"function"',
    b'"arguments"',
    b'"parameters"',
    b"1",
    b"0",
]


NUMBERS = [b"1e999", b"-1e-999", b"NaN", b"9223372036854775808", b"-9223372036854775808", b"0.1", b"01"]

# Why rows that break no rule of the format are refused by one of these templates, and by no other reason.
REFUSALS = re.compile(
    r"a control token of this model|is an answer to nothing|joins the end of the prompt|is dropped or rewritten|"
    r"left out by this model's|changes the answer: .+ is not in|supports single tool-calls|no first user message|"
    r"a system message must stand first"
)


@cache
def real_lines() -> tuple[bytes, ...]:
    """The rows of the sample files, and of those beside the project where they are."""
    files = sorted((ROOT / "data").glob("*.jsonl"))
    if folder := os.environ.get("TRAINER_SAMPLE_DATA"):
        files += sorted(Path(folder).rglob("*.jsonl"))
    return tuple(line for file in files for line in file.read_bytes().split(b"\n") if line and len(line) < 8000)


def mutated(line: bytes, chance: random.Random) -> bytes:
    """The line with one to four things done to it that editors, programs and disks do to bytes."""
    content = bytearray(line)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(content) + 1)
        length = chance.choice((0, 1, 1, 2, 8, 40))
        match chance.randrange(8):
            case 0:
                content[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del content[at : at + length]
            case 2:
                content[at:at] = content[at : at + length * 4]
            case 3:
                del content[at:]
            case 4:
                content[at : at + length] = chance.choice(SPLICED)
            case 5:
                other = chance.choice(real_lines())
                content[at:] = other[chance.randrange(len(other)) :]
            case _:  # a word becomes another one
                word = chance.choice(WORDS)
                if (found := content.find(word, at)) >= 0:
                    content[found : found + len(word)] = chance.choice(WORDS + NUMBERS)
    return bytes(content)


def mutated_file(path: Path, seed: int) -> list[bytes]:
    """A batch of damaged rows behind a good one, by which the file is known as chat JSONL; the lines of an editor."""
    chance = random.Random(seed)
    lines = [mutated(chance.choice(real_lines()), chance) for _ in range(BATCH)]
    path.write_bytes(b"\n".join([real_lines()[-1], *lines]))
    return path.read_bytes().split(b"\n")


# What must hold


@cache
def renderer(name: str) -> Renderer:
    return Renderer(family_tokenizer(name))


def check_report(report: DataReport, lines: list[bytes]) -> None:
    """Each row is a conversation or has an error; findings can be shown and name places that exist."""
    for finding in report.findings:
        assert finding.line is None or 1 <= finding.line <= len(lines)
        assert finding.column is None or 1 <= finding.column <= len(lines[finding.line - 1]) + 1
        assert str(finding).isprintable()
    with_errors = {finding.line for finding in report.errors}
    accepted = {row.line for row in report.conversations}
    assert not with_errors & accepted
    assert None in with_errors or len(with_errors) + len(accepted) == report.rows


def check_trainable(conversation: Conversation, made: Renderer) -> bool:
    """Whether an accepted row is rendered; each trained answer then ends with an end marker that is trained."""
    try:
        examples = made.render(conversation)
    except RenderingError as error:
        assert REFUSALS.search(str(error)), f"{conversation.place}: {error}"  # noqa: PT017
        return False
    answers = sum(message.trained for message in conversation.messages)
    assert sum(len(list(trained_ends(example))) for example in examples) == answers >= 1
    assert all(token in made.end_markers for example in examples for token in trained_ends(example))
    return True


def trained_ends(example: Example) -> Iterator[int]:
    """The last token of each stretch of trained tokens."""
    for label, following in pairwise((*example.labels, IGNORE_INDEX)):
        if label != IGNORE_INDEX and following == IGNORE_INDEX:
            yield label


class RefusedError(ValueError):
    """What the standard library's parser takes, and this format does not."""


def by_the_standard_library(line: bytes) -> Any:
    """The value of a line, by json.loads and the format's own limits, written another way than the reader."""
    if b"\0" in line:
        raise RefusedError("NUL")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise RefusedError("duplicate key")
        return dict(pairs)

    def refuse(word: str) -> NoReturn:
        raise RefusedError(word)

    value = json.loads(line.decode(), object_pairs_hook=unique, parse_constant=refuse)
    written = json.dumps(value, ensure_ascii=False, allow_nan=False)  # ValueError for what overflowed to infinity
    written.encode()  # ValueError for half a character
    if depth(value) > 64 or any(not -(2**63) <= number < 2**63 for number in integers(value)):
        raise RefusedError("limits")
    return value


def depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def integers(value: Any) -> Iterator[int]:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        if type(inner) is int:
            yield inner
        elif isinstance(inner, dict | list):
            yield from integers(inner)


def check_json(line: bytes) -> None:
    """The reader and the standard library accept the same lines, with the same value."""
    try:
        expected = by_the_standard_library(line)
    except ValueError:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return
        assert b"\0" in line or isinstance(parse(text), JsonProblem), line
    else:
        assert repr(parse(line.decode())) == repr(expected), line


def check_batch(path: Path, seed: int) -> tuple[int, int]:
    """How many damaged rows of a batch were accepted, and how many of them could be rendered."""
    lines = mutated_file(path, seed)
    report = check_files([path], backend=("local", "azureml", "openai")[seed % 3])
    check_report(report, lines)
    made = renderer(FAMILIES[seed % len(FAMILIES)])
    num_rendered = sum(check_trainable(conversation, made) for conversation in report.conversations)
    for line in lines:
        check_json(line.removesuffix(b"\r"))
    return len(report.conversations), num_rendered


@pytest.mark.parametrize("seed", range(5))
def test_damaged_rows_of_real_files(tmp_path, seed):
    num_accepted, num_rendered = check_batch(tmp_path / "rows.jsonl", seed)
    assert 50 < num_rendered <= num_accepted < BATCH  # else the damage says little


@pytest.mark.long
@pytest.mark.parametrize("part", range(LONG_PARTS))
def test_a_million_damaged_rows_of_real_files(tmp_path, part):
    batches = LONG_ROWS // LONG_PARTS // BATCH
    for number in range(batches):
        check_batch(tmp_path / "rows.jsonl", 1000 + part * batches + number)


@pytest.mark.parametrize("seed", range(2))
def test_memory_is_bounded_by_the_size_of_the_file(tmp_path, seed):
    path = tmp_path / "rows.jsonl"
    mutated_file(path, 500 + seed)
    tracemalloc.start()
    check_files([path], keep_rows=False, max_findings=20)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * path.stat().st_size + 2_000_000


# Valid conversations, and what becomes of them when their structure is broken

characters = st.characters(codec="utf-8", exclude_characters="<>[]|｜")  # noqa: RUF001  # no control tokens
texts = st.text(characters, min_size=1, max_size=20).map(str.strip).filter(bool)
contents = texts | st.lists(texts, min_size=1, max_size=2).map(lambda ts: [{"type": "text", "text": t} for t in ts])
names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
json_values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts | st.lists(texts, max_size=2)
arguments = st.dictionaries(texts, json_values, max_size=3).map(json.dumps)


@st.composite
def valid_rows(draw: st.DrawFn) -> dict[str, Any]:
    """Rows as the format allows them: system prompts, several turns, parts, weights, calls of several tools."""
    tools = draw(st.lists(names, max_size=3, unique=True))
    role = draw(st.sampled_from([None, "system", "developer"]))
    messages = [{"role": role, "content": draw(contents)}] if role else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(contents)})
        if tools and draw(st.booleans()):
            messages += draw(called(tools, turn))
        weight = {"weight": draw(st.integers(0, 1))} if draw(st.booleans()) else {}
        messages.append({"role": "assistant", "content": draw(contents)} | weight)
    if all(message.get("weight", 1) == 0 for message in messages if message["role"] == "assistant"):
        del messages[-1]["weight"]
    offered = [{"type": "function", "function": {"name": name, "description": "d"}} for name in tools]
    return {"messages": messages} | ({"tools": offered} if offered else {})


@st.composite
def called(draw: st.DrawFn, tools: list[str], turn: int) -> list[dict[str, Any]]:
    """A message that calls some tools, and their answers in any order."""
    used = draw(st.lists(st.sampled_from(tools), min_size=1, max_size=2))
    functions = [{"name": name, "arguments": draw(arguments)} for name in used]
    calls = [
        {"id": f"call_{turn}_{number}", "type": "function", "function": function}
        for number, function in enumerate(functions)
    ]
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": draw(contents)} for call in calls]
    return [{"role": "assistant", "tool_calls": calls}, *draw(st.permutations(answers))]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a value with each of its keys or indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


@st.composite
def broken_rows(draw: st.DrawFn) -> Any:
    """A valid row of which one or two places are removed, renamed, doubled, swapped or replaced."""
    row = draw(valid_rows())
    for _ in range(draw(st.integers(1, 2))):
        found = list(places(row))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        other, other_key = draw(st.sampled_from(found))
        match draw(st.integers(0, 4)):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[f"{key}s"] = container.pop(key)
            case 1 | 2:
                container[key] = draw(json_values)
            case 3 if isinstance(container, list):
                container.append(container[key])
            case _:
                container[key] = json.loads(json.dumps(other[other_key]))
    return row


def report_of(path: Path, row: Any, backend: str = "local") -> DataReport:
    path.write_text(json.dumps(row) + "\n" + json.dumps({"messages": 1}), encoding="utf-8")
    report = check_files([path], backend=backend)
    check_report(report, path.read_bytes().split(b"\n"))
    return report


fuzzing = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@fuzzing
@given(valid_rows(), st.sampled_from(["local", "azureml", "openai"]))
def test_valid_rows_are_accepted_and_rendered(tmp_path, row, backend):
    report = report_of(tmp_path / "rows.jsonl", row, backend)
    assert {finding.line for finding in report.errors} - {None} == {2}
    assert check_trainable(report.conversations[0], renderer("qwen-2.5"))


@fuzzing
@given(broken_rows(), st.sampled_from(["local", "openai"]), st.sampled_from(FAMILIES))
def test_rows_of_broken_structure_are_told_or_trainable(tmp_path, row, backend, family):
    for conversation in report_of(tmp_path / "rows.jsonl", row, backend).conversations:
        if not any(message.images for message in conversation.messages):
            check_trainable(conversation, renderer(family))
