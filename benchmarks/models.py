"""The same random model in every arm and format: each weight is drawn from its own name, on the device, one at a time.

So a model is never held twice nor in a wider format than its own, and how an arm makes it changes no weight.
"""

import zlib
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from shapes import RANK, Model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding


def config_of(shape: Model) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=8192,
        pad_token_id=0,
    )


def adapted_model(shape: Model, dtype: torch.dtype, device: torch.device, quantization: str = "none") -> Any:
    """With LoRA on every linear layer; B is not zero, or A would get no gradient. The adapter is float32."""
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(random_base(shape, dtype, device, quantization), lora)
    fill_adapter(model)
    return model


def random_base(shape: Model, dtype: torch.dtype, device: torch.device, quantization: str = "none") -> Any:
    """Weights are rounded to bfloat16 in every format, so that each arm can be held against float32."""
    config = config_of(shape)
    with torch.device("meta"):
        base = LlamaForCausalLM(config)
    with device:
        base.model.rotary_emb = LlamaRotaryEmbedding(config)  # its frequencies are no weights
    for name, module in list(base.named_modules()):
        if shape.tied and module is base.lm_head:
            continue
        for key, weight in list(module.named_parameters(recurse=False)):
            drawn = _drawn(f"{name}.{key}", weight.shape, 0.02, device).bfloat16().to(dtype)
            setattr(module, key, nn.Parameter(torch.ones_like(drawn) if weight.dim() == 1 else drawn))
        if quantization == "nf4" and isinstance(module, nn.Linear) and module is not base.lm_head:
            base.set_submodule(name, _nf4(module, dtype, device))
    if shape.tied:
        base.tie_weights()
    base.is_loaded_in_4bit = quantization == "nf4"  # which is what PEFT and TRL ask for
    return base


def fill_adapter(model: Any) -> None:
    """The same in every arm, whatever its library calls the layers above."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            std = 0.02 if "lora_B" in name else parameter.shape[1] ** -0.5
            own = name[name.index("layers.") :]
            parameter.data = _drawn(own, parameter.shape, std, parameter.device)


def _drawn(name: str, shape: Any, std: float, device: torch.device) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    return torch.empty(shape, device=device).normal_(std=std, generator=generator)


def _nf4(linear: nn.Linear, dtype: torch.dtype, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    with torch.device("meta"):
        found = Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=dtype, quant_type="nf4")
    weight = linear.weight.data.bfloat16()  # the same codes, whatever format computes with them
    found.weight = Params4bit(weight, requires_grad=False, quant_type="nf4").to(device)
    assert found.weight.bnb_quantized
    found.support_avx512bf16_for_cpu = False  # a form without a backward pass
    return found
