"""Mixtures of experts: what gets an adapter, how it is named, and what is said of it."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from tests.mixtures import MIXTURES, mixture
from trainer.config.schema import LoraSettings
from trainer.errors import ConfigError
from trainer.model.adapter import (
    ADAPTER,
    ADAPTER_CONFIG,
    adapter_config,
    adapter_tensors,
    add_adapter,
    load_adapter,
    trainable,
)
from trainer.model.shares import adapter_in_words, percent, weight_shares
from trainer.model.targets import find_targets, num_trained

SETTINGS = LoraSettings(r=4)
IDS = torch.arange(20)[None]


def with_update(model: PeftModel) -> PeftModel:
    """At B = 0 an adapter would change nothing."""
    torch.manual_seed(1)
    for name, parameter in trainable(model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def stored(model: PeftModel, folder: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in adapter_tensors(model).items()}, folder / ADAPTER)
    (folder / ADAPTER_CONFIG).write_bytes(adapter_config(model))
    return folder


@pytest.mark.parametrize("name", MIXTURES)
def test_layers_and_experts_get_an_adapter_and_no_router_does(name: str) -> None:
    model = mixture(name)
    adapted = [target.name for target in find_targets(model, SETTINGS)]
    left = {parameter for parameter, _ in model.named_parameters()} - {
        *adapted,
        *(f"{name}.weight" for name in adapted),
    }
    assert all(
        "norm" in kept or "bias" in kept or "sinks" in kept or kept.endswith(("mlp.gate.weight", "mlp.router.weight"))
        for kept in left - {"model.embed_tokens.weight", "lm_head.weight"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = trainable(add_adapter(model, SETTINGS))
    assert sum(weight.numel() for weight in trained.values()) == num_trained(mixture(name), SETTINGS)
    assert not any(".gate." in weight or ".router." in weight for weight in trained)
    assert any(".experts." in weight for weight in trained)


@pytest.mark.parametrize("name", MIXTURES)
def test_what_is_stored_is_the_same_adapter_here_and_to_peft_alone(name: str, tmp_path: Path) -> None:
    model = with_update(add_adapter(mixture(name), SETTINGS))
    expected = model(IDS).logits
    assert (expected - mixture(name)(IDS).logits).abs().max() > 0.1
    folder = stored(model, tmp_path)
    torch.testing.assert_close(load_adapter(mixture(name), folder).eval()(IDS).logits, expected)
    alone = PeftModel.from_pretrained(mixture(name), folder).eval()
    torch.testing.assert_close(alone(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    assert json.loads(adapter_config(load_adapter(mixture(name), folder))) == json.loads(adapter_config(model))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("experts", ["1.mlp.experts.gate_up_proj", "1.mlp.experts.down_proj"]),
        ("experts.down_proj", ["1.mlp.experts.down_proj"]),
        ("model.layers.1.mlp.experts.down_proj", ["1.mlp.experts.down_proj"]),
        ("down_proj", ["0.mlp.down_proj", "1.mlp.shared_experts.down_proj", "1.mlp.experts.down_proj"]),
        ("gate", ["1.mlp.gate.weight"]),
        ("gate_proj", ["0.mlp.gate_proj", "1.mlp.shared_experts.gate_proj"]),
    ],
)
def test_experts_parameters_routers_and_layers_can_be_named(named: str, expected: list[str], tmp_path: Path) -> None:
    settings = LoraSettings(r=4, target_modules=[named])
    found = [target.name.removeprefix("model.layers.") for target in find_targets(mixture("DeepseekV3"), settings)]
    assert found == expected
    model = with_update(add_adapter(mixture("DeepseekV3"), settings))
    assert len(trainable(model)) == 2 * len(expected)
    alone = PeftModel.from_pretrained(mixture("DeepseekV3"), stored(model, tmp_path)).eval()
    torch.testing.assert_close(alone(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-5)


def test_what_experts_do_not_take_is_refused_with_both_ways_out() -> None:
    settings = LoraSettings(target_modules=["experts", "q_proj"], lora_dropout=0.1, use_dora=True)
    with pytest.raises(ConfigError) as caught:
        find_targets(mixture("Mixtral"), settings)
    layers = "or name layers alone in lora.target_modules: q_proj"
    gets = "and 'experts.gate_up_proj' gets an adapter, which takes none, expected"
    assert caught.value.problems == (
        f"lora.lora_dropout: is 0.1, {gets} 0.0; set it to 0.0, {layers}",
        f"lora.use_dora: is True, {gets} False; set it to false, {layers}",
    )


def test_the_shares_of_the_weights_are_those_of_the_model() -> None:
    model = mixture("Qwen3Moe", num_hidden_layers=1, mlp_only_layers=[])
    shares = weight_shares(model, LoraSettings(target_modules=["experts", "q_proj"]), {"model.embed_tokens.weight"})
    sizes = {share.kind: (share.weights, share.adapted, share.quantized) for share in shares}
    assert sizes == {
        "embeddings": (2 * 131 * 32, 0, 131 * 32),
        "experts": (4 * 3 * 16 * 32, 4 * 3 * 16 * 32, 0),
        "attention": (2 * 32 * 32 + 2 * 16 * 32, 32 * 32, 0),
        "router": (4 * 32, 0, 0),
        "norms and biases": (3 * 32 + 2 * 8, 0, 0),
    }
    assert adapter_in_words(shares) == "on 40% of the weights (experts, part of attention)"
    assert sum(share.weights for share in shares) == sum(weight.numel() for weight in model.parameters())


def test_a_share_is_told_from_none_and_from_all() -> None:
    assert [percent(part, 1000) for part in (0, 1, 120, 999, 1000)] == ["0%", "under 1%", "12%", "over 99%", "100%"]
