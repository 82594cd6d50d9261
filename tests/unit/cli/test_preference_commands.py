"""Preference rows in the commands on data: checked, split, measured, and rendered with both of their answers."""

import json
from contextlib import chdir
from pathlib import Path

import pytest

from tests.commands import Done, performed
from tests.documents import document_of

JSON = ("--format", "json")
CONFIG = "model: {base: builtin:tiny}\ndata: {train: pairs.jsonl}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"What is term {number}?"}]},
            "preferred_output": [{"role": "assistant", "content": f"Term {number} is a word."}],
            "non_preferred_output": [{"role": "assistant", "content": "Who knows."}],
        }
        for number in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def trainer(folder: Path, *words: str) -> Done:
    return performed(words, lambda: 0.0, chdir(folder))


def test_a_file_of_pairs_is_recognized_and_checked(folder: Path) -> None:
    done = trainer(folder, "data", "check", "pairs.jsonl")
    assert (done.code, done.out) == (
        0,
        "60 rows, 0 errors, 0 warnings: can be trained, as preference rows with training.method=dpo\n",
    )
    checked = document_of(trainer(folder, "data", "check", "pairs.jsonl", "--format", "json"))
    assert (checked["method"], checked["rows"], checked["findings"]) == ("dpo", 60, [])


def test_bad_pairs_are_set_aside_and_good_ones_held_out(folder: Path) -> None:
    with (folder / "pairs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}\n')
    assert trainer(folder, "data", "check", "pairs.jsonl", "--reject", "bad.jsonl").code == 2
    assert len((folder / "bad.jsonl").read_text().splitlines()) == 1
    done = trainer(folder, "data", "split", "pairs.clean.jsonl", "--rows", "6")
    assert done.code == 0
    assert "data.validation=pairs.clean.validation.jsonl training.method=dpo" in " ".join(done.out.split())
    assert sorted(len(path.read_text().splitlines()) for path in folder.glob("pairs.clean.*.jsonl")) == [6, 54]


def test_a_model_reads_both_answers_of_each_row(folder: Path) -> None:
    done = trainer(folder, "data", "check", "pairs.jsonl", "--config", "config.yaml")
    assert (done.code, done.errors) == (0, [])
    shown = trainer(folder, "data", "preview", "pairs.jsonl", "--config", "config.yaml", "--rows", "1")
    assert shown.code == 0, shown.err
    answers = [line.rpartition("⟦")[2].partition("⟧")[0] for line in shown.out.splitlines() if "⟦" in line]
    assert [answer.partition("<|")[0] for answer in answers] == ["Term 0 is a word.", "Who knows."]
    titles = [line.split("  ")[1] for line in shown.out.splitlines() if line.startswith("pairs.jsonl:1 ")]
    assert titles == ["preferred answer", "other answer"]
    assert "60 rows with a preferred answer and one that becomes less likely" in shown.out
    previewed = document_of(trainer(folder, "data", "preview", "pairs.jsonl", "--config", "config.yaml", *JSON))
    [first, *_] = previewed["rows"]
    preferred, other = ([span["kind"] for span in spans] for spans in first["examples"])
    assert (preferred, other) == (["prompt", "answer", "end", "prompt"], ["prompt", "rejected", "rejected", "prompt"])
    assert (previewed["totals"]["pairs"], previewed["totals"]["split_rows"]) == (60, 0)
    measured = document_of(trainer(folder, "data", "stats", "pairs.jsonl", "--config", "config.yaml", *JSON))
    tokens = measured["train"]["tokens"]
    assert tokens["tokens"]["total"] == previewed["totals"]["tokens"]
    assert (tokens["supervised"]["total"], tokens["rows_of_several_examples"]) == (previewed["totals"]["trained"], 0)


def test_lengths_that_give_the_preferred_answer_away_are_measured(folder: Path) -> None:
    measured = document_of(trainer(folder, "data", "stats", "pairs.jsonl", *JSON))["train"]["pairs"]
    assert measured["preferred_longer"] == 60
    assert (measured["preferred_characters"]["max"], measured["other_characters"]["max"]) == (18, 10)
    done = trainer(folder, "data", "stats", "pairs.jsonl")
    assert "the preferred answer is longer in 60 of 60 rows" in " ".join(done.out.split())


def test_a_page_shows_both_answers(folder: Path) -> None:
    done = trainer(folder, "data", "preview", "pairs.jsonl", "--config", "config.yaml", "--html", "page.html")
    assert done.code == 0, done.err
    page = (folder / "page.html").read_text(encoding="utf-8")
    [row, *_] = json.loads(page.partition('id="rows">')[2].partition("</script>")[0])
    assert ["Who knows." in "".join(text for _, _, text in spans) for spans in row[1]] == [False, True]


def test_a_row_that_is_too_long_is_told_with_its_longer_answer(folder: Path) -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "preferred_output": [{"role": "assistant", "content": "Yes."}],
        "non_preferred_output": [{"role": "assistant", "content": "No. " * 200}],
    }
    with (folder / "pairs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    (folder / "config.yaml").write_text(CONFIG.replace("pairs.jsonl}", "pairs.jsonl, max_length: 100}"))
    done = trainer(folder, "data", "check", "pairs.jsonl", "--config", "config.yaml")
    assert done.code == 2
    [told] = [line for line in done.out.splitlines() if ": LENGTH: " in line]
    assert told.startswith("error   pairs.jsonl:61: LENGTH: has ")
    assert " tokens with its longer answer, expected at most 100; " in told


