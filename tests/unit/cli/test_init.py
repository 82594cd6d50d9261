"""`trainer init`: from a file of rows to a config that loads and whose files are there."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import pexpect
import pytest
import yaml

from tests.commands import Done, performed
from trainer.backends.openai.preflight import refuse_settings
from trainer.config import load_config
from trainer.data.read.checks import check_files
from trainer.runs import Run
from trainer.start.config_text import Contents, config_text, num_parameters
from trainer.start.sample import FILES

ROOT = Path(__file__).parents[3]
QUESTIONS = [(f"What is part {number}?", f"Part {number} holds part {number + 1}.") for number in range(40)]


def init(*words: str) -> Done:
    return performed(("init", *words), lambda: 0.0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def table(name: str, rows: list[tuple[str, str]] = QUESTIONS, header: tuple[str, str] = ("question", "answer")) -> Path:
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return Path(name)


def chat(name: str, rows: list[tuple[str, str]] = QUESTIONS) -> Path:
    roles = ("user", "assistant")
    made = [
        {"messages": [{"role": role, "content": text} for role, text in zip(roles, row, strict=True)]} for row in rows
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in made))
    return Path(name)


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def test_a_table_becomes_chat_rows_rows_held_out_and_a_config_that_names_them():
    table("own.csv")
    done = init("--base", "builtin:tiny", "--data", "own.csv", "--system", "Answer.")
    assert (done.code, done.out) == (0, "train --config own.yaml --check\n"), done.err
    config = load_config(Path("own.yaml"))
    assert (config.model.base, config.backend.kind, config.run.suffix) == ("builtin:tiny", "local", "own")
    assert (config.data.train, config.data.validation) == ("own.train.jsonl", "own.validation.jsonl")
    report = check_files([Path("own.train.jsonl")], [Path("own.validation.jsonl")])
    assert (report.rows, report.validation_rows, report.errors) == (36, 4, [])
    assert {row.messages[0].content for row in report.conversations} == {"Answer."}


def test_a_question_can_be_made_of_columns():
    table("parts.csv", [(f"hub {number}", f"The center {number}.") for number in range(20)], ("term", "definition"))
    refused = init("--base", "builtin:tiny", "--data", "parts.csv")
    assert refused.code == 2
    assert "each row has 'term' and 'definition'" in refused.err
    assert "--question 'What is {term}?'" in refused.err
    assert init("--base", "builtin:tiny", "--data", "parts.csv", "--question", "What is a {term}?").code == 0
    first = check_files([Path("parts.train.jsonl")]).conversations[0]
    assert first.messages[0].content.startswith("What is a hub ")


def test_chat_rows_stay_as_they_are_and_their_held_out_rows_are_found():
    chat("x_train.jsonl")
    chat("x_validation.jsonl", [("What holds part 7?", "Part 6.")] * 2)
    before = contents()
    assert init("--base", "builtin:tiny", "--data", "x_train.jsonl").code == 0
    config = load_config(Path("x.yaml"))
    assert (config.data.train, config.data.validation) == ("x_train.jsonl", "x_validation.jsonl")
    assert contents() == before | {"x.yaml": Path("x.yaml").read_bytes()}


def test_too_few_rows_are_not_divided():
    chat("few.jsonl", QUESTIONS[:10])
    done = init("--base", "builtin:tiny", "--data", "few.jsonl")
    assert "no rows are held out: 10 rows are too few to hold some out" in done.err
    assert load_config(Path("few.yaml")).data.validation is None


def test_the_sample_is_that_of_the_repository_and_needs_no_other_answer():
    done = init("--sample", "--yes", "--output", "first.yaml")
    assert (done.code, done.out) == (0, "train --config first.yaml --check\n"), done.err
    assert load_config(Path("first.yaml")).model.base == "builtin:tiny"
    for name in FILES:
        assert Path(name).read_bytes() == (ROOT / "data" / name).read_bytes()
    tiny = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())["training"]
    assert yaml.safe_load(Path("first.yaml").read_text())["training"] == tiny


def test_all_that_is_wrong_is_told_at_once():
    table("own.csv")
    Path("own.chat.jsonl").touch()
    before = contents()
    missing = init()
    assert (missing.code, [line.split()[1] for line in missing.errors]) == (2, ["--data:", "--base:"])
    wrong = init("--base", "builtin:small", "--data", "own.csv", "--validation", "none.jsonl", "-o", "no/own.yaml")
    assert wrong.code == 2
    for words in (
        "--base: 'builtin:small' is not known",
        "none.jsonl: the file does not exist",
        "the folder no does not",
    ):
        assert words in wrong.err
    taken = init("--base", "builtin:tiny", "--data", "own.csv")
    assert (taken.code, taken.errors) == (
        2, ["error: own.chat.jsonl: exists already, expected a new file; take it with --data, or remove it"],
    )  # fmt: skip
    mixed = init("--sample", "--data", "own.csv", "--system", "Answer.", "--yes")
    assert [line.split()[1] for line in mixed.errors] == ["--data:", "--system:"]
    assert contents() == before


@pytest.mark.parametrize(
    ("rows", "words", "found"),
    [
        ([*QUESTIONS[:20], ("What?", "")], (), "own.csv:22"),  # while it is converted
        (QUESTIONS[:5], ("--backend", "openai"), "TOO_FEW_ROWS"),  # when it has been converted
    ],
    ids=["a bad row", "too few for a service"],
)
def test_nothing_is_left_of_what_could_not_be_begun(rows, words, found):
    table("own.csv", rows)
    before = contents()
    done = init("--data", "own.csv", "--yes", *words)
    assert done.code == 2
    assert found in done.err
    assert contents() == before


def test_rows_with_errors_are_told_with_the_command_that_parts_them():
    chat("own.jsonl").open("a").write('{"messages": []}\n')
    done = init("--base", "builtin:tiny", "--data", "own.jsonl")
    assert (done.code, Path("own.yaml").exists()) == (2, False)
    assert "own.jsonl:41: MESSAGES:" in done.err
    assert "trainer data check own.jsonl --reject rejected.jsonl" in done.err


@pytest.mark.parametrize("backend", ["local", "azureml", "openai"])
def test_each_backend_gets_a_config_that_it_takes(backend):
    chat("own data.jsonl")
    assert init("--backend", backend, "--data", "own data.jsonl", "--yes").code == 0
    config = load_config(Path("own data.yaml"))
    assert (config.backend.kind, config.run.suffix) == (backend, "own-data")
    assert config.data.train == "own data.train.jsonl"
    if backend == "openai":
        refuse_settings(config)
    assert (config.model.quantization == "nf4") == (backend == "azureml")


def test_a_base_that_is_no_model_of_the_service_is_refused():
    chat("own.jsonl")
    for base in ("meta-llama/Llama-3.1-8B-Instruct", "builtin:tiny"):
        done = init("--backend", "openai", "--base", base, "--data", "own.jsonl")
        assert (done.code, len(done.errors)) == (2, 1)
        assert "is no model of a fine-tuning service" in done.err


def test_any_name_can_stand_in_a_config(tmp_path):
    hard = "a: b #c 'd' \"e\" ä ö.jsonl"
    text = config_text(Contents("x y.yaml", "builtin:tiny", "local", hard, "1.5", 3, 1))
    values = yaml.safe_load(text)
    assert values["data"] == {"train": hard, "validation": "1.5"}


@pytest.mark.parametrize(
    ("base", "size"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6), ("Qwen/Qwen2.5-7B-Instruct", 7e9),
        ("google/gemma-3-1b-it", 1e9),
        ("openai/gpt-oss-20b", 20e9), ("microsoft/Phi-4-mini-instruct", None),
    ],
)  # fmt: skip
def test_a_base_says_by_its_name_how_large_it_is(base, size):
    assert num_parameters(base) == size


def test_a_person_is_asked_for_what_is_missing(tmp_path):
    table("parts.csv", [(f"hub {number}", f"The center {number}.") for number in range(20)], ("term", "definition"))
    environment = {**os.environ, "TERM": "dumb", "PYTHONPATH": str(ROOT / "src")}
    child = pexpect.spawn(
        sys.executable, ["-m", "trainer", "init"], cwd=str(tmp_path), env=environment, encoding="utf-8",
        dimensions=(40, 200), timeout=60,
    )  # fmt: skip
    for question, answer in (
        ("file of rows .*: ", "part.csv"), ("file of rows .*: ", "parts.csv"), ("where to train .*: ", ""),
        ("base model .*: ", "builtin:tny"), ("base model .*: ", "builtin:tiny"),
        ("the question: .*: ", "What is a {trm}?"),
        ("the question: .*: ", "What is a {term}?"),
        ("the answer: .*: ", ""), ("convert it to chat JSONL.*: ", ""), ("hold a tenth .*: ", "n"),
    ):  # fmt: skip
        child.expect(question)
        child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    assert child.before.splitlines()[-1] == "train --config parts.yaml --check"
    assert load_config(tmp_path / "parts.yaml").data.train == "parts.chat.jsonl"


@pytest.mark.parametrize("run", sorted((ROOT / "tests" / "old_runs").glob("*/runs/*")), ids=lambda run: run.parent.name)
def test_a_run_s_settings_become_a_config_of_a_new_run(run, folder):
    shutil.copytree(run, folder / "runs" / run.name)
    done = init("--from", run.name, "--output", "again.yaml")
    assert (done.code, done.out) == (0, "train --config again.yaml --check\n"), done.err
    before, now = Run(folder / "runs" / run.name).config(), load_config(Path("again.yaml"))
    kept = {"limit_gb": before.memory.limit_gb}
    assert now.memory.model_dump(exclude_defaults=True) == {name: value for name, value in kept.items() if value}
    idle = {"azureml", "openai"} - {before.backend.kind}  # its defaults may have changed since the run was made
    differing = [
        name for name in type(now).model_fields
        if name not in ("run", "memory", *idle) and getattr(now, name) != getattr(before, name)
    ]  # fmt: skip
    assert differing == []
    assert now.run.name is None
    assert "again.yaml: exists already" in init("--from", run.name, "--output", "again.yaml").err


def test_rows_that_are_given_take_the_place_of_those_of_the_run(folder):
    run = ROOT / "tests" / "old_runs" / "local" / "runs" / "finished"
    shutil.copytree(run, folder / "runs" / run.name)
    done = init("--from", "finished", "--data", "own.jsonl", "--validation", "held.jsonl")
    assert done.code == 0, done.err
    data = load_config(Path("finished.yaml")).data
    assert (data.train, data.validation) == ("own.jsonl", "held.jsonl")


@pytest.mark.parametrize("layout", ["the service's", "TRL's"])
def test_rows_of_two_answers_become_a_config_that_learns_from_both(layout):
    asked = [f"What is part {number}?" for number in range(40)]
    if layout == "TRL's":
        rows = [{"prompt": text, "chosen": "It is a part.", "rejected": "No idea."} for text in asked]
    else:
        rows = [
            {
                "input": {"messages": [{"role": "user", "content": text}]},
                "preferred_output": [{"role": "assistant", "content": "It is a part."}],
                "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
            }
            for text in asked
        ]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = init("--base", "HuggingFaceTB/SmolLM2-135M-Instruct", "--data", "mine.jsonl")
    assert (done.code, done.out) == (0, "train --config mine.yaml --check\n"), done.err
    assert Path("mine.pairs.jsonl").exists() == (layout == "TRL's")
    config = load_config(Path("mine.yaml"))
    assert (config.training.method, config.data.validation) == ("dpo", "mine.validation.jsonl")
    report = check_files([Path("mine.train.jsonl")], [Path("mine.validation.jsonl")], method="dpo")
    assert (report.errors, report.rows, report.validation_rows) == ([], 36, 4)
