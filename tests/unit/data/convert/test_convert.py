"""Every recognized layout becomes chat JSONL that has no error, and no row or key goes without a word."""

import json
from collections import Counter
from pathlib import Path

import pytest

from trainer.data.convert import encoding
from trainer.data.convert.files import Skipped, convert_file, default_output
from trainer.data.layouts.columns import Columns, parse_columns
from trainer.data.read.rows import read_conversations
from trainer.errors import ConfigError, DataError

ROOT = Path(__file__).parents[4]
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
PREFERRED = [{"role": "assistant", "content": "Hello"}]


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(content, name="FILE"):
        path = Path(name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def converted(source, **options):
    """The rows of the new file."""
    conversion = convert_file(source, **options)
    text = conversion.output.read_text(encoding="utf-8")
    assert text.count("\n") == conversion.num_written
    return [json.loads(line) for line in text.splitlines()]


ONE_ROW = {
    "one array": json.dumps([{"messages": HI}]),
    "an array of lists of messages": json.dumps([HI, HI], indent=1),
    "an indented array": json.dumps([{"messages": HI}], indent=2),
    "pretty-printed objects": json.dumps({"messages": HI}, indent=2),
    "chat rows": lines({"messages": HI}),
    "lists of messages": lines(HI, HI),
    "ShareGPT": lines(SHAREGPT),
    "Alpaca": lines({"instruction": "Hi", "input": "", "output": "Hello"}),
    "prompt and completion": lines({"prompt": "Hi", "completion": "Hello"}),
    "a preference of the service": lines(
        {"input": {"messages": HI[:1]}, "preferred_output": PREFERRED, "non_preferred_output": PREFERRED}
    ),
    "a preference of texts": lines({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}),
    "a preference of conversations": lines({"chosen": HI, "rejected": HI}),
    "CSV": "prompt,answer\nHi,Hello\n",
    "CSV with a byte order mark, CRLF and quotes": '\ufeff"Question";"Response"\r\n"Hi";"Hello"\r\n',
    "TSV": "question\tanswer\nHi\tHello\n",
    "UTF-16": lines({"messages": HI}).encode("utf-16"),
    "UTF-16 without a mark": lines({"messages": HI}).encode("utf-16-le"),
}


@pytest.mark.parametrize("content", ONE_ROW.values(), ids=ONE_ROW)
def test_every_layout_becomes_the_same_row(written, content):
    rows = converted(written(content))
    assert rows == [{"messages": HI}] * len(rows)
    assert len(rows) >= 1
    report = read_conversations(Path("FILE.chat.jsonl"))
    assert (report.findings, len(report.conversations)) == ([], len(rows))


@pytest.mark.parametrize("content", ONE_ROW.values(), ids=ONE_ROW)
def test_what_the_checker_says_to_run_works(written, content):
    """A finding that names the command, and the command as it is printed."""
    path = written(content, "my rows")
    fixes = [finding.fix for finding in read_conversations(path).findings]
    told = [fix.partition("run: ")[2] for fix in fixes if "trainer data convert" in fix]
    assert set(told) <= {"trainer data convert 'my rows'"}
    convert_file(path)
    assert read_conversations(default_output(path)).errors == []


def test_the_shipped_glossary_is_converted_with_questions(tmp_path):
    glossary = ROOT / "data" / "glossary.json"
    columns = parse_columns(None, ["What is a {term}?", "Define {term}."])
    rows = converted(glossary, output=tmp_path / "out.jsonl", columns=columns, system="You are Spokewise.")
    first = json.loads(glossary.read_text(encoding="utf-8"))[0]
    assert len(rows) == 80
    assert [row["messages"] for row in rows[:2]] == [
        [
            {"role": "system", "content": "You are Spokewise."},
            {"role": "user", "content": question.format(term=first["term"])},
            {"role": "assistant", "content": first["definition"]},
        ]
        for question in ("What is a {term}?", "Define {term}.")
    ]


def test_a_file_that_is_right_already_is_written_again_unchanged(tmp_path):
    for source in sorted((ROOT / "data").glob("*_train.jsonl")):
        convert_file(source, tmp_path / source.name)
        before, after = (read_conversations(path).conversations for path in (source, tmp_path / source.name))
        assert [(row.messages, row.tools) for row in after] == [(row.messages, row.tools) for row in before]


def test_every_row_of_a_mixed_file_is_taken_as_what_it_is(written):
    path = written(lines({"messages": HI}, SHAREGPT, {"prompt": "Hi", "completion": "Hello"}))
    conversion = convert_file(path)
    assert conversion.shapes == {"chat": 1, "ShareGPT": 1, "prompt and completion": 1}
    assert (conversion.num_read, conversion.num_written, conversion.layout) == (3, 3, "JSON Lines")


def test_what_cannot_be_carried_is_counted_for_each_key(written):
    source = written(lines({"messages": HI, "id": 7, "note": None}, SHAREGPT | {"id": 8, "tags": []}))
    assert convert_file(source).dropped == Counter({"id": 2})


THOUGHTFUL = [HI[0], HI[1] | {"reasoning_content": "Greet."}]


def test_thoughts_are_left_out_where_that_is_wanted_and_only_then(written):
    tagged = [HI[0], HI[1] | {"content": "<think>Greet.</think>Hello"}]
    source = written(lines({"messages": THOUGHTFUL}, {"messages": tagged}, {"messages": HI}))
    conversion = convert_file(source, thoughts=False)
    assert (conversion.num_without_thoughts, conversion.dropped) == (2, Counter())
    assert [json.loads(line) for line in conversion.output.read_text().splitlines()] == [{"messages": HI}] * 3
    kept = convert_file(source, force=True)
    assert kept.num_without_thoughts == 0
    said = [json.loads(line)["messages"] for line in kept.output.read_text().splitlines()]
    assert said == [THOUGHTFUL, THOUGHTFUL, HI]
    pair = {
        "input": {"messages": [HI[0]]},
        "preferred_output": [THOUGHTFUL[1]],
        "non_preferred_output": [HI[1] | {"content": "?"}],
    }
    source.write_text(lines(pair))
    plain = json.loads(convert_file(source, force=True, method="dpo", thoughts=False).output.read_text())
    assert plain == pair | {"preferred_output": [HI[1]]}


def test_a_system_prompt_is_given_to_rows_that_have_none(written):
    own = [{"role": "system", "content": "Mine"}, *HI]
    source = written(lines({"messages": HI}, {"messages": own}))
    conversion = convert_file(source, system="Yours")
    assert conversion.num_given_system == 1
    first, second = map(json.loads, conversion.output.read_text().splitlines())
    assert first["messages"] == [{"role": "system", "content": "Yours"}, *HI]
    assert second["messages"] == own


BAD = lines({"messages": HI}, {"messages": HI[:1]}, 7, {"messages": HI}) + "\n{"
REASONS = [
    (
        "FILE:2: LAST_MESSAGE: as a chat row messages[0] is a user message and the last one, expected an assistant "
        "message at the end; add the answer or remove what follows the last one"
    ),
    "FILE:3: ROW: the row is 7, expected an object",
    "FILE:5:2: JSON: the row ends inside an object, expected a closing '}'",
]


def test_one_row_that_cannot_be_converted_keeps_all_from_being_written(written):
    with pytest.raises(DataError) as raised:
        convert_file(written(BAD))
    assert raised.value.problems == (
        "FILE: 3 of 5 rows cannot be converted, expected all; fix them, or leave them out with --skip-bad",
        *REASONS,
    )
    assert [path.name for path in Path().iterdir()] == ["FILE"]


def test_such_rows_are_left_out_and_named_where_that_is_wanted(written):
    conversion = convert_file(written(BAD), skip_bad=True)
    assert [f"{row.place}: {row.reason}" for row in conversion.skipped] == REASONS
    assert (conversion.num_read, conversion.num_written) == (5, 2)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_reason_that_all_rows_share_is_told_once(written, skip_bad):
    with pytest.raises(DataError) as raised:
        convert_file(written("a,b\n" * 10), skip_bad=skip_bad)
    first, second = raised.value.problems
    assert first == "FILE: no row can be converted, expected one at least; nothing was written"
    assert second.startswith("FILE: each of 9 rows has 'a' and 'b', expected one question (prompt, question, ")
    assert second.endswith("or ask with --question 'What is {a}?'")
    assert [path.name for path in Path().iterdir()] == ["FILE"]


NOTHING = {
    "an empty file": ("", "FILE: the file holds no text, expected rows; check the path"),
    "a header alone": ("prompt,answer\n", "FILE: holds no rows, expected some below its first line; check the file"),
    "an empty array": ("[]", "FILE: holds no rows, expected some below its first line; check the file"),
    "prose": (
        "Once upon a time\n",
        (
            "FILE:1: holds neither JSON nor columns parted by commas, semicolons, tabs, expected rows with a question "
            "and an answer; export the data as CSV or JSON"
        ),
    ),
    "gzip": (b"\x1f\x8b\x08\x00\x00", "FILE: is gzip-compressed, expected text; unpack it with gunzip"),
}


@pytest.mark.parametrize(("content", "expected"), NOTHING.values(), ids=NOTHING)
def test_a_file_without_rows_is_told(written, content, expected):
    with pytest.raises(DataError) as raised:
        convert_file(written(content))
    assert raised.value.problems == (expected,)


def test_a_byte_that_is_not_utf8_is_told_with_its_line_and_how_it_may_be_meant(written):
    path = written("question,answer\nUn café?,Oui\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"^FILE:2: at byte offset 22 is not UTF-8, .*it reads 'Un café\?,Oui'"):
        convert_file(path)
    rows = converted(path, encoding="cp1252")
    assert [message["content"] for message in rows[0]["messages"]] == ["Un café?", "Oui"]


@pytest.mark.parametrize("size", range(1, 12))
def test_the_place_of_such_a_byte_does_not_depend_on_how_the_file_is_read(written, monkeypatch, size):
    monkeypatch.setattr(encoding, "_CHUNK_BYTES", size)
    content = "question,answer\n\u00e9t\u00e9 \u20ac,".encode() + b"caf\xe9\n"
    with pytest.raises(DataError, match=rf"^FILE:2: at byte offset {content.index(0xE9)} is not UTF-8"):
        convert_file(written(content))


def test_rows_with_such_a_byte_can_be_left_out(written):
    conversion = convert_file(written(lines({"messages": HI}).encode() + b'\n{"\xe9": 1}'), skip_bad=True)
    (skipped,) = conversion.skipped
    assert (skipped.place, conversion.num_written) == ("FILE:2", 1)


def test_a_byte_that_is_not_utf8_in_a_row_that_is_fine_otherwise_is_never_written(written):
    source = written(lines({"messages": HI}).encode() + b"\n" + lines({"messages": HI}).encode().replace(b"H", b"\xe9"))
    conversion = convert_file(source, skip_bad=True)
    reason = "ENCODING: the row holds what is no character, expected text; write it anew"
    assert conversion.skipped == [Skipped("FILE:2", reason)]


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13"])
def test_an_encoding_that_is_none_is_told(written, name):
    with pytest.raises(ConfigError, match=f"^--encoding: '{name}' is not known"):
        convert_file(written("x"), encoding=name)


def test_the_new_file_stands_beside_the_old_one_and_is_never_overwritten(written):
    source = written(lines({"messages": HI}), "rows.json")
    assert convert_file(source).output == Path("rows.chat.jsonl")
    before = Path("rows.chat.jsonl").stat().st_ino
    with pytest.raises(DataError, match=r"^rows\.chat\.jsonl: exists already"):
        convert_file(source)
    assert Path("rows.chat.jsonl").stat().st_ino == before
    convert_file(source, force=True)


def test_the_file_that_is_read_is_not_overwritten_even_by_force(written):
    source = written(lines({"messages": HI}))
    with pytest.raises(DataError, match="FILE: is the file that is read, expected another one"):
        convert_file(source, Path("..") / Path.cwd().name / "FILE", force=True)


def test_a_place_within_an_array_is_that_of_an_editor(written):
    content = '[\n  {"messages": []},\n  {"messages":\n    [1 2]}\n]'
    with pytest.raises(DataError) as raised:
        convert_file(written(content))
    assert [problem.split(" ")[0] for problem in raised.value.problems[1:]] == ["FILE:2:", "FILE:4:8:"]


def test_columns_that_a_row_lacks_are_told(written):
    source = written("q,a\nHi,Hello\n")
    with pytest.raises(DataError, match="FILE:2: has no column 'p', expected 'q' or 'a'; name another column"):
        convert_file(source, columns=Columns("a", "p"))
    assert converted(source, columns=Columns("a", "q")) == [{"messages": HI}]


def test_rows_in_an_object_are_told_by_their_own_lines(written):
    path = written(
        '{"version": "1", "data": [\n  {"question": "Hi", "answer": "Hello"},\n  {"question": "Hi"}\n], "n": 2}'
    )
    conversion = convert_file(path, skip_bad=True)
    assert conversion.layout == "one JSON object that holds the rows"
    assert [row.place for row in conversion.skipped] == ["FILE:3"]
    assert conversion.num_written == 1


def test_what_stands_behind_an_object_of_rows_is_told(written):
    with pytest.raises(DataError, match="continues after the end of the array"):
        convert_file(written('{"data": [{"question": "Hi", "answer": "Hello"}] 7'))


def test_a_column_of_messages_is_read(written):
    row = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    conversion = convert_file(written('id,messages\n1,"' + row.replace('"', '""') + '"\n'))
    assert conversion.shapes == {"chat": 1}
