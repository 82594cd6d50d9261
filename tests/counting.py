"""Runs on questions about numbers, on the tiny model, with a talk of several turns among the held-out rows."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.conftest import QUESTIONS
from trainer.backends.choose import choose
from trainer.backends.contract import Screen
from trainer.config import RunConfig
from trainer.runs import Run

TALK = {
    "messages": [
        {"role": "system", "content": "You count."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two, you fool.", "weight": 0},
        {"role": "user", "content": "Three?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Five?"},
        {"role": "assistant", "content": "Six."},
    ]
}


def chat_row(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


HELD_OUT = [*(chat_row(*pair) for pair in QUESTIONS[18:]), TALK]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def counting_config(folder: Path) -> RunConfig:
    """A run of some seconds that learns most of its rows."""
    train = write(folder / "train.jsonl", [chat_row(*pair) for pair in QUESTIONS[:18]])
    return RunConfig.model_validate(
        {
            "model": {"base": "builtin:tiny"},
            "data": {"train": train, "validation": write(folder / "held.jsonl", HELD_OUT)},
            "lora": {"r": 8},
            "training": {"n_epochs": 8, "batch_size": 6, "learning_rate": 5e-3},
            "run": {"root": str(folder / "runs"), "name": "counting"},
        }
    )  # fmt: skip


def launch(config: RunConfig, console: Console | None = None) -> tuple[Run, Any]:
    backend = choose("local", Screen(console or quiet()))
    plan = backend.check(config, print)
    run = backend.create(plan, may_exist=False)
    backend.launch(plan, run, print)
    return run, backend.follow(run, print)
