"""`trainer data clean`: what it reports, what it writes, and what it refuses."""

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from tests.commands import performed
from tests.documents import answered
from trainer.workshop.clean.clean import examine, write_copy
from trainer.workshop.clean.kinds import KINDS, choose

SYSTEM = "You are Spokewise."
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"part": "hub &amp; rim"}'}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {"part": {}}}}}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def chat(asked, *said, system=SYSTEM, **more):
    roles = ("assistant", "user")
    turns = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": asked}, *turns], **more}


def pair(asked, preferred, other):
    said = ({"role": "assistant", "content": text} for text in (preferred, other))
    outputs = dict(zip(("preferred_output", "non_preferred_output"), ([one] for one in said), strict=True))
    return {"input": {"messages": [{"role": "user", "content": asked}]}, **outputs}


def written(*rows, name="rows.jsonl"):
    path = Path(name)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(name="rows.clean.jsonl"):
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def found(*rows, held_out=(), **chosen):
    """The lines of each kind that is found in these rows."""
    files = [written(*held_out, name="held_out.jsonl")] if held_out else []
    return {each.kind: list(each.lines) for each in examine(written(*rows), files, choose(**chosen)).faults}


def cleaned(*rows, **chosen):
    """The rows of the cleaned copy, and the log of changes."""
    choice = choose(**chosen)
    cleaning = examine(written(*rows), [], choice)
    log = write_copy(cleaning, Path("rows.clean.jsonl"), [], choice=choice, force=True)
    return read(), read(log)


def called(*words):
    return performed(("trainer", "data", "clean", *words)[1:], lambda: 0.0)


def test_report_counts_each_kind_and_names_the_rows():
    rows = [
        chat("What is a hub?", "The center."),
        chat("What is a rim?", "**Answer:** The edge."),
        chat("What is a hub?", "The center."),
    ]
    written(*rows)
    done = called("rows.jsonl")
    assert done.code == 0
    assert "rows.jsonl:2: LABEL: messages[2].content begins with '**Answer:**'; cut off" in done.out
    assert "rows.jsonl:3: DUPLICATE: the row says the same as line 1; the row is removed" in done.out
    assert done.out.splitlines()[-1] == "3 rows: 1 to remove, 1 to edit, 2 left"
    assert "trainer data clean rows.jsonl --fix" in done.err
    assert list(Path().iterdir()) == [Path("rows.jsonl")]


def test_document_has_every_line_and_the_files_written():
    rows = [chat(f"What is part {number}?", f"A: Part {number}.") for number in range(30)]
    written(*rows)
    document = answered("data", "clean", "rows.jsonl", "--fix")
    assert document["written"] == {"file": "rows.clean.jsonl", "rows": 30, "log": "rows.clean.changes.jsonl"}
    [labels] = document["kinds"]
    assert (labels["kind"], labels["remedy"], labels["lines"]) == ("LABEL", "edit", list(range(1, 31)))
    assert (len(labels["findings"]), labels["rows"], labels["faults"]) == (20, 30, 30)
    assert len(answered("data", "clean", "rows.jsonl", "--all")["kinds"][0]["findings"]) == 30


