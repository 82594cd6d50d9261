"""Every model that transformers can build is loaded with the attention that it supports, in training and after it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.conftest import CHATML, make_tokenizer
from tests.tiny_runs import train
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.model.base import find_base
from trainer.model.loading import load_model

SPECIAL = ["<|im_start|>", "<|im_end|>"]
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "sliding_window": 16, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 258,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
SMALLER = SHAPE | EXPERTS | {
    "num_experts": 4, "n_routed_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 48, "d_model": 32, "ffn_dim": 48,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_layers": 2,
    "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "word_embed_proj_dim": 32, "embedding_size": 32, "num_layers": 2, "num_heads": 4, "ffn_hidden_size": 48,
    "state_size": 8, "n_groups": 1, "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 258, "lru_width": 32,
    "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "emb_dim": 32, "dim": 32,
}  # fmt: skip
LARGE = 30_000_000
CPU = torch.device("cpu")
OFTEN = (
    "llama", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "gpt_oss", "phi3", "mistral", "mixtral", "granite",
    "lfm2", "smollm3", "olmo2", "cohere", "deepseek_v3", "deepseek_v4", "granite_swa", "granitemoe_swa",
    "mimo_v2_flash", "vaultgemma", "glm4_moe",
)  # fmt: skip


def save_tiny(kind: str, folder: Path) -> None:
    """A model of this kind with a few weights; skipped where its sizes need more than one rule."""
    try:
        known = {*CONFIG_MAPPING[kind]().to_dict(), *CONFIG_MAPPING[kind].attribute_map}
        config: PreTrainedConfig = CONFIG_MAPPING[kind](**{key: SMALLER[key] for key in SMALLER if key in known})
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
        assert size < LARGE
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    except Exception as error:  # each architecture refuses in its own way
        pytest.skip(f"no tiny one was built: {error}")


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.long)
        for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    ],
)
def test_a_model_that_passes_the_check_is_loaded(kind: str, tmp_path: Path) -> None:
    save_tiny(kind, tmp_path)
    settings = ModelConfig(base=str(tmp_path))
    try:
        base = find_base(settings)
    except ConfigError:
        assert kind not in OFTEN
        return
    assert base.notes == []
    model = load_model(base, settings, CPU, torch.float32)
    assert model.config._attn_implementation == base.attention


@pytest.mark.parametrize("kind", [Gemma2Config, GptOssConfig], ids=["gemma2", "gpt_oss"])
def test_a_model_without_sdpa_is_trained_and_talked_to(kind: Any, tmp_path: Path) -> None:
    tokenizer, folder = make_tokenizer(CHATML, SPECIAL, eos_token="<|im_end|>"), tmp_path / "model"
    shape = SHAPE | {"vocab_size": len(tokenizer)} | (EXPERTS if kind is GptOssConfig else {})
    AutoModelForCausalLM.from_config(kind(**shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    targets = ["q_proj", "v_proj"]
    run = train(tmp_path, model__base=str(folder), training__n_epochs=1, lora__target_modules=targets)
    assert run.manifest().attention == "eager"
    tuned = TunedModel(run)
    assert tuned.model.config._attn_implementation == "eager"
    tuned.tuned.answer([{"role": "user", "content": "What is number 3?"}], Sampling(max_tokens=3))
