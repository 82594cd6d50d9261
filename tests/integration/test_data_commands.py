"""The data commands that read rows as a model does, in this process: torch is imported once."""

import json
import re

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from tests.conftest import REPOSITORY
from tests.documents import schema_of
from trainer.cli.main import trainer_app

DATA = REPOSITORY / "data"
TRAIN, HELD_OUT = DATA / "support_train.jsonl", DATA / "support_validation.jsonl"
TINY = REPOSITORY / "configs" / "tiny.yaml"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Run `trainer data` in an empty folder; standard output and standard error come back."""
    monkeypatch.chdir(tmp_path)

    def run(*words, code=0):
        done = CliRunner().invoke(trainer_app, ["data", *map(str, words)], terminal_width=120)
        assert done.exit_code == code, done.stderr
        return done.stdout, done.stderr.splitlines()

    return run


def test_tokens_are_told_to_machines_and_to_people(data):
    out, _ = data("stats", TRAIN, "--validation", HELD_OUT, "--config", TINY, "--format", "json")
    told = json.loads(out)
    Draft202012Validator(schema_of("data stats")).validate(told)
    assert (told["train"]["rows"], told["validation"]["rows"], told["leaks"]) == (40, 8, 0)
    tokens = told["train"]["tokens"]
    total = tokens["tokens"]["total"]
    assert tokens["billed_per_epoch"] == total > tokens["unique"] > tokens["supervised"]["total"]
    out, err = data("stats", TRAIN, "--config", TINY)
    assert err == []
    assert f"an epoch is {total:,} tokens; a service that trains on these rows bills about as many\n" in out
    assert f"trained         {tokens['supervised']['total']:,} of {total:,} tokens" in out
    assert "no row over 2,048 tokens (data.max_length)" in out


def test_rows_over_the_length_of_the_config_are_named(data, tmp_path):
    (tmp_path / "short.yaml").write_text("model: {base: builtin:tiny}\ndata: {train: x, max_length: 500}\n")
    out, _ = data("stats", TRAIN, "--config", "short.yaml")
    assert f"2 rows over 500 tokens (data.max_length): {TRAIN}:1, {TRAIN}:" in " ".join(out.split())


def test_totals_stand_below_the_rows(data):
    out, _ = data("preview", TRAIN, "--config", TINY, "--rows", "1")
    *_, rows, trained, ends, weights = out.splitlines()
    assert rows == "rows         40"
    assert re.fullmatch(r"trained      [\d,]+ of [\d,]+ tokens \(\d\d\.\d%\)", trained)
    assert ends == "end markers  92 trained, one after each trained answer"
    assert weights == "weight 0     12 answers in 12 rows only read"


def test_what_is_trained_is_told_to_machines(data):
    out, _ = data("preview", TRAIN, "--config", TINY, "--rows", "2", "--format", "json")
    told = json.loads(out)
    Draft202012Validator(schema_of("data preview")).validate(told)
    assert [row["place"] for row in told["rows"]] == [f"{TRAIN}:1", f"{TRAIN}:2"]
    answers = [
        message["content"]
        for message in json.loads(TRAIN.read_text().splitlines()[0])["messages"]
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    (spans,) = told["rows"][0]["examples"]
    assert [span["text"] for span in spans if span["kind"] == "answer"] == answers
    assert {span["kind"] for span in spans if span["trained"]} == {"answer", "end"}
    assert (told["totals"]["rows"], told["totals"]["ends"], told["totals"]["untrained_answers"]) == (40, 92, 12)
    _, err = data("preview", TRAIN, "--config", TINY, "--html", "page.html", "--format", "json", code=2)
    assert err == ["error: --html: is given with --format json, expected one of them; remove one"]


def test_the_page_is_written_for_all_rows_or_the_first(data, tmp_path):
    _, err = data("preview", TRAIN, "--config", TINY, "--html", "page.html")
    assert err == ["wrote 40 rows to page.html; open it in a browser"]
    _, err = data("preview", TRAIN, "--config", TINY, "--html", "page.html", "--rows", "3")
    assert err == ["wrote 3 rows to page.html; open it in a browser"]
    assert "37 rows after these" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_replaces_no_file_but_a_page(data, tmp_path):
    for name in ("notes.html", "thesis.tex"):
        (tmp_path / name).write_text("<!doctype html>\nmine")
        _, err = data("preview", TRAIN, "--config", TINY, "--html", name, code=2)
        assert err == [
            f"error: --html: {name!r} exists and is no page of this program, expected a new file; choose another name "
            "or remove it"
        ]
        assert (tmp_path / name).read_text() == "<!doctype html>\nmine"


def test_the_page_never_replaces_the_data(data, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((DATA / "starter.jsonl").read_bytes())
    _, err = data("preview", "rows.jsonl", "--config", TINY, "--html", "rows.jsonl", code=2)
    assert err == ["error: --html: rows.jsonl is the file that is previewed, expected another one; choose another name"]
    assert rows.read_bytes() == (DATA / "starter.jsonl").read_bytes()


@pytest.mark.parametrize("words", [("check",), ("stats",), ("preview", "--rows", "1")])
def test_a_config_serves_for_a_file_alone_whatever_it_says_of_held_out_rows(data, tmp_path, words):
    settings = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": "gone.jsonl", "validation": "gone-too.jsonl", "allow_leak": True},
        "training": {"early_stopping_patience": 2, "eval_rows": 7},
        "evaluation": {"max_rows": 5},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    data(words[0], TRAIN, "--config", "run.yaml", *words[1:])


def test_charts_are_written_as_a_page_that_is_replaced_and_no_other_file_is(data, tmp_path):
    out, err = data("stats", TRAIN, "--validation", HELD_OUT, "--config", TINY, "--html", "page.html")
    assert err[-1] == "page  page.html"
    page = (tmp_path / "page.html").read_text()
    assert "<h3>Tokens that training computes</h3>" in page
    assert re.search(
        r"packing +[\d,]+ tokens in \d+ steps of 8 rows; 1\.\d\d times as many without sharing", " ".join(out.split())
    )
    data("stats", TRAIN, "--html", "page.html")
    assert "<h3>Tokens that training computes</h3>" not in (tmp_path / "page.html").read_text()
    (tmp_path / "own.html").write_text("mine")
    _, err = data("stats", TRAIN, "--html", "own.html", code=2)
    assert "exists and is no page of this program" in " ".join(err)
    assert (tmp_path / "own.html").read_text() == "mine"
    _, err = data("stats", TRAIN, "--html", TRAIN, code=2)
    assert "is a file that is measured, expected another one; choose another name" in " ".join(err)
    _, err = data("stats", TRAIN, "--html", "page.html", "--format", "json", code=2)
    assert "--html: is given with --format json" in " ".join(err)
