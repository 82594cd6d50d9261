"""What is JSON, and where and why a text is not: held against the standard library's strict parser."""

import json
import time
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.json_scanner import JsonProblem, find_problem
from trainer.data.strict_json import parse

MALFORMED = {
    "empty": ("", 1, "is empty"),
    "trailing comma in object": ('{"a":1,}', 8, "has a comma before '}'"),
    "trailing comma in list": ("[1, ]", 5, "has a comma before ']'"),
    "two commas": ('{"a":1,,}', 8, "holds ',' in an object"),
    "leading comma": ("[,1]", 2, "holds ',' in a list"),
    "missing comma in object": ('{"a":1 "b":2}', 8, "has no comma before '\"'"),
    "missing comma in list": ("[1 2]", 4, "has no comma before '2'"),
    "missing colon": ('{"a" 1}', 6, "holds '1' in an object"),
    "missing value": ('{"a":}', 6, "holds '}' in an object"),
    "second colon": ('{"a":1:2}', 7, "holds ':' in an object"),
    "key is a number": ("{1:2}", 2, "holds '1' in an object"),
    "key without quotes": ("{role:1}", 2, "holds the bare word 'role'"),
    "wrong closing mark": ('{"a":[1}', 8, "holds '}' in a list"),
    "closed too often": ('{"a":1}}', 8, "continues with '}' after its end"),
    "second object": ('{"a":1} {"b":2}', 9, "continues with '{' after its end"),
    "cut off in a string": ('{"a":"b', 6, "ends inside a string"),
    "cut off after a key": ('{"a"', 5, "ends inside an object"),
    "cut off in a list": ("[1,", 4, "ends inside a list"),
    "cut off in an escape": ('"\\', 2, "holds the escape '\\\\'"),
    "single quotes": ("{'a':1}", 2, 'holds the quote "\'"'),
    "typographic quotes": ("{“a”:1}", 2, "holds the quote '“'"),
    "unescaped quote in text": ('{"a":"say "hi" now"}', 12, "continues with 'hi' after a value"),
    "comment": ('{"a":1} // x', 9, "holds '/'"),
    "hash comment": ("# rows", 1, "holds '#'"),
    "NaN": ('{"a":NaN}', 6, "holds the number NaN"),
    "-Infinity": ("[-Infinity]", 2, "holds the number -Infinity"),
    "1e999": ("[1e999]", 2, "holds the number 1e999"),
    "2**63": ("[9223372036854775808]", 2, "holds the number 9223372036854775808"),
    "5000 digits": (f"[{'9' * 5000}]", 2, f"holds the number {'9' * 59}…"),
    "leading zero": ("[01]", 2, "holds the number 01"),
    "plus sign": ("[+1]", 2, "holds the number +1"),
    "dot at the end": ("[1.]", 2, "holds the number 1."),
    "dot at the start": ("[.5]", 2, "holds the number .5"),
    "digits of another script": ("[٣]", 2, "holds '٣' outside a string"),
    "None": ('{"a":None}', 6, "holds the word None"),
    "True": ("[True]", 2, "holds the word True"),
    "undefined": ("[undefined]", 2, "holds the word undefined"),
    "word goes on": ("[nullx]", 2, "holds the bare word 'nullx'"),
    "tab in a string": ('"a\tb"', 3, "holds the control character U+0009 inside a string"),
    "escape character in a string": ('"\x1b[31m"', 2, "holds the control character U+001B inside a string"),
    "unknown escape": ('"\\d"', 2, "holds the escape '\\\\d'"),
    "short unicode escape": ('"\\u12"', 2, "holds the escape '\\\\u'"),
    "high surrogate alone": ('"a\\ud83d"', 3, "holds half of a character, the lone surrogate \\ud83d"),
    "low surrogate alone": ('"\\ude00"', 2, "holds half of a character, the lone surrogate \\ude00"),
    "surrogates swapped": ('"\\ude00\\ud83d"', 2, "holds half of a character, the lone surrogate \\ude00"),
    "lone surrogate in a key": ('{"\\ud83d":1}', 3, "holds half of a character, the lone surrogate \\ud83d"),
    "duplicate key": ('{"a":1,"a":2}', 8, "has the key 'a' twice in one object"),
    "duplicate key, one escaped": ('{"a":1,"\\u0061":2}', 8, "has the key 'a' twice in one object"),
    "duplicate key below": ('[{"a":{"b":1,"b":1}}]', 14, "has the key 'b' twice in one object"),
    "65 lists deep": ("[" * 65 + "]" * 65, 65, "is nested deeper than 64"),
    "100000 lists deep": ("[" * 100_000, 65, "is nested deeper than 64"),
    "65 objects deep": ('{"a":' * 65 + "1" + "}" * 65, 321, "is nested deeper than 64"),
    "byte order mark": ("\ufeff{}", 1, "holds a byte order mark (U+FEFF)"),
    "no-break space": ("\xa0{}", 1, "holds '\\xa0' outside a string"),
    "other text": ("hello", 1, "holds the bare word 'hello'"),
}


