"""An adapter is whole, finite and of this base, or it is not loaded."""

import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.config.schema import LoraSettings, ModelConfig
from trainer.errors import ConfigError
from trainer.model.adapter import (
    ADAPTER,
    ADAPTER_CONFIG,
    adapter_tensors,
    add_adapter,
    load_adapter,
    seal_adapter,
    trainable,
)  # fmt: skip
from trainer.model.base import find_base
from trainer.model.loading import load_model

Tensors = dict[str, torch.Tensor]


def loaded_base(folder: Path) -> "torch.nn.Module":
    settings = ModelConfig(base=str(folder))
    return load_model(find_base(settings), settings, torch.device("cpu"), torch.float32)


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """An adapter on the folder's model, without a manifest, as older runs have them."""
    add_adapter(loaded_base(folder), LoraSettings(r=2)).save_pretrained(tmp_path / "adapter")  # type: ignore[arg-type]
    return tmp_path / "adapter"


def refusal(folder: Path, adapter: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError) as caught:
            load_adapter(loaded_base(folder), adapter)  # type: ignore[arg-type]
    return str(caught.value).removeprefix(f"adapter {str(adapter)!r}: ")


def change(adapter: Path, make: Callable[[Tensors], Tensors]) -> None:
    save_file(make(load_file(adapter / ADAPTER)), adapter / ADAPTER)


def test_a_whole_one_is_loaded_with_and_without_its_manifest(folder: Path, adapter: Path) -> None:
    load_adapter(loaded_base(folder), adapter)  # type: ignore[arg-type]
    seal_adapter(adapter, 3)
    load_adapter(loaded_base(folder), adapter)  # type: ignore[arg-type]


def test_a_file_that_is_cut_short(folder: Path, adapter: Path) -> None:
    file = adapter / ADAPTER
    file.write_bytes(file.read_bytes()[:-100])
    assert refusal(folder, adapter).startswith(f"{ADAPTER} is cut short: ")
    file.write_bytes(struct.pack("<Q", 10**15))
    assert refusal(folder, adapter).startswith(f"{ADAPTER} is no safetensors file (8 bytes, of which it says")


def test_missing_tensors(folder: Path, adapter: Path) -> None:
    change(adapter, lambda tensors: {name: value for name, value in tensors.items() if "q_proj" not in name})
    assert refusal(folder, adapter) == (
        "2 of its 14 tensors are missing, such as 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'; "
        "bring the old file back, or train it again"
    )


def test_tensors_of_another_base(folder: Path, adapter: Path) -> None:
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    change(adapter, lambda tensors: tensors | {name: torch.zeros(2, 16)})
    assert refusal(folder, adapter).startswith(f"1 of its tensors have no place in this base, such as {name!r}")


def test_a_shape_of_another_base(folder: Path, adapter: Path) -> None:
    change(adapter, lambda tensors: {name: value[..., :1].contiguous() for name, value in tensors.items()})
    assert refusal(folder, adapter).startswith("does not fit the base (")


def test_values_that_are_no_numbers(folder: Path, adapter: Path) -> None:
    change(adapter, lambda tensors: {name: value / 0 for name, value in tensors.items()})
    assert "holds values that are no numbers, expected finite ones" in refusal(folder, adapter)


def test_a_file_that_differs_from_the_manifest(folder: Path, adapter: Path) -> None:
    seal_adapter(adapter, 3)
    change(adapter, lambda tensors: {name: value + 1 for name, value in tensors.items()})
    assert refusal(folder, adapter) == f"{ADAPTER} differs from what was written; bring the old files back"


@pytest.mark.parametrize("change", [{"peft_type": "unheard of"}, {"lora_alpha": "x"}, {"r": -1}, {"target_modules": 7}])
def test_a_configuration_of_no_adapter(folder: Path, adapter: Path, change: dict[str, object]) -> None:
    file = adapter / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert refusal(folder, adapter).startswith("does not fit the base (")


@pytest.mark.parametrize("content", ["{", "[]", "7", "{}"])
def test_a_configuration_that_is_none(folder: Path, adapter: Path, content: str) -> None:
    (adapter / ADAPTER_CONFIG).write_text(content)
    assert "; " in refusal(folder, adapter)


def test_what_a_checkpoint_holds_is_known_without_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = add_adapter(loaded_base(folder), LoraSettings(r=2))  # type: ignore[arg-type]
    model.active_peft_config.base_model_name_or_path = "someone/a-model-on-the-hub"
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", pytest.fail)
    assert len(adapter_tensors(model)) == len(trainable(model))
