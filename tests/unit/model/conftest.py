"""A model folder as people have them."""

from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import CHATML, make_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>"]
SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder in Hugging Face format, with random weights."""
    tokenizer = make_tokenizer(CHATML, SPECIAL, eos_token="<|im_end|>")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