@pytest.mark.parametrize(("text", "column", "found"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_named_with_its_column(text, column, found):
    problem = parse(text)
    assert isinstance(problem, JsonProblem)
    assert (problem.column, problem.found) == (column, found)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -0, 1.5e-3, true, false, null, "\\u00e9\\n\\"\\\\"]}',
        "[" * 64 + "]" * 64,
        '["\\ud83d\\ude00", "\\\\ud83d", "\\u0000"]',
        "[9223372036854775807, -9223372036854775808]",
        '[{"a": 1}, {"a": 2}]',
        '["{[", "]}", "\\":"]' + " \t\r",
        json.dumps([[{}]] * 100),
    ],
)
def test_valid_json_is_read_as_the_standard_library_reads_it(text):
    assert parse(text) == json.loads(text)
    assert find_problem(text) is None


def strict_loads(text: str) -> Any:
    """The standard library's parser with the same refusals, written another way."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    def refuse(word: str) -> NoReturn:
        raise ValueError(word)

    value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


fragments = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"',
            "\\",
            "a",
            '"a"',
            '"b"',
            " ",
            "\t",
            "1",
            "-",
            ".",
            "e",
            "0",
            "true",
            "null",
            "NaN",
            "Infinity",
            "\\u",
            "d83d",
            "de00",
            "\\n",
            "\x00",
            "\x1f",
            "\x7f",
            "é",
            "'",
            "//",
            "\ufeff",
        ]
    ),
    max_size=14,
).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\\\"", max_size=2), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
damaged = st.builds(
    lambda text, at, piece, cut: text[: at % (len(text) + 1)] + piece + text[at % (len(text) + 1) + cut :],
    values.map(json.dumps),
    st.integers(0, 10**6),
    st.sampled_from(["", "{", "}", '"', ",", ":", "\\", "1", "\\ud800", " ", "x"]),
    st.integers(0, 3),
)


@given(st.one_of(fragments, damaged))
def test_accepts_exactly_what_strict_json_accepts(text):
    try:
        expected = strict_loads(text)
    except ValueError:
        assert isinstance(parse(text), JsonProblem)
    else:
        assert parse(text) == expected


@given(st.one_of(fragments, damaged))
def test_scanner_and_parser_agree_and_columns_lie_in_the_text(text):
    value, problem = parse(text), find_problem(text)
    assert isinstance(value, JsonProblem) == (problem is not None)
    assert problem is None or 1 <= problem.column <= len(text) + 1


@given(values, st.booleans())
def test_what_json_writes_is_read_back(value, ascii_only):
    assert parse(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize(
    "text", ['"' + "a" * 10**7, '"' + "\\n" * 10**6, "[" + "1," * 10**6, '{"a":"' + 'x\\"' * 10**6]
)
@pytest.mark.apart
def test_long_malformed_lines_take_linear_time(text):
    start = time.process_time()
    assert isinstance(parse(text), JsonProblem)
    assert time.process_time() - start < 10
