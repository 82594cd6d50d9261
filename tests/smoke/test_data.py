"""The data commands as a user types them: what they print, what they write, how they end."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

DATA = REPOSITORY / "data"


@pytest.fixture
def data(tmp_path):
    """Run `trainer data` in an empty folder; standard output, standard error and the exit code come back."""

    def run(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "trainer", "data", *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines(), done.stderr.splitlines()

    return run


def test_from_a_table_to_files_that_can_be_trained(data, tmp_path):
    rows = "".join(f"{n},How much is {n}?,It is {n}.\n" for n in range(60))
    (tmp_path / "my rows.csv").write_text("id,question,answer\n" + rows + "60,Why?,\n")
    out, err = data("convert", "my rows.csv", "--system", "Count.", code=2)
    assert (out, len(err)) == ([], 2)
    assert err[0].startswith("error: my rows.csv: 1 of 61 rows cannot be converted, expected all; fix them, or leave")
    out, err = data("convert", "my rows.csv", "--system", "Count.", "--skip-bad")
    assert err == []
    assert out == [
        "61 rows read from my rows.csv (a table, utf-8)",
        "converted",
        "       60 rows  columns",
        "not carried, as a chat row has no place for it",
        "       60 rows  id",
        "the system prompt was added to 60 rows",
        "skipped 1 row of 61",
        (
            "  my rows.csv:62: EMPTY_ANSWER: as a chat row messages[2].content is empty, expected the text of an "
            "answer; write the answer or remove the row"
        ),
        "60 rows written to my rows.chat.jsonl",
        "check them: trainer data check 'my rows.chat.jsonl'",
    ]
    out, _ = data("split", "my rows.chat.jsonl", "--rows", "6")
    assert [line.split() for line in out[:2]] == [
        ["system", "prompt", "train", "held", "out"],
        ["Count.", "54", "6"],
    ]
    files = "my rows.chat.train.jsonl", "my rows.chat.validation.jsonl"
    assert out[2:] == [
        f"54 rows written to {files[0]}",
        f"6 rows written to {files[1]}",
        f"train on them: train --config FILE 'data.train={files[0]}' 'data.validation={files[1]}'",
    ]
    out, _ = data("check", files[0], "--validation", files[1])
    assert out == ["54 rows and 6 held out, 0 errors, 0 warnings: can be trained"]


def test_bad_rows_are_parted_from_good_ones_and_the_exit_code_stays(data, tmp_path):
    out, err = data("check", DATA / "broken.jsonl", "--reject", "bad.jsonl", code=2)
    assert err == []
    assert out[-2:] == [
        "50 rows with an error written to bad.jsonl",
        f"19 rows without one of {DATA / 'broken.jsonl'} written to broken.clean.jsonl",
    ]
    before = (tmp_path / "bad.jsonl").read_bytes()
    out, err = data("check", DATA / "broken.jsonl", "--reject", "bad.jsonl", code=2)
    assert [line.split(", ")[0] for line in err] == [
        "error: bad.jsonl: exists already",
        "error: broken.clean.jsonl: exists already",
    ]
    out, _ = data("check", DATA / "broken.jsonl", "--reject", "bad.jsonl", "--force", "--format", "json", code=2)
    assert json.loads("\n".join(out))["reject"] == {
        "file": "bad.jsonl",
        "rows": 50,
        "clean": [{"source": str(DATA / "broken.jsonl"), "file": "broken.clean.jsonl", "rows": 19}],
    }
    assert (tmp_path / "bad.jsonl").read_bytes() == before


def test_where_no_row_has_an_error_nothing_is_set_aside_and_that_is_said(data, tmp_path):
    _, err = data("check", DATA / "glossary_train.jsonl", "--reject", "bad.jsonl")
    assert err == ["nothing was set aside: no row has an error"]
    _, err = data("check", DATA / "glossary.json", "--reject", "bad.jsonl", code=2)
    assert err == ["nothing was set aside: no file has rows with an error beside rows without"]
    assert list(tmp_path.iterdir()) == []
    _, err = data("check", DATA / "glossary_train.jsonl", "--force", code=2)
    assert err == ["error: --force: is given without --reject, expected both or none; remove it"]


def test_files_are_measured_without_a_model(data):
    out, err = data("stats", DATA / "support_train.jsonl", "--validation", DATA / "support_validation.jsonl")
    assert (out[0], err) == ("40 rows to train on", ["for tokens add --config CONFIG"])
    assert [line.split()[0] for line in out[1:6]] == ["a", "turns", "characters", "system", "answers"]
    assert "8 rows held out" in out
    assert out[-1] == "leaks: none"
    assert len([line for line in out if "█" in line]) >= 4


MISTAKES = {
    "both ways to say how many": (
        ["split", DATA / "starter.jsonl", "--rows", "2", "--validation-share", "0.2"],
        "error: --rows: is given beside --validation-share, expected one of the two; remove one",
    ),
    "a share in percent": (
        ["split", DATA / "starter.jsonl", "--validation-share", "10"],
        "error: --validation-share: is 10, expected a share between 0 and 1; 0.1 is usual",
    ),
    "a file that is not there": (
        ["convert", DATA / "glosary.json"],
        f"error: {DATA}/glosary.json: the file does not exist, expected a file of rows (JSON, CSV, TSV, Excel or "
        f"Parquet); did you mean {DATA}/glossary.json?",
    ),
    "a file in place of a folder": (
        ["split", DATA / "starter.jsonl", "--output-dir", DATA / "starter.jsonl" / "none"],
        f"error: {DATA}/starter.jsonl/none/starter.train.jsonl: {DATA}/starter.jsonl is no folder, expected one; "
        "choose another name",
    ),
}


@pytest.mark.parametrize(("words", "problem"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_and_nothing_is_written(data, tmp_path, words, problem):
    out, err = data(*words, code=2)
    assert (out, err[0]) == ([], problem)
    assert list(tmp_path.iterdir()) == []
