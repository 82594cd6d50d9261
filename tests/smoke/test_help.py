"""Every command explains itself, and at once."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from trainer.cli.main import train_app, trainer_app

BIN = Path(sys.executable).parent
SLOW = {
    "torch", "transformers", "peft", "trl", "datasets", "accelerate", "numpy", "jsonschema", "jinja2", "azure",
    "openai", "tiktoken", "matplotlib", "starlette", "uvicorn",
}  # fmt: skip
HELP_SECONDS = 0.3  # of processor time: a command that loads torch to explain itself needs seconds


def commands(program: str, command: Any) -> Iterator[tuple[str, ...]]:
    """The words of every command and subcommand below `program`."""
    yield (program,)
    for name, inner in getattr(command, "commands", {}).items():
        for words in commands(name, inner):
            yield (program, *words)


COMMANDS = [
    *commands("train", typer.main.get_command(train_app)),
    *commands("trainer", typer.main.get_command(trainer_app)),
]


def asked(*words: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    program, *arguments = words
    argv = [sys.executable, "-m", "trainer"] if program == "python -m trainer" else [BIN / program]
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TRAINER_RUNS")}
    done = subprocess.run(
        [*argv, *arguments], capture_output=True, text=True, env=environment | {"COLUMNS": "100", "NO_COLOR": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def without_usage(page: str) -> list[str]:
    """The lines of a help page but the one that repeats how the program was called."""
    lines = page.splitlines()
    usage = [line for line in lines if line.startswith(" Usage: ")]
    assert len(usage) == 1
    return [line.rstrip() for line in lines if line not in usage]


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_all_commands_are_walked():
    assert {" ".join(words) for words in COMMANDS} >= {
        "train",
        "trainer",
        "trainer train",
        "trainer chat",
        "trainer runs",
        "trainer show",
        "trainer logs",
        "trainer checkpoints",
        "trainer delete",
        "trainer data check",
        "trainer data convert",
        "trainer data split",
        "trainer data stats",
        "trainer data preview",
        "trainer config schema",
        "trainer config reference",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_explains_itself_without_what_is_slow_to_load(words):
    program, *arguments = words
    done = subprocess.run(
        [BIN / program, *arguments, "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
    )
    imports = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert "trainer.cli.main" in imports
    assert {name.partition(".")[0] for name in imports} & SLOW == set()


@pytest.mark.long  # a busy machine makes it red
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_explains_itself_at_once(words):
    seconds = []
    for _ in range(3):
        before = children_seconds()
        page = asked(*words, "--help")
        seconds.append(children_seconds() - before)
        if min(seconds) < HELP_SECONDS:
            break
    assert f"Usage: {' '.join(words)} " in page
    assert min(seconds) < HELP_SECONDS


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_and_each_of_its_parameters_say_what_they_do(words):
    command: Any = typer.main.get_command(train_app if words[0] == "train" else trainer_app)
    for word in words[1:]:
        command = command.commands[word]
    assert command.help
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


def test_the_short_option_explains_too():
    assert asked("trainer", "-h") == asked("trainer", "--help")
    assert asked("train", "-h") == asked("train", "--help")


def test_the_module_is_the_program():
    assert without_usage(asked("python -m trainer", "--help")) == without_usage(asked("trainer", "--help"))


def test_both_ways_to_train_take_the_same():
    assert without_usage(asked("trainer", "train", "--help")) == without_usage(asked("train", "--help"))


def test_every_command_stands_in_a_group_in_the_order_of_the_journey():
    titles = [line.split("─ ")[1].split(" ─")[0] for line in asked("trainer", "--help").splitlines() if line[:1] == "╭"]
    assert titles == ["Options", "data", "train", "look at runs", "use a model", "cloud"]
