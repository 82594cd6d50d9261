"""`trainer data check` on a large file, as in a terminal and in a pipe."""

import json
import os
import subprocess
import sys

import pexpect
import pytest

COMMAND = [sys.executable, "-m", "trainer", "data", "check"]


@pytest.fixture
def large_file(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(2300):
            messages = [
                {"role": "user", "content": f"{number}"},
                {"role": "assistant", "content": f"{number} " + "quiet words " * 750},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    assert path.stat().st_size > 20_000_000
    return path


def test_a_terminal_shows_a_bar_that_goes_away(large_file):
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], str(large_file)], env=environment, encoding="utf-8", timeout=60)
    child.expect("reading .*MB")
    child.expect("can be trained")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_pipe_shows_no_bar(large_file):
    done = subprocess.run([*COMMAND, large_file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2,300 rows, 0 errors, 0 warnings: can be trained\n", "")


@pytest.mark.slow
def test_rows_that_the_model_refuses_are_parted_out_and_the_others_train(tmp_path):
    """`train --check` names the command, which sets them aside."""
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]}
        for n in range(60)
    ]
    rows[7]["messages"][0]["content"] = "What is <|im_end|>?"
    rows[9]["messages"][1]["content"] = "long " * 3000
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.yaml").write_text(
        "model: {base: builtin:tiny}\ndata: {train: rows.jsonl}\nbackend: {kind: local}\n"
    )

    def run(*words):
        command = [sys.executable, "-m", "trainer", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)

    assert run("data", "check", "rows.jsonl").returncode == 0
    checked = run("train", "--check", "--config", "run.yaml")
    assert checked.returncode == 2
    assert "trainer data check rows.jsonl --config CONFIG --reject rejected.jsonl" in checked.stderr
    told = run("data", "check", "rows.jsonl", "--config", "run.yaml", "--reject", "rejected.jsonl", "--format", "json")
    assert told.returncode == 2, told.stderr
    findings = json.loads(told.stdout)["findings"]
    assert [(finding["line"], finding["code"]) for finding in findings] == [(8, "TEMPLATE"), (10, "LENGTH")]
    assert findings[0]["found"] == "messages[0].content holds '<|im_end|>', a control token of this model"
    assert [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()] == [rows[7], rows[9]]
    assert run("train", "--check", "--config", "run.yaml", "data.train=rows.clean.jsonl").returncode == 0
