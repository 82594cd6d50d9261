"""Models and rows large enough for a GPU's kernels, and a step's loss and gradient, alone and packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.model.adapter import keep_float32, trainable
from trainer.training.engine import Engine
from trainer.training.loss import plain_sums

VOCAB = 1_000
WINDOW = 400  # tokens: some rows are longer, and share nothing then


@dataclass(frozen=True)
class Outcome:
    """A step's loss, and its gradient as one vector in float64."""

    loss: float
    gradient: torch.Tensor

    def distance(self, other: "Outcome") -> float:
        return float((self.gradient - other.gradient).norm() / other.gradient.norm())


def build(
    device: torch.device, dtype: torch.dtype, quantized: bool = False, windowed: bool = False, **changes: Any
) -> PeftModel:
    """The same random weights for every format; B is not zero, or A would get no gradient."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 384, "intermediate_size": 512, "num_hidden_layers": 3, "head_dim": 32}
    shape |= {"num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": VOCAB, "pad_token_id": 0}
    model: PreTrainedModel
    if windowed:
        model = MistralForCausalLM(MistralConfig(**shape | {"sliding_window": WINDOW} | changes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape | changes))
    if quantized:
        model = _quantized(model, dtype)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.to(device=device, dtype=None if quantized else dtype)
    keep_float32(adapted)
    return adapted


def _quantized(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    import bitsandbytes

    model.to(dtype)
    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, linear in list(parent.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    size = (linear.in_features, linear.out_features)
                    found = bitsandbytes.nn.Linear4bit(*size, bias=False, compute_dtype=dtype, quant_type="nf4")
                    found.weight = bitsandbytes.nn.Params4bit(linear.weight.data, quant_type="nf4")
                    found.support_avx512bf16_for_cpu = False  # as load_model does
                    setattr(parent, name, found)
    return model


def rows(seed: int = 0, count: int = 6, prompt: int = 300) -> list[Example]:
    """Behind one prompt, behind half of it, twice the same, and one row alone."""
    random = Random(seed)
    shared = [random.randrange(5, VOCAB) for _ in range(prompt)]
    found = [_row(random, shared[: random.choice((prompt, prompt // 2))]) for _ in range(count)]
    return [*found, found[0], _row(random, [])]


def _row(random: Random, prompt: list[int]) -> Example:
    rest = [random.randrange(5, VOCAB) for _ in range(random.randrange(40, 250))]
    return Example((*prompt, *rest), (*[IGNORE_INDEX] * (len(prompt) + 10), *rest[10:]))


def alone(model: PeftModel, examples: Sequence[Example]) -> Outcome:
    """One conversation at a time, through the model's own attention and head."""
    total, loss = sum(example.num_supervised for example in examples), 0.0
    for example in examples:
        nll = plain_sums(model, example).nll / total
        nll.backward()
        loss += nll.item()
    return Outcome(loss, _gradient(model))


def packed(model: PeftModel, engine: Engine, examples: Sequence[Example], token_budget: int) -> Outcome:
    total, loss = sum(example.num_supervised for example in examples), 0.0
    for pack in engine.packs(examples, token_budget):
        nll = engine.sums(pack).nll / total
        nll.backward()
        loss += nll.item()
    return Outcome(loss, _gradient(model))


def _gradient(model: PeftModel) -> torch.Tensor:
    parts = [parameter.grad for parameter in trainable(model).values() if parameter.grad is not None]
    gradient = torch.cat([part.double().flatten().cpu() for part in parts])
    model.zero_grad()
    return gradient
