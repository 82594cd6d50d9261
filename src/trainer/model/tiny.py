"""`builtin:tiny`: a very small chat model for machines without a network, for CI and for first steps.

A Llama of two million parameters and a byte-level BPE tokenizer, both trained in-process on the bundled text
in about half a minute, and cached. It has learned what an answer looks like and little else.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.model.cache_folder import cache_folder

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

NAME = "builtin:tiny"
VOCAB_SIZE = 1536
CONTEXT = 2048
PRETRAINING_STEPS = 400
PRETRAINING_TOKENS = 1024  # a step sees this many tokens in a row
LEARNING_RATE = 3e-3
SEED = 0


def tiny_base(report: Callable[[str], None] = lambda message: None) -> Path:
    """The folder with the model, built on first use. `report` is told when building starts.

    Raises: ConfigError, when the cache folder cannot be written.
    """
    folder = cache_folder() / f"tiny-{_fingerprint()}"
    if (folder / "config.json").is_file():
        return folder
    report("building builtin:tiny once (about half a minute)")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            _build(beside)
            _move(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"model.base: {NAME} cannot be written to {str(folder)!r}: {error.strerror}; "
            "set TRAINER_CACHE to a folder that can be written"
        ) from None
    return folder


def _fingerprint() -> str:
    """Changes with the text, the recipe (this file) and the libraries that carry it out."""
    digest = hashlib.sha256(
        _text("tiny_corpus.txt").encode() + _text("tiny.py").encode() + _text("tiny_template.jinja").encode()
    )
    for package in ("torch", "transformers", "tokenizers"):
        digest.update(f"{package}=={metadata.version(package)}".encode())
    return digest.hexdigest()[:16]


def _text(name: str) -> str:
    return resources.files("trainer.model").joinpath(name).read_text(encoding="utf-8")


def _move(beside: Path, folder: Path) -> None:
    """Publish the finished folder; when another process was faster, its folder is the same and stays."""
    try:
        beside.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise


def _build(folder: Path) -> None:
    import torch

    tokenizer = _train_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _pretrain(_new_model(tokenizer), _token_stream(tokenizer))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _conversations() -> Iterator[list[dict[str, str]]]:
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
    texts = [message["content"] for messages in _conversations() for message in messages]
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


def _token_stream(tokenizer: "PreTrainedTokenizerFast") -> "torch.Tensor":
    import torch

    text = "".join(str(tokenizer.apply_chat_template(messages, tokenize=False)) for messages in _conversations())
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
