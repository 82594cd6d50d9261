"""Tokenizers, models and prepared runs that are built in-process: no test needs a network."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.costs import pytest_addoption as pytest_addoption
from tests.costs import pytest_runtest_logstart as pytest_runtest_logstart
from tests.costs import pytest_runtest_makereport as pytest_runtest_makereport
from tests.costs import pytest_terminal_summary as pytest_terminal_summary
from tests.guard import pytest_sessionstart as pytest_sessionstart
from trainer.config import RunConfig
from trainer.data.conversations import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from trainer.runs import Run

REPOSITORY = Path(__file__).parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # results of one process are held against those of another

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(template: str | None, special: Sequence[str], **arguments: Any) -> "PreTrainedTokenizerFast":
    """A byte-level tokenizer without merges: every byte is a token, beside the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    recipe = trainers.BpeTrainer(special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a"], recipe)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **arguments)
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.chat_template = template
    return fast


def talk(*turns: tuple[str, str], tools: Sequence[dict[str, Any]] = (), untrained: Sequence[int] = ()) -> Conversation:
    """A conversation of (role, content) turns; `untrained` are the numbers of messages with weight 0."""
    messages = [Message(role, text, weight=0 if i in untrained else 1) for i, (role, text) in enumerate(turns)]
    return Conversation(tuple(messages), tuple(tools), "rows.jsonl", 1)


Rows = Sequence[tuple[str, str] | dict[str, Any]]
QUESTIONS = [
    (f"What is number {number}?", f"Number {number} is the one after {number - 1}.") for number in range(1, 25)
]


def rows_writer(folder: Path) -> Callable[..., Path]:
    """Writes question-and-answer rows (or whole row objects) as chat JSONL; returns the file's path."""

    def write(rows: Rows, name: str = "train.jsonl") -> Path:
        objects = [
            row
            if isinstance(row, dict)
            else {"messages": [{"role": "user", "content": row[0]}, {"role": "assistant", "content": row[1]}]}
            for row in rows
        ]
        path = folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in objects), encoding="utf-8")
        return path

    return write


def make_settings(folder: Path) -> Callable[..., RunConfig]:
    """Makes configs of short runs on builtin:tiny; settings are overridden as section__name=value."""
    write_rows = rows_writer(folder)

    def make(**changes: Any) -> RunConfig:
        values: dict[str, dict[str, Any]] = {
            "model": {"base": "builtin:tiny"},
            "data": {
                "train": str(write_rows(QUESTIONS[:20])),
                "validation": str(write_rows(QUESTIONS[20:], "validation.jsonl")),
            },
            "lora": {"r": 4},
            "training": {"n_epochs": 2, "batch_size": 6, "learning_rate": 1e-3},
            "run": {"root": str(folder / "runs")},
        }
        for dotted, value in changes.items():
            section, _, name = dotted.partition("__")
            values.setdefault(section, {})[name] = value
        return RunConfig.model_validate(values)

    return make


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    return rows_writer(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., RunConfig]:
    return make_settings(tmp_path)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished run, trained once for all tests that only look at one."""
    from tests.tiny_runs import train

    return train(tmp_path_factory.mktemp("tuned"))
