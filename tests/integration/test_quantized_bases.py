"""Bases that are quantized already: their scheme is adopted and recorded, or another one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GptOssConfig

from tests.tiny_runs import train
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.inference.trained import trained_base
from trainer.model.base import find_base
from trainer.model.loading import load_model
from trainer.model.merging import merged_model
from trainer.model.tiny import tiny_base

CPU = torch.device("cpu")
SCHEMES: dict[str, Any] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """builtin:tiny as bitsandbytes quantizes it, in a folder each."""
    folders = {scheme: tmp_path_factory.mktemp(scheme) for scheme in SCHEMES}
    for scheme, folder in folders.items():
        settings = BitsAndBytesConfig(**SCHEMES[scheme], bnb_4bit_compute_dtype=torch.float16)
        model = AutoModelForCausalLM.from_pretrained(tiny_base(), quantization_config=settings, dtype=torch.float32)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(folder)
    return {scheme: str(folder) for scheme, folder in folders.items()}


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_its_scheme_is_trained_recorded_and_merged(scheme: str, bases: dict[str, str], tmp_path: Path) -> None:
    run = train(tmp_path, model__base=bases[scheme], training__n_epochs=1)
    assert run.config().model.quantization == scheme
    merged = merged_model(trained_base(run), run.config().model, run.adapter, torch.float32)
    kinds = {type(module) for name, module in merged.named_modules() if name.endswith("_proj")}
    assert kinds == {torch.nn.Linear}


def test_another_scheme_is_refused_with_the_way_out(bases: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        find_base(ModelConfig(base=bases["nf4"], quantization="int8"))
    assert str(caught.value) == (
        f"model.quantization: is 'int8', but {bases['nf4']!r} is quantized already with 'nf4'; leave it out, or choose "
        "the unquantized original as model.base"
    )


@pytest.mark.parametrize("method", ["fp4", "gptq"])
def test_a_scheme_that_is_not_trained_is_refused(method: str, bases: dict[str, str], tmp_path: Path) -> None:
    folder = bases.get(method)
    if folder is None:
        folder = str(tmp_path)
        AutoModelForCausalLM.from_pretrained(tiny_base()).save_pretrained(folder)
        edit(tmp_path / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ConfigError) as caught:
        find_base(ModelConfig(base=folder))
    assert str(caught.value).startswith(f"model.base: {folder!r} is quantized with {method!r}, expected a base that")


def test_the_own_scheme_computes_in_the_format_of_the_run(bases: dict[str, str]) -> None:
    settings = ModelConfig(base=bases["nf4"])
    model = load_model(find_base(settings), settings, CPU, torch.float32)
    assert model.model.layers[0].mlp.up_proj.compute_dtype == torch.float32


@pytest.mark.parametrize("lost", ["up_proj.weight", "up_proj.weight.absmax"])
def test_a_quantized_weight_that_is_missing_is_found(lost: str, bases: dict[str, str], tmp_path: Path) -> None:
    tensors = load_file(Path(bases["nf4"]) / "model.safetensors")
    name = f"model.layers.0.mlp.{lost}"
    save_file({key: value for key, value in tensors.items() if key != name}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((Path(bases["nf4"]) / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.mlp\.up_proj\.weight"):
        find_base(ModelConfig(base=str(tmp_path)))


def test_the_number_format_of_gpt_oss_is_made_plain_when_it_is_loaded(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    more = {"vocab_size": 64, "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4}
    AutoModelForCausalLM.from_config(GptOssConfig(**shape, **more)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, rows, columns in (("gate_up_proj", 256, 64), ("down_proj", 64, 128)):
        place = f"model.layers.0.mlp.experts.{name}"
        del tensors[place]
        tensors[f"{place}_blocks"] = torch.randint(0, 255, (4, rows, columns // 32, 16), dtype=torch.uint8)
        tensors[f"{place}_scales"] = torch.full((4, rows, columns // 32), 120, dtype=torch.uint8)
    save_file(tensors, tmp_path / "model.safetensors")
    edit(tmp_path / "config.json", quantization_config={"quant_method": "mxfp4"})
    settings = ModelConfig(base=str(tmp_path))
    model = load_model(find_base(settings), settings, CPU, torch.float32)
    weight = model.model.layers[0].mlp.experts.gate_up_proj
    assert weight.dtype == torch.float32
    assert weight.shape == (4, 64, 256)
    with pytest.raises(ConfigError, match="is quantized already with 'mxfp4'; leave it out"):
        find_base(settings.model_copy(update={"quantization": "nf4"}))