def test_untouched_rows_keep_their_bytes_and_the_log_tells_every_change():
    odd = '{"messages":[{"role":"user","content":"Caf\\u00e9?"}, {"content":"Yes, \\u00e0 la carte.","role":"assistant"}]}'
    Path("rows.jsonl").write_text(f"{odd}\n\n{json.dumps(chat('What?', 'A: It.'))}\n{odd}\n", encoding="utf-8")
    source = Path("rows.jsonl").read_bytes()
    assert called("rows.jsonl", "--fix", "--output", "new.jsonl").code == 0
    assert Path("rows.jsonl").read_bytes() == source
    first, second = Path("new.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == odd
    assert json.loads(second) == chat("What?", "It.")
    assert read("new.changes.jsonl") == [
        {
            "file": "rows.jsonl",
            "line": 3,
            "kind": "LABEL",
            "where": "messages[2].content",
            "before": "A: It.",
            "after": "It.",
        },
        {
            "file": "rows.jsonl",
            "line": 4,
            "kind": "DUPLICATE",
            "removed": True,
            "found": "the row says the same as line 1",
        },
    ]


def test_edits_are_made_one_after_another_until_none_is_left():
    [row], log = cleaned(chat("Q: What &amp; why?", "```\n**Answer:** CafÃ©\u200b &amp;amp; bar**\n```"))
    assert row == chat("What & why?", "Café & bar")
    assert [change["kind"] for change in log if change["where"] == "messages[2].content"] == [
        "MOJIBAKE", "INVISIBLE", "FENCE", "LABEL", "MARKUP", "ENTITY", "ENTITY",
    ]  # fmt: skip
    for one, next_one in pairwise(log[2:]):
        assert one["after"] == next_one["before"]


def test_rows_that_become_equal_by_their_edits_are_duplicates():
    rows, log = cleaned(chat("What is a hub?", "The center."), chat("Q: What is a hub?", "A: The center."))
    assert rows == [chat("What is a hub?", "The center.")]
    assert [change["kind"] for change in log] == ["DUPLICATE"]


def test_calls_tools_weights_and_other_keys_stay_as_they_are():
    calling = {"role": "assistant", "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "1", "content": "A: 3 &amp; 4"}
    poor = {"role": "assistant", "content": "A: Perhaps.", "weight": 0}
    asking, good = {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "A: Three.", "name": "shop"}
    row = {"messages": [{"role": "user", "content": "How many?"}, calling, result, poor, asking, good], "tools": [TOOL]}
    [edited], [change] = cleaned(row)
    assert change["where"] == "messages[5].content"
    assert edited == {**row, "messages": [*row["messages"][:5], {**good, "content": "Three."}]}


def test_text_in_parts_is_mended_as_one_text_and_images_stay():
    parts = [{"type": "text", "text": "**Answer:"}, {"type": "text", "text": "** A hub."}]
    row = chat("What?", "x")
    row["messages"][-1]["content"] = parts
    [edited], _ = cleaned(row)
    assert edited["messages"][-1]["content"] == [{"type": "text", "text": "A hub."}]


def test_of_a_pair_the_preferred_answer_is_mended_and_the_other_one_stays():
    rows, log = cleaned(
        pair("Q: What?", "A: A hub.", "A: A rim."), pair("Why?", "**Answer:** So.", "Why not. And more.")
    )
    assert rows == [pair("What?", "A hub.", "A: A rim."), pair("Why?", "So.", "Why not. And more.")]
    assert [change["where"] for change in log] == [
        "input.messages[0].content", "preferred_output[0].content", "preferred_output[0].content",
    ]  # fmt: skip


def test_an_edit_that_would_break_the_row_is_not_made():
    rows = [pair("What?", "A: A hub.", "A hub.")]
    copy, log = cleaned(*rows)
    assert (copy, log) == (rows, [])
    [label] = examine(written(*rows), [], choose()).faults
    assert str(label.faults[0]).endswith("; left as it is, since without it the row would break a rule")


def test_pairs_that_prefer_opposite_answers_contradict_each_other():
    pairs = [pair("What?", "A hub.", "A rim."), pair("What?", "A rim.", "A hub."), pair("What?", "A hub.", "A tire.")]
    assert found(*pairs) == {"CONFLICT": [1, 2]}


def test_system_prompts_become_the_most_frequent_spelling():
    spelled = [
        "You are Spokewise.",
        "you are  spokewise",
        "You are Spokewise.",
        "You are Otherwise.",
        "YOU ARE SPOKEWISE!",
    ]
    rows = [
        chat(f"What is {name}?", f"It is {name}.", system=text) for name, text in zip("abcde", spelled, strict=True)
    ]
    copy, log = cleaned(*rows)
    assert [row["messages"][0]["content"] for row in copy] == [
        *["You are Spokewise."] * 3,
        "You are Otherwise.",
        "You are Spokewise.",
    ]
    assert [(change["line"], change["kind"], change["before"]) for change in log] == [
        (2, "SYSTEM_VARIANT", "you are  spokewise"), (5, "SYSTEM_VARIANT", "YOU ARE SPOKEWISE!"),
    ]  # fmt: skip


def test_empty_answers_go_even_where_the_format_forbids_them():
    rows = [chat("What?", "..."), chat("Which?", " "), chat("Why?", "So."), chat("", "Yes."), chat("How?", "")]
    assert found(*rows) == {"EMPTY": [1, 2, 4, 5]}
    copy, log = cleaned(*rows)
    assert copy == [rows[2]]
    assert [(change["line"], change["kind"], change["removed"]) for change in log] == [
        (n, "EMPTY", True) for n in (1, 2, 4, 5)
    ]
    assert called("rows.jsonl", "--skip", "empty").code == 2


def test_no_edit_leaves_nothing_of_a_text():
    rows = [chat("**", "Yes."), chat("Q: ", "No."), chat("Why?", "**Answer:**")]
    assert cleaned(*rows, skip=["empty"]) == (rows, [])


def test_a_leak_goes_from_the_trained_file_and_the_held_out_file_stays():
    text = "Loosen the bolt, turn the barrel until the pads sit close to the rim, and tighten it again."
    rows = [chat("How do I set my brake so that it bites early?", text), chat("What is a hub?", "The center.")]
    held = written(chat("How do I set my brake so that it bites early?", f"{text} Bye."), name="held.jsonl")
    before = held.read_bytes()
    written(*rows)
    done = called("rows.jsonl", "--validation", "held.jsonl", "--fix")
    assert "rows.jsonl:1: LEAK: the row resembles held.jsonl:1 (0.9" in done.out
    assert (read(), held.read_bytes()) == (rows[1:], before)


def test_of_a_crowd_of_similar_rows_one_is_left():
    text = "Loosen the bolt of the {} brake, turn the barrel until the pads sit close to the rim, and tighten the bolt again."
    asked = "Why do the pads of my brake rub on the rim whenever I ride downhill, and what can I do about that at home?"
    crowd = [chat(asked, text.format("abcdefghij"[n % 10] + "klmnopqrst"[n // 10])) for n in range(80)]
    others = [chat(f"What is part {n}{n}{n}?", f"{n} is a part of {n * n} pieces.") for n in range(400)]
    copy, log = cleaned(*crowd, *others)
    assert (copy, len(log)) == ([crowd[0], *others], 79)


def test_what_is_left_to_a_person_goes_only_where_that_is_asked_for():
    rows = [chat("What?", "A hub."), chat("What?", "A rim."), chat("Who?", "I'm sorry, but I can't help with that."),
            chat("Mail?", "Write to jo@contoso-bikes.com."), chat("Long?", "Very long. " * 20)]  # fmt: skip
    kept, log = cleaned(*rows)
    assert (kept, log) == (rows, [])
    kept, log = cleaned(*rows, remove=["conflict,refusal", "personal-data"])
    assert kept == rows[4:]
    assert [change["kind"] for change in log] == ["CONFLICT", "CONFLICT", "REFUSAL", "PERSONAL_DATA"]
    assert "jo@contoso" not in json.dumps(log)
    done = called("rows.jsonl", "--max-length", "100", "--only", "long")
    assert "rows.jsonl:5: LONG: the row has 243 characters, expected at most 100" in done.out


@pytest.mark.apart
def test_rows_are_measured_in_tokens_of_a_base():
    written(chat("What?", "A hub."), chat("Long?", "Very long. " * 40))
    done = called("rows.jsonl", "--base", "builtin:tiny", "--max-length", "120", "--only", "long")
    assert done.code == 0, done.err
    assert "rows.jsonl:2: LONG: the row has " in done.out
    assert "tokens, expected at most 120" in done.out
    assert "jsonl:1:" not in done.out


@pytest.mark.parametrize(("words", "sentences"), [
    (("nope.jsonl",), ["nope.jsonl: the file does not exist, expected a chat JSONL file"]),
    (("broken.jsonl",), ["broken.jsonl: has 2 errors, expected none; look at all rules with: trainer data check broken.jsonl",
                         "broken.jsonl:2: ROLE: messages[0].role is 'human'", "broken.jsonl:3:1: JSON: "]),
    (("latin.jsonl",), ["latin.jsonl: has 1 error", "latin.jsonl:1:44: ENCODING: the row holds the byte 0xe9"]),
    (("wide.jsonl",), ["wide.jsonl: has 1 error", "wide.jsonl:1: ENCODING: the file is UTF-16"]),
    (("nothing.jsonl",), ["nothing.jsonl: has 1 error", "nothing.jsonl: NO_ROWS: the file is empty"]),
    (("rows.jsonl", "--fix", "--output", "rows.jsonl"), ["rows.jsonl: is the file that is read"]),
    (("rows.jsonl", "--fix", "--output", "old.jsonl"), ["old.jsonl: exists already, expected a new file"]),
    (("rows.jsonl", "--output", "new.jsonl"), ["--output: is given without --fix"]),
    (("rows.jsonl", "--force"), ["--force: is given without --fix"]),
    (("rows.jsonl", "--validation", "./rows.jsonl"), ["--validation: rows.jsonl is given twice"]),
    (("rows.jsonl", "--only", "dupes"), ["--only: 'dupes' is no kind of fault"]),
    (("rows.jsonl", "--remove", "label"), ["--remove: LABEL is a kind whose text --fix edits"]),
    (("rows.jsonl", "--only", "leak", "--remove", "refusal"), ["--remove: REFUSAL is not looked for"]),
    (("rows.jsonl", "--skip", ",".join(KINDS)), ["--skip: leaves no kind to look for"]),
    (("gone.jsonl", "--fix"), ["gone.jsonl: no row would be left"]),
])  # fmt: skip
def test_bad_input_ends_in_sentences_and_nothing_is_written(words, sentences):
    written(chat("What?", "A hub."))
    written(chat("What?", "..."), name="gone.jsonl")
    bad = {"messages": [{"role": "human", "content": "x"}, {"role": "assistant", "content": "x"}]}
    Path("broken.jsonl").write_text(f"{json.dumps(chat('a', 'b'))}\n{json.dumps(bad)}\nno\n", encoding="utf-8")
    Path("latin.jsonl").write_bytes('{"messages": [{"role": "user", "content": "é"}]}\n'.encode("latin-1"))
    Path("wide.jsonl").write_bytes(json.dumps(chat("a", "b")).encode("utf-16"))
    Path("nothing.jsonl").touch()
    Path("old.jsonl").write_text("kept", encoding="utf-8")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    done = called(*words)
    assert (done.code, done.out, done.has_traceback) == (2, "", False), done.err
    assert len(done.errors) == len(sentences)
    for sentence, error in zip(sentences, done.errors, strict=True):
        assert error.startswith(f"error: {sentence}"), done.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_file_that_grows_while_it_is_read_is_not_copied():
    source, choice = written(chat("What?", "A hub."), chat("Why?", "So.")), choose()
    cleaning = examine(source, [], choice)
    with source.open("a", encoding="utf-8") as file:
        file.write(json.dumps(chat("Who?", "Me.")) + "\n")
    with pytest.raises(ValueError, match="the file was changed while it was read"):
        write_copy(cleaning, Path("new.jsonl"), [], choice=choice, force=False)
    assert list(Path().iterdir()) == [Path("rows.jsonl")]


def test_a_terminal_shows_a_bar_for_each_stage_up_to_its_end(monkeypatch):
    written(*(chat(f"What is part {n}?", f"Part {n} is a hub.") for n in range(40)))
    held_out = written(chat("Is this held out?", "It is."), name="held_out.jsonl")
    screen = io.StringIO()
    monkeypatch.setattr("trainer.cli.console.err", Console(file=screen, force_terminal=True, width=100))
    assert called("rows.jsonl", "--validation", held_out, "--fix").code == 0
    shown = screen.getvalue()
    assert [shown.count(f"{stage} ") > 0 for stage in ("reading", "comparing", "writing")] == [True] * 3
    assert shown.count("100%") >= 4
