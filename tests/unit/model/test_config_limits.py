"""A base's config.json comes from strangers: absurd numbers and names of code are refused before anything is built."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.model.base import find_base
from trainer.model.config_limits import refuse_config

OWN = (
    "which names code that is run with the model, expected none; this trainer chooses its own: remove the key, if you "
    "trust the rest"
)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"attn_implementation": "org/kernel"}, f"attn_implementation is 'org/kernel', {OWN}"),
        ({"_attn_implementation": "org/kernel@main:f"}, f"_attn_implementation is 'org/kernel@main:f', {OWN}"),
        ({"text_config": {"attn_implementation": "o/k"}}, f"text_config.attn_implementation is 'o/k', {OWN}"),
        ({"attn_implementation": {"v": "o/k"}}, f"attn_implementation is {{'v': 'o/k'}}, {OWN}"),
        ({"experts_implementation": "deepgemm"}, f"experts_implementation is 'deepgemm', {OWN}"),
        ({"use_kernels": True}, f"use_kernels is True, {OWN}"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected at most 1,024"),
        ({"text_config": {"n_layer": 10**9}}, "text_config.n_layer is 1000000000, expected at most 1,024"),
        ({"num_local_experts": 10**7}, "num_local_experts is 10000000, expected at most 16,384"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000, expected at most 100,000,000"),
        ({"hidden_size": float("nan")}, "hidden_size is nan, expected at most 100,000,000"),
        ({"max_position_embeddings": 10**9}, "max_position_embeddings is 1000000000, expected at most 100,000,000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_config({"model_type": "llama"} | changes, "org/model")
    assert str(caught.value).startswith(f"model.base: the config.json of 'org/model': {found}")


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "flash_attention_2", "_attn_implementation_autoset": True},
        {"experts_implementation": "grouped_mm", "use_kernels": False, "kernel_config": None},
        {"num_hidden_layers": 126, "num_attention_heads": 128, "n_routed_experts": 256, "max_seq_len": 10**7},
        {"layer_types": ["full_attention"] * 64, "conv_kernel": 4, "hidden_size": 16384, "vocab_size": 262400},
    ],
)  # fmt: skip
def test_what_published_models_say_is_accepted(config: dict[str, Any]) -> None:
    refuse_config(config, "org/model")


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "org/kernel"},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 0},
        {"hidden_size": 10**8, "intermediate_size": 10**8, "head_dim": 10**8},
        {"num_hidden_layers": "many"},
    ],
    ids=str,
)
def test_a_folder_with_such_a_config_is_refused_promptly(folder: Path, changes: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    before = time.process_time()
    with pytest.raises(ConfigError, match=r"^model\.base: "):
        find_base(ModelConfig(base=str(folder)))
    assert time.process_time() - before < 20  # it loads transformers


def test_the_attention_is_ours_whatever_the_config_says(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": "flash_attention_2"}))
    assert find_base(ModelConfig(base=str(folder))).attention == "sdpa"
