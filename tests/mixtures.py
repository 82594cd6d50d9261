"""Tiny mixtures of experts, built in this process: each family's own layout of experts, routers and dense layers."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCAB = 131
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_experts_per_tok": 2,
}  # fmt: skip
MIXTURES: dict[str, dict[str, Any]] = {
    "Qwen3Moe": {
        "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16, "mlp_only_layers": [0],
    },
    "Mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "DeepseekV3": {
        "num_key_value_heads": 4, "n_routed_experts": 4, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "n_shared_experts": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    },
    "GptOss": {
        "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "sliding_window": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip


def mixture(name: str, **changes: Any) -> PreTrainedModel:
    """The same random weights each time."""
    config = getattr(transformers, f"{name}Config")(**(SHAPE | MIXTURES[name] | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    assert isinstance(model, PreTrainedModel)
    return model.eval()
