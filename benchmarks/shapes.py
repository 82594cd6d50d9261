"""The rows of one optimizer step in four shapes, and the least work that training on them takes."""

import os
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.data.pack.packing import make_packs
from trainer.data.render.rendering import IGNORE_INDEX, Example

RANK = 16
LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Model:
    """A Llama by its shape; its weights are random."""

    vocab: int
    hidden: int
    mlp: int
    heads: int
    key_heads: int
    head: int
    layers: int
    tied: bool = True

    def linear(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's products; the first three read the same."""
        width, key_width = self.heads * self.head, self.key_heads * self.head
        attention = [(self.hidden, width), (self.hidden, key_width), (self.hidden, key_width), (width, self.hidden)]
        return [*attention, (self.hidden, self.mlp), (self.hidden, self.mlp), (self.mlp, self.hidden)]


MODELS = {
    "tiny": Model(2048, 64, 128, 4, 2, 16, 2),
    "135M": Model(49_152, 576, 1536, 9, 3, 64, 30),
    "1B": Model(128_256, 2048, 8192, 32, 8, 64, 16),
    "8B": Model(128_256, 4096, 14_336, 32, 8, 128, 32, tied=False),
}


@dataclass(frozen=True)
class Job:
    """The work of one process of the benchmark."""

    device: str
    model: str
    layers: int
    quantization: str
    rows_like: str
    rows: int
    folder: str = ""  # where gradients are left
    arm: str = ""

    @property
    def shape(self) -> Model:
        return replace(MODELS[self.model], layers=self.layers)

    @property
    def step(self) -> "Step":
        return step_of(self.rows_like, self.rows, min(VOCAB, self.shape.vocab))


VOCAB = 49_152  # of the random rows: all but the smallest model know them

# A sample file below TRAINER_SAMPLE_DATA, or None for random tokens of published lengths.
SHAPES = {
    "tool calls": "tool_calls/stock_toolcall_training.jsonl",
    "GSM8K": "gsm8k/chat_train.jsonl",
    "short answers": None,
    "unshared": None,
    "tool calls, published lengths": None,
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

    def flops(self, model: Model, deduplicated: bool) -> float:
        """Least work of LoRA on every linear layer: no padding, nothing twice, the head on supervised tokens only."""
        packs = make_packs(self.examples, 10**9)
        lengths = [len(example.input_ids) for example in self.examples]
        tokens = sum(len(pack.input_ids) for pack in packs) if deduplicated else sum(lengths)
        nominal = sum(length * (length + 1) // 2 for length in lengths)
        pairs = sum(int((pack.position_ids + 1).sum()) for pack in packs) if deduplicated else nominal
        shapes, layers = model.linear(), model.layers
        linear, adapter = sum(a * b for a, b in shapes), sum(RANK * (a + b) for a, b in shapes)
        per_token = layers * (4 * linear + 6 * adapter) - 2 * sum(a * b for a, b in shapes[:3])
        attention = 12 * model.heads * model.head * layers * pairs
        return per_token * tokens + attention + 4 * model.hidden * model.vocab * self.num_supervised

    def describe(self) -> dict[str, Any]:
        computed = sum(len(pack.input_ids) for pack in make_packs(self.examples, 10**9))
        return {
            "rows": len(self.examples),
            "tokens": self.num_tokens,
            "supervised": self.num_supervised,
            "unique": computed,
        }


def step_of(shape: str, rows: int, vocab: int = VOCAB) -> Step:
    """The first `rows` rows of a shape; random ones are of tokens below `vocab`."""
    file = SHAPES[shape]
    if file is not None:
        return Step(_real(Path(os.environ["TRAINER_SAMPLE_DATA"]) / file, rows))
    make = {"short answers": _short_answers, "unshared": _unshared}.get(shape, _tool_calls)
    return Step(make(rows, vocab))


def _real(path: Path, rows: int) -> list[Example]:
    """Through the builtin model's tokenizer and template, as no other is at hand without a network."""
    from transformers import AutoTokenizer

    from trainer.data.read.rows import read_conversations
    from trainer.data.render.rendering import Renderer
    from trainer.model.tiny import tiny_base

    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_base()))
    conversations = read_conversations(path).conversations[:rows]
    return [example for conversation in conversations for example in renderer.render(conversation)]


def _short_answers(rows: int, vocab: int) -> list[Example]:
    """A system prompt of 500 tokens, questions of about 35, answers of about 40."""
    source = random.Random(0)
    prompt = _tokens(source, 500, vocab)
    return [
        _row(prompt + _tokens(source, _length(source, 35), vocab), _tokens(source, _length(source, 40), vocab))
        for _ in range(rows)
    ]


def _tool_calls(rows: int, vocab: int) -> list[Example]:
    """As the sample's tool calls are in the tokens of Llama 3.1: tools of 290, questions of 13, calls of up to 50."""
    source = random.Random(0)
    prompt = _tokens(source, 290, vocab)
    return [
        _row(prompt + _tokens(source, source.randint(10, 16), vocab), _tokens(source, source.randint(2, 50), vocab))
        for _ in range(rows)
    ]


def _unshared(rows: int, vocab: int) -> list[Example]:
    """Lengths of open assistant conversations: about 56 tokens of prompts and 340 of answers, nothing in common."""
    source = random.Random(0)
    return [
        _row(_tokens(source, _length(source, 56), vocab), _tokens(source, _length(source, 340), vocab))
        for _ in range(rows)
    ]


def _length(source: random.Random, mean: float) -> int:
    """Log-normal, so that a few are long; at most 2,000."""
    return max(4, min(2000, int(source.lognormvariate(0, 0.8) * mean / 1.377)))  # exp(0.8 ** 2 / 2)


def _tokens(source: random.Random, count: int, vocab: int) -> list[int]:
    return [source.randrange(10, vocab) for _ in range(count)]


def _row(prompt: list[int], answer: list[int]) -> Example:
    return Example((*prompt, *answer), (*[IGNORE_INDEX] * len(prompt), *answer))
