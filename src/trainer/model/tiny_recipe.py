"""Recipe of `builtin:tiny`: `make tiny-base` trains tokenizer and weights on the bundled text again.

Training gives other numbers on another processor, so what it made once is shipped, and nobody but a maintainer runs
this. The new folder's digest goes into `tiny.py`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.model.tiny import FOLDER, digest

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 1536
CONTEXT = 2048
PRETRAINING_STEPS = 400
PRETRAINING_TOKENS = 1024  # a step sees this many tokens in a row
LEARNING_RATE = 3e-3
SEED = 0


def make_base(folder: Path) -> None:
    """Train tokenizer and weights, and write them to `folder`; the weights in bfloat16, as published models do."""
    import torch

    tokenizer = _train_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _pretrain(_new_model(tokenizer), token_stream(tokenizer))
    tokenizer.save_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it readable by the owner alone


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def conversations() -> Iterator[list[dict[str, str]]]:
    """The bundled text's blocks as messages."""
    for block in _text("tiny_corpus.txt").strip().split("\n\n"):
        yield [dict(zip(("role", "content"), line.split(": ", 1), strict=True)) for line in block.splitlines()]


def _train_tokenizer() -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    recipe = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [message["content"] for messages in conversations() for message in messages]
    tokenizer.train_from_iterator([*texts, "system\nuser\nassistant\ntool\n"], recipe)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=_text("tiny_template.jinja"),
        model_max_length=CONTEXT,
    )


def _new_model(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_stream(tokenizer: "PreTrainedTokenizerFast") -> "torch.Tensor":
    """The bundled conversations as the chat template writes them, one after the other: int64 [T]."""
    import torch

    text = "".join(str(tokenizer.apply_chat_template(messages, tokenize=False)) for messages in conversations())
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])


def _pretrain(model: "LlamaForCausalLM", stream: "torch.Tensor") -> "LlamaForCausalLM":
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=PRETRAINING_STEPS)
    model.train()
    for _ in range(PRETRAINING_STEPS):
        starts = torch.randint(len(stream) - 256, (PRETRAINING_TOKENS // 256,))
        batch = torch.stack([stream[start : start + 256] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


if __name__ == "__main__":
    make_base(FOLDER)
    sys.stdout.write(f"{FOLDER}: set DIGEST in tiny.py to {digest(FOLDER)!r}\n")
