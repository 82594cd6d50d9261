"""What needs no library to be known is told before one is loaded; a line in a terminal says what is loaded."""

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.smoke.test_base_installation import settings
from trainer.runs import create_run

ROOT = Path(__file__).parents[2]
LOADING = {  # these import torch
    "trainer.backends.local",
    "trainer.inference.local",
    "trainer.training.prepare",
    "trainer.training.row_findings",
}
SLOW = {"torch", "transformers", "peft", "trl", "numpy"}
ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'


# All commands in one process, each with what it has loaded; the tests' own process has loaded everything.
PROGRAM = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.commands import performed
for line in sys.stdin.read().splitlines():
    before = set(sys.modules)
    words = line.split()
    done = performed(tuple(words if words[0] == "train" else words[1:]), lambda: 0.0)
    loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
    print(json.dumps([done.code, done.errors, sorted(loaded)]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A config that is right, rows with an error and rows without, and runs with no adapter."""
    tmp_path = tmp_path_factory.mktemp("user")
    (tmp_path / "good.jsonl").write_text(ROW * 12)
    (tmp_path / "bad.jsonl").write_text(ROW * 12 + '{"messages": [{"role": "human", "content": "Hi"}]}\n')
    (tmp_path / "c.yaml").write_text("model: {base: builtin:tiny}\ndata: {train: good.jsonl}\n")
    for name, state in (("done", "succeeded"), ("gone", "cancelled"), ("begun", "paused")):
        create_run(settings(tmp_path / "runs", name)).set_status(state)
    return tmp_path


CASES = {
    "an unknown setting": ("train -c c.yaml training.n_epoch=3", "training.n_epoch: unknown field"),
    "a setting as an option": ("train -c c.yaml --epochs 3", "write training.n_epochs=3"),
    "no such file of rows": ("train -c c.yaml data.train=gone.jsonl", "gone.jsonl: the file does not exist"),
    "a row with an error": ("train -c c.yaml data.train=bad.jsonl", "bad.jsonl:13: ROLE:"),
    "a run's name that is taken": ("train -c c.yaml run.name=done", "run.name: 'done' exists in 'runs'"),
    "a root that is a file": ("train -c c.yaml run.root=c.yaml", "c.yaml"),
    "an unknown builtin": ("train -c c.yaml model.base=builtin:small", "model.base: 'builtin:small' is not known"),
    "a folder that is not there": ("train -c c.yaml model.base=./models/none", "was not found as a folder here"),
    "a file as a base": ("train -c c.yaml model.base=good.jsonl", "is a file, expected the folder"),
    "a run that is not there": ("train -c c.yaml model.base=runs/none", "'runs/none' is no run"),
    "a template that is not there": ("train -c c.yaml model.chat_template=t.jinja", "'t.jinja' cannot be read"),
    "several names": (
        "train -c c.yaml run.name=done model.base=builtin:small data.train=gone.jsonl model.chat_template=t.jinja",
        "run.name: 'done' exists", "'builtin:small' is not known", "gone.jsonl: the file", "'t.jinja' cannot be read",
    ),
    "a preview of a row with an error": ("trainer data preview bad.jsonl -c c.yaml", "bad.jsonl:13: ROLE:"),
    "resuming what has ended": ("trainer resume gone", "is cancelled, expected an unfinished run"),
    "chatting with nothing": ("trainer chat begun", "has no adapter"),
    "evaluating nothing": ("trainer evaluate begun", "has no adapter"),
    "serving nothing": ("trainer serve begun", "has no adapter"),
    "exporting nothing": ("trainer export begun --output new", "has no adapter"),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(folder):
    lines = "\n".join(line for line, *_ in CASES.values())
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, input=lines, capture_output=True, text=True)
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_before_a_library_is_loaded(name, answers):
    code, said, loaded = answers[name]
    _, *expected = CASES[name]
    assert code == 2
    assert [told for told in expected if not any(told in line for line in said)] == [], said
    assert len(said) == len(expected), said
    assert set(loaded) & SLOW == set()


def test_a_terminal_shows_a_line_while_libraries_load_and_a_pipe_does_not():
    words = [sys.executable, "-c", "from trainer.cli.console import loading\nwith loading(): pass"]
    piped = subprocess.run(words, capture_output=True, text=True)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "", "")
    shown = pexpect.run(shlex.join(words), env=os.environ | {"TERM": "xterm"}).decode()
    _, _, after = shown.partition("loading torch and transformers …")
    assert after.endswith("\x1b[1A\x1b[2K")  # the line is wiped


def test_every_command_that_loads_them_shows_the_line():
    without = []
    for path in (ROOT / "src" / "trainer" / "cli").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        shown = {id(inner) for node in ast.walk(tree) if _is_loading(node) for inner in ast.walk(node)}
        without += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in LOADING and id(node) not in shown
        ]
    assert without == []


def _is_loading(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any(ast.unparse(item.context_expr) == "loading()" for item in node.items)
