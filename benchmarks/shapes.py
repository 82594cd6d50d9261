"""The rows of one optimizer step in four shapes, and the least work that training on them takes."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.packing import make_packs
from trainer.data.rendering import IGNORE_INDEX, Example

VOCAB, HIDDEN, MLP, HEADS, KEY_HEADS, HEAD = 49_152, 576, 1536, 9, 3, 64
RANK = 16

# A sample file below TRAINER_SAMPLE_DATA, or None for random tokens of published lengths.
SHAPES = {
    "tool calls": "tool_calls/stock_toolcall_training.jsonl",
    "GSM8K": "gsm8k/chat_train.jsonl",
    "short answers": None,
    "unshared": None,
}


@dataclass(frozen=True)
class Step:
    """The rows of one optimizer step."""

    examples: list[Example]

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORE_INDEX for example in self.examples for label in example.labels[1:])

    @property
    def num_tokens(self) -> int:
        return sum(len(example.input_ids) for example in self.examples)

    def flops(self, layers: int, deduplicated: bool) -> float:
        """Least work of LoRA on every linear layer: no padding, nothing twice, the head on supervised tokens only."""
        packs = make_packs(self.examples, 10**9)
        lengths = [len(example.input_ids) for example in self.examples]
        tokens = sum(len(pack.input_ids) for pack in packs) if deduplicated else sum(lengths)
        nominal = sum(length * (length + 1) // 2 for length in lengths)
        pairs = sum(int((pack.position_ids + 1).sum()) for pack in packs) if deduplicated else nominal
        width, key_width = HEADS * HEAD, KEY_HEADS * HEAD
        shapes = [(HIDDEN, width), (HIDDEN, key_width), (HIDDEN, key_width), (width, HIDDEN)]
        shapes += [(HIDDEN, MLP), (HIDDEN, MLP), (MLP, HIDDEN)]
        linear, adapter = sum(a * b for a, b in shapes), sum(RANK * (a + b) for a, b in shapes)
        per_token = layers * (4 * linear + 6 * adapter) - 2 * HIDDEN * (width + 2 * key_width)
        return per_token * tokens + 12 * width * layers * pairs + 4 * HIDDEN * VOCAB * self.num_supervised

    def describe(self) -> dict[str, Any]:
        computed = sum(len(pack.input_ids) for pack in make_packs(self.examples, 10**9))
        return {
            "rows": len(self.examples),
            "tokens": self.num_tokens,
            "supervised": self.num_supervised,
            "unique": computed,
        }


def step_of(shape: str, rows: int) -> Step:
    """The first `rows` rows of a shape."""
    file = SHAPES[shape]
    if file is not None:
        return Step(_real(Path(os.environ["TRAINER_SAMPLE_DATA"]) / file, rows))
    return Step(_short_answers(rows) if shape == "short answers" else _unshared(rows))


def _real(path: Path, rows: int) -> list[Example]:
    """Through the builtin model's tokenizer and template, as no other is at hand without a network."""
    from transformers import AutoTokenizer

    from trainer.data.conversations import read_conversations
    from trainer.data.rendering import Renderer
    from trainer.model.tiny import tiny_base

    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_base()))
    conversations = read_conversations(path).conversations[:rows]
    return [example for conversation in conversations for example in renderer.render(conversation)]


def _short_answers(rows: int) -> list[Example]:
    """A system prompt of 500 tokens, questions of about 35, answers of about 40."""
    source = random.Random(0)
    prompt = _tokens(source, 500)
    return [
        _row(prompt + _tokens(source, _length(source, 35)), _tokens(source, _length(source, 40))) for _ in range(rows)
    ]


def _unshared(rows: int) -> list[Example]:
    """Lengths of open assistant conversations: about 56 tokens of prompts and 340 of answers, nothing in common."""
    source = random.Random(0)
    return [_row(_tokens(source, _length(source, 56)), _tokens(source, _length(source, 340))) for _ in range(rows)]


def _length(source: random.Random, mean: float) -> int:
    """Log-normal, so that a few are long; at most 2,000."""
    return max(4, min(2000, int(source.lognormvariate(0, 0.8) * mean / 1.377)))  # exp(0.8 ** 2 / 2)


def _tokens(source: random.Random, count: int) -> list[int]:
    return [source.randrange(10, VOCAB) for _ in range(count)]


def _row(prompt: list[int], answer: list[int]) -> Example:
    return Example((*prompt, *answer), (*[IGNORE_INDEX] * len(prompt), *answer))
