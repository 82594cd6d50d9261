"""Finished runs on builtin:tiny, or on a base made of it, for tests of what comes after training."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.conftest import QUESTIONS
from trainer.config import RunConfig
from trainer.runs import Run, create_run
from trainer.training.fit import fit
from trainer.training.prepare import prepare

END = "<|end_of_turn|>"


def train(root: Path, name: str = "tuned", **changes: Any) -> Run:
    """A run of 16 steps; settings are overridden as section__name=value."""
    for file, rows in (("train.jsonl", QUESTIONS[:20]), ("validation.jsonl", QUESTIONS[20:])):
        (root / file).write_text("".join(map(_row, rows)), encoding="utf-8")
    values: dict[str, dict[str, Any]] = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": str(root / "train.jsonl"), "validation": str(root / "validation.jsonl")},
        "lora": {"r": 4},
        "training": {"n_epochs": 4, "batch_size": 5, "learning_rate": 5e-3, "save_total_limit": 1},
        "run": {"root": str(root / "runs"), "name": name},
    }
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        values.setdefault(section, {})[key] = value
    prepared = prepare(RunConfig.model_validate(values), lambda message: None)
    run = create_run(prepared.config)
    fit(prepared, run, Console(file=io.StringIO()))
    return run


def _row(turn: tuple[str, str]) -> str:
    system = {"role": "system", "content": "You count."}
    messages = [system, {"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return json.dumps({"messages": messages}) + "\n"


def untied_base(folder: Path) -> Path:
    """builtin:tiny as a folder of its own: untied embeddings, and an added token that ends a turn."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.model.tiny import tiny_base

    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    tokenizer.add_special_tokens({"additional_special_tokens": [END]})
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", END)
    model = AutoModelForCausalLM.from_pretrained(tiny_base(), dtype="float32")
    model.config.tie_word_embeddings = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = model.get_input_embeddings().weight.detach().clone()
        model.lm_head.weight = torch.nn.Parameter(head + 0.01 * torch.randn_like(head))
        model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlicense_link: https://example.org/l\n---\n# Base\n")
    return folder


def calling_rows(path: Path) -> Path:
    """Rows that call a tool and then say its result."""
    path.write_text("".join(_calling_row(a, b) for a in range(1, 5) for b in range(1, 5)), encoding="utf-8")
    return path


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}


def _calling_row(a: int, b: int) -> str:
    call = {
        "id": f"call_{a}_{b}",
        "type": "function",
        "function": {"name": "add", "arguments": f'{{"a": {a}, "b": {b}}}'},
    }
    messages = [
        {"role": "user", "content": f"Add {a} and {b}."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": str(a + b)},
        {"role": "assistant", "content": f"It is {a + b}."},
    ]
    return json.dumps({"messages": messages, "tools": [ADD]}) + "\n"