def test_rows_of_other_tools_become_pairs_or_chats(folder: Path) -> None:
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?", "score": 3}
    (folder / "trl.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = trainer(folder, "data", "convert", "trl.jsonl", "--to", "dpo", "--system", "Be brief.")
    assert done.code == 0, done.err
    assert done.out.splitlines()[2:] == [
        "         1 row  preference",
        "not carried, as a preference row has no place for it",
        "         1 row  score",
        "the system prompt was added to 1 row",
        "1 row written to trl.pairs.jsonl",
        "check them: trainer data check trl.pairs.jsonl",
    ]
    made = json.loads((folder / "trl.pairs.jsonl").read_text(encoding="utf-8"))
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert made["input"] == {"messages": asked}
    done = trainer(folder, "data", "convert", "trl.jsonl")
    assert "preference rows keep both answers with --to dpo" in done.out
    assert len(json.loads((folder / "trl.chat.jsonl").read_text(encoding="utf-8"))["messages"]) == 2


def test_a_row_that_would_be_wrong_is_not_converted(folder: Path) -> None:
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}
    (folder / "trl.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = trainer(folder, "data", "convert", "trl.jsonl", "--to", "dpo")
    assert done.code == 2
    assert "PAIR_EQUAL: as a preference row non_preferred_output is the same as preferred_output" in done.err
    assert not (folder / "trl.pairs.jsonl").exists()


@pytest.mark.parametrize(("option", "value"), [("--columns", "prompt=a,answer=b"), ("--question", "What is {term}?")])
def test_options_for_one_answer_are_refused_with_two(folder: Path, option: str, value: str) -> None:
    done = trainer(folder, "data", "convert", "trl.jsonl", "--to", "dpo", option, value)
    assert done.code == 2
    assert done.errors == [
        f"error: {option}: is given with --to dpo, expected rows with prompt, chosen and rejected, or another layout "
        "of two answers; remove it, and rename the columns in the file"
    ]


def test_each_kind_of_rows_is_told_both_ways(folder: Path) -> None:
    from trainer.data.read.checks import check_files

    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}
    (folder / "trl.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with chdir(folder):
        [pairs] = check_files([Path("pairs.jsonl")], method="sft").errors
        [others] = check_files([Path("trl.jsonl")], method="dpo").errors
    assert str(pairs).endswith(
        "; train with training.method=dpo, or for the preferred answers alone run: trainer data convert pairs.jsonl"
    )
    assert str(others).endswith("; run: trainer data convert trl.jsonl --to dpo")


@pytest.mark.parametrize("name", ["prompt", "question", "instruction"])
def test_a_table_of_two_answers_becomes_pairs(name: str, folder: Path) -> None:
    (folder / "votes.csv").write_text(f"{name},chosen,rejected\nHi,Hello,What?\n", encoding="utf-8")
    done = trainer(folder, "data", "convert", "votes.csv", "--to", "dpo")
    assert done.code == 0, done.err
    made = json.loads((folder / "votes.pairs.jsonl").read_text(encoding="utf-8"))
    assert made["input"] == {"messages": [{"role": "user", "content": "Hi"}]}
    assert made["non_preferred_output"] == [{"role": "assistant", "content": "What?"}]
