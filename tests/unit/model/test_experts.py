"""Mixtures of experts: what gets an adapter, how it is named, and what is said of it."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel, Qwen2MoeConfig, Qwen2MoeForCausalLM

from tests.mixtures import MIXTURES, SHAPE, mixture
from trainer.config.schema import LoraSettings, ModelConfig
from trainer.errors import ConfigError
from trainer.model import expert_layers
from trainer.model.adapter import (
    ADAPTER,
    ADAPTER_CONFIG,
    adapter_config,
    adapter_tensors,
    add_adapter,
    load_adapter,
    trainable,
)
from trainer.model.base import Base, find_base
from trainer.model.expert_layers import use_lora_experts
from trainer.model.loading import load_model
from trainer.model.nf4 import pack, unpacked
from trainer.model.quantization import quantized_weights
from trainer.model.shares import adapter_in_words, percent, quantization_in_words, weight_shares
from trainer.model.targets import find_targets, num_trained
from trainer.training.memory import partly_quantized

SETTINGS = LoraSettings(r=4)
CPU = torch.device("cpu")
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


def prepared_like(folder: Path, **values: Any) -> tuple[Base, ModelConfig]:
    settings = ModelConfig(base=str(folder), **values)
    return find_base(settings), settings


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The mixtures as folders."""
    found = {name: tmp_path_factory.mktemp(name) for name in MIXTURES}
    for name, folder in found.items():
        mixture(name).save_pretrained(folder)
    return found


def gradients_of(model: PeftModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(IDS).logits
    logits.float().log_softmax(-1)[0, :, 3].sum().backward()
    return logits.detach(), {name: weight.grad for name, weight in trainable(model).items() if weight.grad is not None}


def seeded(base: PreTrainedModel) -> PeftModel:
    torch.manual_seed(0)
    return with_update(add_adapter(base, SETTINGS))


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_compute_what_peft_makes_of_their_sum(name: str) -> None:
    expected, found = seeded(mixture(name).double()), seeded(mixture(name).double())
    expected.get_base_model().set_experts_implementation("eager")
    use_lora_experts(found)
    (logits, gradients), (mine, my_gradients) = gradients_of(expected), gradients_of(found)
    torch.testing.assert_close(mine, logits)
    assert my_gradients.keys() == gradients.keys()
    for weight, gradient in gradients.items():
        assert (my_gradients[weight] - gradient).norm() <= 1e-9 * gradient.norm(), weight
    with expected.disable_adapter(), found.disable_adapter():
        torch.testing.assert_close(found(IDS).logits, expected(IDS).logits)


@pytest.mark.parametrize("name", MIXTURES)
def test_one_product_for_all_experts_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose kernels for groups of rows a CPU has too."""
    outcomes = []
    for together in (False, True):
        model = seeded(mixture(name))
        use_lora_experts(model)
        if together:
            monkeypatch.setattr(expert_layers, "_Apart", expert_layers._Together)
        outcomes.append(gradients_of(model))
    (logits, gradients), (mine, my_gradients) = outcomes
    torch.testing.assert_close(mine, logits, rtol=1e-4, atol=1e-5)
    for weight, gradient in gradients.items():
        assert (my_gradients[weight] - gradient).norm() <= 1e-4 * gradient.norm(), weight


def test_each_expert_is_quantized_as_bitsandbytes_quantizes_its_matrix() -> None:
    torch.manual_seed(0)
    experts = torch.randn(3, 64, 128) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    packed = pack(experts)
    for number, expert in enumerate(experts):
        data, state = quantize_4bit(expert, compress_statistics=True, quant_type="nf4")
        assert torch.equal(unpacked(packed, number, 1)[0], dequantize_4bit(data, state))
    assert torch.equal(unpacked(packed), torch.cat([unpacked(packed, number, 1) for number in range(3)]))
    assert unpacked(packed).shape == experts.shape
    assert packed.nbytes + packed.quant_state.absmax.nbytes == experts.numel() * 4.5 / 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MIXTURES)
def test_quantized_experts_give_the_gradient_of_the_weights_that_they_stand_for(
    name: str, folders: dict[str, Path]
) -> None:
    base, settings = prepared_like(folders[name], quantization="nf4")
    packed, plain = (load_model(base, settings, CPU, torch.float32) for _ in range(2))
    kept = {key for key, weight in packed.named_parameters() if weight.dtype.is_floating_point}
    assert not any(".experts.gate_up_proj" in key and "bias" not in key for key in kept)
    assert {key for key in kept if ".gate." in key or ".router." in key}
    sizes = {key: weight.numel() for key, weight in base.skeleton.named_parameters()}
    assert sizes.keys() - kept == quantized_weights(base.skeleton, settings)
    unquantized = plain.dequantize(dtype=torch.float32)
    (logits, gradients), (mine, my_gradients) = (gradients_of(seeded_experts(model)) for model in (unquantized, packed))
    torch.testing.assert_close(mine, logits, rtol=1e-4, atol=1e-5)
    for weight, gradient in gradients.items():
        assert (my_gradients[weight] - gradient).norm() <= 1e-4 * gradient.norm(), weight


def seeded_experts(base: PreTrainedModel) -> PeftModel:
    torch.manual_seed(0)
    model = with_update(add_adapter(base, LoraSettings(r=4, target_modules=["experts"])))
    use_lora_experts(model)
    return model


def test_a_quantization_that_misses_the_experts_is_refused_unless_it_is_accepted(folders: dict[str, Path]) -> None:
    base, settings = prepared_like(folders["Mixtral"], quantization="int8")
    problem = partly_quantized(base, settings, torch.bfloat16, CPU)
    assert problem == (
        f"model.quantization: int8 would leave 86% of the layers and experts of {str(folders['Mixtral'])!r} in "
        "bfloat16, expected at most 10%: it has no form for these experts; the weights would need about 0 MiB; set "
        "model.quantization to nf4 (0 MiB), or leave it out (0 MiB), or accept it with model.quantize_partly=true"
    )
    accepted = settings.model_copy(update={"quantize_partly": True})
    assert partly_quantized(base, accepted, torch.bfloat16, CPU) is None
    nf4 = settings.model_copy(update={"quantization": "nf4"})
    assert partly_quantized(base, nf4, torch.bfloat16, CPU) is None
    shares = weight_shares(base.skeleton, SETTINGS, quantized_weights(base.skeleton, nf4))
    assert quantization_in_words(shares, "nf4", "bfloat16") == (
        "nf4: 83% of the weights; 17% stay bfloat16 (embeddings, router, norms and biases)"
    )


def test_a_linear_layer_that_chooses_is_neither_quantized_nor_adapted(tmp_path: Path) -> None:
    """As a shared expert's own gate in Qwen 2, which has one output."""
    shape = SHAPE | {"num_key_value_heads": 2, "num_experts": 4, "moe_intermediate_size": 16}
    Qwen2MoeForCausalLM(Qwen2MoeConfig(**shape, shared_expert_intermediate_size=16)).save_pretrained(tmp_path)
    base, settings = prepared_like(tmp_path, quantization="nf4")
    model = load_model(base, settings, CPU, torch.float32)
    assert type(model.model.layers[0].mlp.shared_expert_gate) is torch.nn.Linear
    assert not any(target.name.endswith("shared_expert_gate") for target in find_targets(model, SETTINGS))
