"""A user's mistake ends the real command with one exit code and words, never with a traceback or a run left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TINY = ("--config", "configs/tiny.yaml")
SMALL = (*TINY, "data.train=data/starter.jsonl", "data.validation=")
BAD_INPUT = 2


def command(*words: str, answer: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program from the repository's folder, without a network."""
    program, *arguments = words
    unwanted = ("FORCE_COLOR", "TRAINER_RUNS", "WORLD_SIZE")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    return subprocess.run(
        [BIN / program, *arguments],
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"} | variables,
        input=answer,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refusal(*words: str) -> list[str]:
    """The lines that a command says on standard error when it refuses its input."""
    done = command(*words)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (BAD_INPUT, ""), done.stderr
    return done.stderr.splitlines()


@pytest.fixture
def runs(tmp_path):
    """A folder for runs; a refused command leaves it as it was."""
    folder = tmp_path / "runs"
    yield folder
    assert not folder.exists()


@pytest.fixture
def stopped(tmp_path) -> Run:
    """A run that was paused before it had an adapter."""
    run = create_run(
        RunConfig.model_validate(
            {
                "model": {"base": "builtin:tiny"},
                "data": {"train": "data/starter.jsonl"},
                "run": {"name": "stopped", "root": str(tmp_path)},
            }
        )
    )
    run.set_status("paused")
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("finished")
    done = command("train", *SMALL, "training.n_epochs=1", f"run.root={root}", "run.name=done")
    assert done.returncode == 0, done.stderr
    return Run(root / "done")


WITHOUT_TORCH = {
    "neither a config nor a run": (
        ["train"],
        ["train: expected --config FILE to start a run, or --resume RUN to resume one"],
    ),
    "a config and a run": (
        ["train", *TINY, "--resume", "x"],
        ["train: expected --config FILE to start a run, or --resume RUN to resume one"],
    ),
    "a config that is not there": (
        ["train", "--config", "configs/tinny.yaml"],
        ["configs/tinny.yaml: no such file, expected a yaml config, did you mean configs/tiny.yaml?"],
    ),
    "an unknown key": (
        ["train", *TINY, "training.n_epoch=1"],
        ["override 'training.n_epoch=1': training.n_epoch: unknown field, did you mean n_epochs?"],
    ),
    "several mistakes": (
        ["train", *TINY, "lora.r=many", "training"],
        [
            "override 'training': not understood, expected section.name=value",
            "override 'lora.r=many': lora.r: is 'many', expected a whole number",
        ],
    ),
    "a run to resume that is not there": (
        ["train", "--resume", "nowhere", "--root", "nowhere-either"],
        ["run 'nowhere': not found in 'nowhere-either'; list the runs with: trainer runs"],
    ),
    "a run to talk to that is not there": (
        ["trainer", "chat", "nowhere", "--root", "nowhere-either", "Hello?"],
        ["run 'nowhere': not found in 'nowhere-either'; list the runs with: trainer runs"],
    ),
    "a run to compare with its base that is not there": (
        ["trainer", "evaluate", "nowhere", "--root", "nowhere-either"],
        ["run 'nowhere': not found in 'nowhere-either'; list the runs with: trainer runs"],
    ),
    "runs to compare that are not there": (
        ["trainer", "compare", "nowhere", "neither", "--root", "nowhere-either"],
        ["run 'nowhere': not found in 'nowhere-either'; list the runs with: trainer runs"],
    ),
    "a run to show that is not there": (
        ["trainer", "show", "nowhere", "--root", "nowhere-either"],
        ["run 'nowhere': not found in 'nowhere-either'; list the runs with: trainer runs"],
    ),
    "a run to delete that is not there": (
        ["trainer", "delete", "nowhere", "--root", "nowhere-either", "--yes"],
        ["run 'nowhere': not found in 'nowhere-either'; list the runs with: trainer runs"],
    ),
}


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_mistake_on_the_command_line_is_told(name):
    words, expected = WITHOUT_TORCH[name]
    assert refusal(*words) == [f"error: {line}" for line in expected]


def test_an_unknown_key_of_a_config_is_told_with_its_line(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("model: {base: builtin:tiny}\ndata: {train: data/starter.jsonl}\ntrainig: {}\n")
    expected = f"error: {config}:3: trainig: unknown field, did you mean training?"
    assert refusal("train", "--config", str(config)) == [expected]


def test_control_characters_of_a_config_do_not_reach_the_terminal(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text('model: {base: x}\ndata: {train: x}\n"\\e[2Jbad": 1\n')
    (line,) = refusal("train", "--config", str(config))
    assert line.startswith(rf"error: {config}:3: \x1b[2Jbad: unknown field")


def test_only_debug_shows_where_an_error_comes_from():
    done = command("train", *TINY, "lora.r=0", "--debug")
    assert done.returncode == BAD_INPUT
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: override 'lora.r=0': lora.r: is 0, expected a number of at least 1"


def test_a_run_that_has_not_begun_takes_no_overrides(stopped):
    assert refusal("train", "--resume", str(stopped.path), "lora.r=4") == [
        "error: run 'stopped': has not begun, expected no overrides; start a new run with them"
    ]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--epochs", "3"], ["training.n_epochs=3"]),
        (["--num-train-epochs=3", "--lr", "1e-4"], ["training.n_epochs=3", "training.learning_rate=1e-4"]),
        (["--per_device_train_batch_size", "8"], ["training.batch_size=8"]),
        (["--load-in-4bit"], ["model.quantization=nf4"]),
        (["--seed", "-c"], ["training.seed=VALUE"]),
        (["--model", "builtin:tiny"], ["model.base=builtin:tiny"]),
        (["--training.n_epochs", "2"], ["training.n_epochs=2"]),
        (["--warmup-steps", "10", "--max-steps=100"], ["training.warmup_ratio=VALUE", "training.n_epochs=VALUE"]),
        (["--val", "v.jsonl", "--max-seq-len", "512"], ["data.validation=v.jsonl", "data.max_length=512"]),
        (["--qlora", "--output", "here"], ["model.quantization=nf4", "run.root=here"]),
    ],
)
def test_a_setting_that_is_typed_as_an_option_is_shown_as_it_is_written(words, settings):
    """In the process: nothing is loaded for it."""
    from typer.testing import CliRunner

    from trainer.cli.main import train_app

    found = CliRunner().invoke(train_app, ["--config", "configs/tiny.yaml", *words])
    assert found.exit_code == BAD_INPUT
    told = re.findall(r"settings are no options, expected section\.name=value; write (\S+)", found.output)
    assert told == settings


# Data


def test_a_missing_data_file_is_told_with_the_one_that_was_meant(runs):
    (line,) = refusal("train", *TINY, "data.train=data/startr.jsonl", f"run.root={runs}")
    assert line == (
        "error: data/startr.jsonl: the file does not exist, expected a chat JSONL file; "
        f"did you mean data/starter.jsonl? (looked for below {ROOT})"
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("data.train=nothing.jsonl", "nothing.jsonl: the file does not exist"),
        ("training.n_epoch=3", "training.n_epoch: unknown field"),
        ("training.early_stopping_patience=3", "but has no effect without validation data"),
    ],
)
def test_a_mistake_is_told_before_torch_is_loaded(override, problem):
    """Loading it takes seconds."""
    code = (
        "import sys, runpy, atexit\n"
        "atexit.register(lambda: print(sorted(name for name in ('torch', 'transformers') if name in sys.modules)))\n"
        "runpy.run_module('trainer', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "train", "--check", *TINY, "data.validation=null", override]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "[]")
    assert problem in done.stderr


def test_an_empty_data_file_is_refused(tmp_path, runs):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    (line,) = refusal("train", *TINY, f"data.train={empty}", "data.validation=", f"run.root={runs}")
    assert line == f"error: {empty}: NO_ROWS: the file is empty, expected chat rows; check the path"


def test_broken_rows_are_told_with_their_lines(runs):
    *lines, last = refusal("train", *TINY, "data.train=data/broken.jsonl", "data.validation=", f"run.root={runs}")
    assert len(lines) == 20
    assert [line for line in lines if not re.match(r"error: data/broken\.jsonl:\d+(:\d+)?: [A-Z_]+: ", line)] == []
    assert re.fullmatch(r"error: … and \d+ more", last)


def test_rows_that_are_all_too_long_are_refused(runs):
    first, *lines, last = refusal("train", *SMALL, "data.max_length=5", f"run.root={runs}")
    assert re.fullmatch(
        r"error: data\.max_length: 10 rows exceed 5 tokens \(longest \d+ at data/starter\.jsonl:\d+\); "
        r"raise it, or set data\.on_overlength to drop or truncate",
        first,
    )
    places = [line.partition(": LENGTH: ")[0] for line in [*lines, last]]
    assert places == [f"error: data/starter.jsonl:{number}" for number in range(1, 11)]


# The base


def test_an_unknown_base_is_refused(runs):
    (line,) = refusal("train", *TINY, "model.base=acme/none", f"run.root={runs}")
    assert line.startswith("error: model.base: 'acme/none' was not found as a folder here nor on the model hub (")
    assert "expected a hub id, a folder or builtin:tiny" in line


def test_a_base_without_a_config_is_refused(tmp_path, runs):
    (line,) = refusal("train", *TINY, f"model.base={tmp_path}", f"run.root={runs}")
    assert line == (
        f"error: model.base: the folder {str(tmp_path)!r} has no config.json, expected a model in Hugging Face format"
    )


def test_a_base_without_safetensors_is_refused(tmp_path, runs):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").touch()
    (line,) = refusal("train", *TINY, f"model.base={tmp_path}", f"run.root={runs}")
    assert line == (
        f"error: model.base: the folder {str(tmp_path)!r} has no safetensors weights, expected *.safetensors; "
        "convert it with save_pretrained of transformers"
    )


# Runs


def test_a_root_that_is_a_file_is_refused(tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    assert refusal("train", *SMALL, f"run.root={taken}")[-1] == (
        f"error: run.root: {str(taken)!r} is a file, expected a folder; choose another"
    )


def test_a_tilde_is_the_home_folder_wherever_it_stands(stopped):
    home, root = str(stopped.path.parent.parent), str(stopped.path.parent)
    tilde = f"~/{stopped.path.parent.name}"
    for words, variable in ((["--root", tilde], ""), ([], tilde), ([f"run.root={tilde}"], "")):
        done = command("train", *SMALL, *words, "run.name=stopped", TRAINER_RUNS=variable or "elsewhere", HOME=home)
        assert f"run.name: 'stopped' exists in {root!r}" in done.stderr
    assert "stopped" in command("trainer", "runs", "--root", tilde, HOME=home).stdout


ROOTS = {  # words and TRAINER_RUNS
    "the variable": ([], "{}"),
    "the option before the variable": (["--root", "{}"], "elsewhere"),
    "the setting before the variable": (["run.root={}"], "elsewhere"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_one_rule_says_where_runs_are_kept(stopped, name):
    words, variable = ROOTS[name]
    root = str(stopped.path.parent)
    words = [word.format(root) for word in words]
    done = command("train", *SMALL, *words, "run.name=stopped", TRAINER_RUNS=variable.format(root))
    assert done.returncode == BAD_INPUT
    assert f"run.name: 'stopped' exists in {root!r}" in done.stderr


def test_two_roots_on_the_command_line_are_refused():
    assert refusal("train", *SMALL, "--root", "a", "run.root=b") == [
        "error: --root: is 'a' beside run.root=b, expected one; remove one"
    ]


EARLY = {
    "a missing data file": (["data.train=data/starter.jsnl"], "does not exist"),
    "a taken name": (["run.root={root}", "run.name=stopped"], "exists in"),
    "a root that is a file": (["run.root=Makefile"], "is a file, expected a folder"),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_needs_no_model_is_told_before_torch_is_loaded(stopped, name):
    words, problem = EARLY[name]
    words = [word.format(root=stopped.path.parent) for word in words]
    done = command("train", *SMALL, *words, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert (done.returncode, "trainer.cli.main" in imported) == (BAD_INPUT, True)
    assert problem in done.stderr
    assert imported & {"torch", "transformers", "pyarrow", "datasets"} == set()


def test_a_run_name_that_exists_is_refused(finished):
    before = sorted(finished.path.rglob("*"))
    root = finished.path.parent
    assert refusal("train", *SMALL, f"run.root={root}", "run.name=done")[-1] == (
        f"error: run.name: 'done' exists in {str(root)!r}, expected a new name; "
        f"choose another, or to train it further start a new run with model.base={finished.path}"
    )
    assert (sorted(finished.path.rglob("*")), finished.state) == (before, "succeeded")


def test_a_finished_run_is_not_resumed(finished):
    assert refusal("train", "--resume", str(finished.path)) == [
        "error: run 'done': is succeeded, expected an unfinished run; "
        f"to train it further start a new run with model.base={finished.path}"
    ]


def test_a_run_that_is_running_is_not_resumed(stopped):
    stopped.set_status("running")
    assert refusal("train", "--resume", str(stopped.path)) == [
        f"error: run 'stopped': is in use by process {os.getpid()} on {socket.gethostname()!r}, "
        f"expected a stopped run; stop it with: trainer pause {stopped.path}"
    ]


def test_a_run_without_an_adapter_cannot_be_talked_to(stopped):
    assert refusal("trainer", "chat", str(stopped.path), "Hello?") == [
        "error: run 'stopped': has no adapter (its state is paused), expected a finished run; "
        f"resume with: train --resume {stopped.path}"
    ]


def test_a_run_without_an_adapter_is_not_compared_with_its_base(stopped):
    assert refusal("trainer", "evaluate", str(stopped.path), "--rows", "data/glossary_validation.jsonl") == [
        "error: run 'stopped': has no adapter (its state is paused), expected a finished run; "
        f"resume with: train --resume {stopped.path}"
    ]


def test_a_run_without_held_out_rows_needs_a_file_of_them(finished):
    assert refusal("trainer", "evaluate", str(finished.path)) == [
        "error: run 'done': has no held-out rows (data.validation is not set), expected a file of them; "
        f"run: trainer evaluate {finished.path} --rows FILE"
    ]


def test_one_run_is_not_compared_with_itself(finished):
    assert refusal("trainer", "compare", str(finished.path), str(finished.path)) == [
        "error: trainer compare: got 'done', 'done', expected two or more different runs, or one with --gate or --judge"
    ]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("\n", 0), ("", 2), ("what\nn\n", 0)])
def test_a_run_is_not_deleted_without_a_yes(stopped, answer, code):
    done = command("trainer", "delete", str(stopped.path), answer=answer)
    assert (done.returncode, done.stdout.strip()) == (code, "")
    assert done.stderr.startswith(f"delete {stopped.path} with everything in it? [y/N]:")
    assert "Traceback" not in done.stderr
    assert stopped.state == "paused"


def test_ctrl_c_at_a_question_is_an_interruption(stopped):
    process = subprocess.Popen(
        [BIN / "trainer", "delete", str(stopped.path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    asked = ""
    while not asked.endswith("[y/N]:"):
        asked += (char := process.stderr.read(1))
        assert char
    time.sleep(0.3)  # between the question and waiting for its answer
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert (process.returncode, rest.strip()) == (130, "interrupted")
    assert stopped.path.is_dir()


def test_a_run_that_was_not_deleted_is_told(stopped):
    done = command("trainer", "delete", "stopped", "--root", str(stopped.path.parent), answer="n\n")
    assert done.stderr == f"delete {stopped.path} with everything in it? [y/N]:nothing was deleted\n"


@pytest.mark.parametrize(("option", "answer"), [((), "y\n"), (("--yes",), "")])
def test_a_run_is_deleted_with_a_yes(stopped, option, answer):
    done = command("trainer", "delete", str(stopped.path), *option, answer=answer)
    assert (done.returncode, stopped.path.exists()) == (0, False)
    assert done.stderr.endswith(f"deleted {stopped.path}\n")


def test_a_run_that_is_running_is_not_deleted(stopped):
    stopped.set_status("running")
    assert refusal("trainer", "delete", str(stopped.path), "--yes") == [
        "error: run 'stopped': is running, expected a stopped run; stop its process first"
    ]
    assert stopped.path.exists()
