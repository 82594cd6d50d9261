"""Reading a file: lines and bytes, other layouts, the objects that come out, and no content that could raise."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.read import data_files
from trainer.data.read.data_files import numbered_lines
from trainer.data.read.rows import read_conversations
from trainer.errors import DataError

ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
LINE = json.dumps(ROW).encode()
DEEP = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
TOOL_ROW = {
    "messages": [
        {"role": "system", "content": "Grüße 😀"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
        {"role": "assistant", "content": "Seven.", "refusal": None, "name": "bot"},
    ],
    "tools": [DEEP],
    "parallel_tool_calls": False,
}


@pytest.fixture
def written(tmp_path):
    def write(content: bytes, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def told(path, backend="local", method=None):
    findings = read_conversations(path, backend, method).findings
    return [str(finding).replace(str(path), "FILE") for finding in findings]


def test_a_row_becomes_a_conversation(written):
    path = written(b"\n" + json.dumps(TOOL_ROW).encode())
    assert read_conversations(path).conversations == [
        Conversation(
            messages=(
                Message("system", "Grüße 😀"),
                Message("user", "ab"),
                Message("assistant", None, weight=0, tool_calls=(ToolCall("c1", "find", '{"q": 1}'),)),
                Message("tool", "7", tool_call_id="c1"),
                Message("assistant", "Seven.", name="bot"),
            ),
            tools=(DEEP,),
            file=str(path),
            line=2,
            parallel_tool_calls=False,
        )
    ]


def test_place_and_trained(written):
    path = written(json.dumps(TOOL_ROW).encode())
    row = read_conversations(path).conversations[0]
    assert row.place == f"{path}:1"
    assert [message.trained for message in row.messages] == [False, False, False, False, True]


def test_older_functions_arrive_as_tools(written):
    call = {"name": "find", "arguments": "{}"}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "find", "content": "7"},
        {"role": "assistant", "function_call": call},
        {"role": "function", "name": "find", "content": "8"},
        {"role": "assistant", "content": "Done"},
    ]
    row = read_conversations(written(json.dumps({"messages": messages, "functions": [{"name": "find"}]}).encode()))
    assert row.conversations[0].tools == ({"type": "function", "function": {"name": "find"}},)
    assert row.conversations[0].messages == (
        Message("user", "Hi"),
        Message("assistant", None, tool_calls=(ToolCall("function_call_1", "find", "{}"),)),
        Message("tool", "7", name="find", tool_call_id="function_call_1"),
        Message("assistant", None, tool_calls=(ToolCall("function_call_3", "find", "{}"),)),
        Message("tool", "8", name="find", tool_call_id="function_call_3"),
        Message("assistant", "Done"),
    )


def test_equal_tool_lists_are_kept_once(written):
    rows = read_conversations(written(b"\n".join([json.dumps(TOOL_ROW).encode()] * 3))).conversations
    assert rows[0].tools is rows[1].tools is rows[2].tools


@pytest.mark.parametrize(
    ("content", "lines"),
    {
        "LF": (LINE + b"\n" + LINE + b"\n", [1, 2]),
        "no LF at the end": (LINE + b"\n" + LINE, [1, 2]),
        "CRLF": (LINE + b"\r\n" + LINE + b"\r\n", [1, 2]),
        "byte order mark": (b"\xef\xbb\xbf" + LINE + b"\n" + LINE, [1, 2]),
        "blank lines": (b"\n\r\n" + LINE + b"\n \t\n" + LINE + b"\n\n\n", [3, 5]),
        "white space around": (b"  " + LINE + b" \t\n" + LINE, [1, 2]),
        "line separator inside a string": (LINE.replace(b"Hi", "a\u2028b\x85".encode()) + b"\n" + LINE, [1, 2]),
    }.values(),
)
def test_rows_keep_the_line_numbers_of_an_editor(written, content, lines):
    report = read_conversations(written(content))
    assert [row.line for row in report.conversations] == lines
    assert report.findings == []
    assert report.rows == 2


ENCODINGS = {
    "UTF-16 with mark": (("\ufeff" + LINE.decode()).encode("utf-16-le"), "FILE:1: ENCODING: the file is UTF-16"),
    "UTF-16 big endian": (("\ufeff" + LINE.decode()).encode("utf-16-be"), "FILE:1: ENCODING: the file is UTF-16"),
    "UTF-16 without mark": (LINE.decode().encode("utf-16-le"), "FILE:1: ENCODING: the file is UTF-16"),
    "UTF-32": (("\ufeff" + LINE.decode()).encode("utf-32-le"), "FILE:1: ENCODING: the file is UTF-32"),
    "Latin-1": (
        LINE + b"\n" + LINE.replace(b"Hi", b"caf\xe9"),
        "FILE:2:47: ENCODING: the row holds the byte 0xe9 at byte offset 139, which is not UTF-8",
    ),
    "characters before the byte": (
        LINE.replace(b"Hi", "Grüße ".encode() + b"\xff"),
        "FILE:1:50: ENCODING: the row holds the byte 0xff at byte offset 51, which is not UTF-8",
    ),
    "byte order mark counts": (
        b"\xef\xbb\xbf" + LINE.replace(b"Hi", b"\xff"),
        "FILE:1:44: ENCODING: the row holds the byte 0xff at byte offset 46, which is not UTF-8",
    ),
    "encoded surrogate": (
        LINE.replace(b"Hi", b"\xed\xa0\x80"),
        "FILE:1:44: ENCODING: the row holds the byte 0xed at byte offset 43, which is not UTF-8",
    ),
    "overlong slash": (
        LINE.replace(b"Hi", b"\xc0\xaf"),
        "FILE:1:44: ENCODING: the row holds the byte 0xc0 at byte offset 43, which is not UTF-8",
    ),
    "NUL in a string": (LINE.replace(b"Hi", b"H\0"), "FILE:1: ENCODING: the row holds a NUL byte at byte offset 44"),
    "NULs at the end": (
        LINE + b"\n" + b"\0" * 512,
        "FILE:2: ENCODING: the row holds 512 NUL bytes, the first at byte offset 93",
    ),
    "second byte order mark": (
        LINE + b"\n\xef\xbb\xbf" + LINE,
        "FILE:2:1: ENCODING: the row holds a byte order mark (U+FEFF)",
    ),
}


@pytest.mark.parametrize(("content", "expected"), ENCODINGS.values(), ids=ENCODINGS)
def test_encoding_mistakes_name_line_and_byte(written, content, expected):
    findings = told(written(content))
    assert len(findings) == 1
    assert findings[0].startswith(expected)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", LINE + b"\n", b"\n" + LINE + b"\r\n"])
def test_the_byte_offset_of_half_a_character_is_that_in_the_file(written, before):
    content = before + LINE.replace(b"Hi", "Grüße \\ud83d".encode())
    (finding,) = told(written(content))
    assert finding.partition(", expected")[0].endswith(
        f"the lone surrogate \\ud83d at byte offset {content.index(b'ud83d') - 1}"
    )


PRETTY = json.dumps(ROW, indent=2).encode()
SHAREGPT = b'{"conversations": [{"from": "human", "value": "Hi"}]}'
TEXT = "expected chat JSONL in UTF-8"
CONVERT = f"{TEXT}; run: trainer data convert FILE"
SHAPES = {
    "array on one line": (b"[" + LINE + b", " + LINE + b"]", f"is one JSON array, {CONVERT}"),
    "array of one line longer than the head": (
        b"[" + b", ".join([LINE] * 2000) + b"]",
        f"is one JSON array, {CONVERT}",
    ),
    "array, a row a line": (b"[\n" + LINE + b",\n" + LINE + b"\n]", f"is one JSON array, {CONVERT}"),
    "array, one row": (b"[\n" + LINE + b"\n]\n", f"is one JSON array, {CONVERT}"),
    "array that opens beside its first row": (b"[" + LINE + b",\n" + LINE + b"]", f"is one JSON array, {CONVERT}"),
    "array, indented": (json.dumps([ROW, ROW], indent=1).encode(), f"is one JSON array, {CONVERT}"),
    "array with byte order mark": (b"\xef\xbb\xbf[\r\n" + LINE + b"\r\n]", f"is one JSON array, {CONVERT}"),
    "array of other rows": (b"[" + SHAREGPT + b"]", f"is one JSON array, {CONVERT}"),
    "pretty-printed": (PRETTY, f"is pretty-printed JSON, spread over many lines, {CONVERT}"),
    "pretty-printed rows": (PRETTY + b"\n" + PRETTY, f"is pretty-printed JSON, spread over many lines, {CONVERT}"),
    "CSV": (b"prompt,completion\nHi,Hello\n", f"is a table (CSV), {CONVERT}"),
    "TSV": (b"question\tanswer\nHi\tHello\n", f"is a table (CSV), {CONVERT}"),
    "CSV with quotes": (b'"user message";"answer"\n"Hi";"Hello"\n', f"is a table (CSV), {CONVERT}"),
    "gzip": (b"\x1f\x8b\x08\0\0\0", f"is gzip-compressed, {TEXT}; unpack it with gunzip"),
    "a zip archive": (b"PK\x03\x04\0\0", f"is a zip archive, {TEXT}; unpack it"),
    "Excel": (b"PK\x03\x04\0\0xl/workbook.xml", f"is an Excel workbook, {CONVERT}"),
    "rows in an object": (
        b'{"version": 1, "data": [{"messages": []}]}',
        f"is one JSON object that holds the rows, {CONVERT}",
    ),
    "a table whose delimiter Excel names": (b"sep=;\nq;a\n", f"is a table (CSV), {CONVERT}"),
    "a column of messages": (b'messages\n"[]"\n', f"is a table (CSV), {CONVERT}"),
    "Parquet": (b"PAR1\0\0", f"is a Parquet file, {CONVERT}"),
    "ShareGPT": (
        b"\n".join([SHAREGPT] * 3),
        "holds rows of the ShareGPT layout, expected rows with messages; run: trainer data convert FILE",
    ),
    "Alpaca": (
        b'{"instruction": "Greet.", "input": "", "output": "Hello"}\n' * 3,
        "holds rows of the Alpaca layout, expected rows with messages; run: trainer data convert FILE",
    ),
}


@pytest.mark.parametrize(("content", "expected"), SHAPES.values(), ids=SHAPES)
def test_another_format_is_one_finding_for_the_file(written, content, expected):
    assert told(written(content)) == [f"FILE: FORMAT: the file {expected}"]


def test_preference_file_is_one_finding(written):
    line = b'{"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}\n'
    assert told(written(line * 5), method="sft") == [
        (
            "FILE: PREFERENCE: the file holds rows of the preference format, expected rows with messages; "
            "train with training.method=dpo, or for the preferred answers alone run: trainer data convert FILE"
        )
    ]


@pytest.mark.parametrize(
    ("content", "code_lines"),
    {
        "first row cut off": (LINE[:40] + b"\n" + LINE + b"\n" + LINE, [("JSON", 1)]),
        "first row broken by a line end": (LINE.replace(b"Hi", b"H\ni") + b"\n" + LINE, [("JSON", 1), ("JSON", 2)]),
        "only row broken by a line end": (LINE.replace(b"Hi", b"H\ni"), [("JSON", 1), ("JSON", 2)]),
        "first rows damaged": (LINE[:14] + b"\n} \n" + LINE, [("JSON", 1), ("JSON", 2)]),
        "list cut off before a good row": (b"[" + LINE[:14] + b"\n" + LINE, [("JSON", 1)]),
        "both rows cut off": (LINE[:-1] + b"\n" + LINE[:-1], [("JSON", 1), ("JSON", 2)]),
        "only row cut off": (LINE[:-2], [("JSON", 1)]),
        "rows are lists": (b"[1]\n[2]\n", [("ROW", 1), ("ROW", 2)]),
        "one list of numbers": (b"[1]", [("ROW", 1)]),
        "list row before a good one": (b"[" + LINE + b"]\n" + LINE, [("ROW", 1)]),
        "other rows among chat rows": (LINE + b"\n" + SHAREGPT + b"\n" + SHAREGPT, [("FORMAT", 2), ("FORMAT", 3)]),
        "prose": (b"Hello, world\n", [("JSON", 1)]),
    }.values(),
)
def test_damaged_rows_are_not_taken_for_another_format(written, content, code_lines):
    assert [(finding.code, finding.line) for finding in read_conversations(written(content)).findings] == code_lines


def test_empty_files(written):
    assert told(written(b"")) == ["FILE: NO_ROWS: the file is empty, expected chat rows; check the path"]
    assert told(written(b"\n \r\n")) == [
        "FILE: NO_ROWS: the file holds only blank lines, expected chat rows; check the path"
    ]
    assert told(written(b"\xef\xbb\xbf"))[0].startswith("FILE: NO_ROWS:")


def test_metadata_is_told_once_a_file(written):
    line = json.dumps(ROW | {"metadata": {}}).encode()
    report = read_conversations(written(b"\n".join([LINE, line, line, line])))
    assert [str(finding).split(": ", 1)[1] for finding in report.findings] == [
        "METADATA: the row has metadata, as have 2 more, expected none, since it is ignored; nothing needs to be done"
    ]
    assert len(report.conversations) == 4


def test_findings_are_ordered_by_line(written):
    line = json.dumps(ROW | {"metadata": {}}).encode()
    path = written(b"\n".join([b"{", LINE, SHAREGPT, line, b"7"]))
    assert [finding.line for finding in read_conversations(path).findings] == [1, 3, 4, 5]


def test_a_finding_as_json(written):
    path = written(LINE + b"\n{")
    assert [finding.to_json() for finding in read_conversations(path).findings] == [
        {
            "file": str(path),
            "line": 2,
            "code": "JSON",
            "severity": "error",
            "where": "the row",
            "found": "ends inside an object",
            "accepted": "a closing '}'",
            "fix": "the line is cut off: write the whole row on one line",
            "column": 2,
        }
    ]


def test_nothing_in_a_file_or_its_name_can_steer_a_terminal(written):
    escape = "\x1b[31m\u202e\u0007"
    path = written(json.dumps({"messages": [{"role": escape, escape: escape}], escape: 1}).encode(), f"{escape}.jsonl")
    for finding in read_conversations(path).findings:
        assert str(finding).isprintable()
    with pytest.raises(DataError) as caught:
        read_conversations(path.with_name(f"{escape}2.jsonl"))
    assert str(caught.value).isprintable()


def test_counts_and_raise_on_errors(written):
    path = written(b"7\n8\n" + json.dumps(ROW | {"metadata": 1}).encode())
    report = read_conversations(path)
    assert report.counts == {"ROW": 2, "METADATA": 1}
    assert report.severities == {"error": 2, "warning": 1}
    with pytest.raises(DataError) as caught:
        report.raise_on_errors()
    assert len(caught.value.problems) == 2
    read_conversations(written(LINE)).raise_on_errors()


def test_more_than_20_errors_are_counted(written):
    with pytest.raises(DataError, match=r"… and 5 more$"):
        read_conversations(written(b"7\n" * 25)).raise_on_errors()


def test_missing_file_names_the_one_that_was_meant(written):
    path = written(LINE, "train.jsonl")
    meant = path.with_name("trian.jsonl")
    with pytest.raises(DataError) as caught:
        read_conversations(meant)
    assert str(caught.value) == f"{meant}: the file does not exist, expected a chat JSONL file; did you mean {path}?"


def test_missing_directory(tmp_path):
    path = tmp_path / "none" / "train.jsonl"
    with pytest.raises(DataError) as caught:
        read_conversations(path)
    assert str(caught.value).endswith(f"; check the path, the directory {path.parent} does not exist")


def test_directory_names_a_file_in_it(written):
    path = written(LINE, "train.jsonl")
    with pytest.raises(DataError) as caught:
        read_conversations(path.parent)
    text = f"{path.parent}: the file is a directory, expected a chat JSONL file; did you mean {path}?"
    assert str(caught.value) == text


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    with pytest.raises(DataError, match="is not a regular file"):
        read_conversations(path)


def test_unreadable_file(written, monkeypatch):
    path = written(LINE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\), expected a chat JSONL file; check"):
        read_conversations(path)


def test_impossible_path():
    with pytest.raises(DataError, match=r"cannot be read|does not exist"):
        read_conversations(Path("a\0b.jsonl"))


def test_long_line_is_skipped_and_its_bytes_are_counted(written):
    with written(b"a" * 25 + b"\n" + b"b\n" + b"c" * 10 + b"\n" + b"d" * 30).open("rb") as file:
        lines = list(numbered_lines(file, limit=10))
    assert [(line.number, line.offset, line.whole) for line in lines] == [
        (1, 0, False),
        (2, 26, True),
        (3, 28, False),
        (4, 39, False),
    ]


def test_long_line_is_a_finding(written, monkeypatch):
    monkeypatch.setattr(data_files.numbered_lines, "__defaults__", (200,))
    path = written(b'{"a": "' + b"a" * 300 + b'"}\n' + LINE)
    assert told(path) == [
        (
            "FILE:1: LONG_LINE: the row is longer than 128 MiB, expected at most 128 MiB; "
            "put every row on a line of its own"
        )
    ]
    assert [row.line for row in read_conversations(path).conversations] == [2]


def test_memory_does_not_grow_with_rows_that_are_not_kept(written):
    path = written((json.dumps({"messages": "x" * 10_000}).encode() + b"\n") * 2000)
    tracemalloc.start()
    read_conversations(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < path.stat().st_size / 5


GOOD_FILE = b"\n".join([LINE, json.dumps(TOOL_ROW).encode(), json.dumps(TOOL_ROW, ensure_ascii=False).encode(), LINE])
INSERTED = [
    b"",
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
mutations = st.lists(
    st.tuples(
        st.integers(0, len(GOOD_FILE)),
        st.integers(0, 12),
        st.one_of(
            st.sampled_from([*INSERTED, b"null", b"NaN", b"1e999", b"\\ud800", b"-", b"7"]), st.binary(max_size=3)
        ),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(mutations, st.sampled_from(["local", "azureml", "openai"]))
@pytest.mark.apart
def test_damaged_files_never_raise_and_findings_name_lines_that_exist(tmp_path, changes, backend):
    content = bytearray(GOOD_FILE)
    for at, num_removed, inserted in changes:
        content[at : at + num_removed] = inserted
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(content)
    report = read_conversations(path, backend)
    lines = bytes(content).split(b"\n")
    for finding in report.findings:
        assert finding.line is None or 1 <= finding.line <= len(lines)
        assert finding.column is None or finding.column <= len(lines[finding.line - 1]) + 1
        assert str(finding).isprintable()
        json.dumps(finding.to_json())
    order = [finding.line or 0 for finding in report.findings]
    assert order == sorted(order)
    bad_lines = {finding.line for finding in report.findings if finding.severity == "error"}
    assert not bad_lines & {row.line for row in report.conversations}
    assert not report.rows or None in bad_lines or len(report.conversations) + len(bad_lines) == report.rows


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-2, 2)
        | st.text(max_size=4)
        | st.sampled_from(["user", "assistant", "tool"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "role",
                        "content",
                        "tools",
                        "function",
                        "tool_calls",
                        "type",
                        "name",
                        "weight",
                        "id",
                        "arguments",
                        "parameters",
                        "functions",
                        "function_call",
                        "tool_call_id",
                        "text",
                        "metadata",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=25,
    ),
    st.sampled_from(["local", "openai"]),
)
@pytest.mark.apart
def test_rows_of_any_shape_never_raise(tmp_path, value, backend):
    path = tmp_path / "any.jsonl"
    messages = value if isinstance(value, list) else [value]
    rows = [value, {"messages": messages}, {"messages": [{"role": "assistant", "content": "a", "tool_calls": value}]}]
    rows += [{"messages": [{"role": "user", "content": value}], "tools": value, "functions": value}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = read_conversations(path, backend)
    assert len(report.conversations) == report.rows - len({f.line for f in report.errors if f.line}) or None in {
        finding.line for finding in report.errors
    }


def test_an_error_that_a_conversion_repairs_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    rows = [
        {"messages": [user, answer], "tools": json.dumps([{"type": "function", "function": {"name": "f"}}])},
        {"messages": [user | {"name": None}, answer]},
        {"messages": [user, answer], "weigth": 0},
        {"messages": [user]},
    ]
    Path("my rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = {found.line: found.fix for found in read_conversations(Path("my rows.jsonl")).errors}
    command = ", or run: trainer data convert 'my rows.jsonl'"
    assert {line: fix.endswith(command) for line, fix in told.items()} == {1: True, 2: True, 3: False, 4: False}
