"""Weights that are not those of the model are refused before they are read, and when they are."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig

from tests.unit.model.conftest import SHAPE
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.model.base import Base, find_base
from trainer.model.loading import load_model

CPU = torch.device("cpu")


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        find_base(ModelConfig(base=str(folder)))
    return str(caught.value).replace(str(folder), "FOLDER")


def change(folder: Path, make: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(make(load_file(file)), file)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def sharded(folder: Path) -> Path:
    """The model in several files with an index."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="9KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def test_weights_that_fit_are_found_whole_and_in_parts(folder: Path) -> None:
    assert find_base(ModelConfig(base=str(folder))).notes == []
    assert find_base(ModelConfig(base=str(sharded(folder)))).notes == []


def test_missing_tensors_are_counted_and_named(folder: Path) -> None:
    change(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if "mlp" not in key})
    assert refusal(folder) == (
        "model.base: 'FOLDER': 3 of the model's 12 tensors are not among its weights, such as "
        "'model.layers.0.mlp.down_proj.weight', 'model.layers.0.mlp.gate_proj.weight', "
        "'model.layers.0.mlp.up_proj.weight'; take config.json and weights from the same model, or download it again"
    )


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        ("_orig_mod.", "a model that torch.compile had wrapped; save it again from model._orig_mod"),
        ("base_model.model.", "a PEFT model with its adapter; save it again from model.merge_and_unload()"),
        ("module.", "a model that DistributedDataParallel had wrapped; save it again from model.module"),
    ],
)
def test_names_with_the_prefix_of_a_wrapper_are_called_what_they_are(folder: Path, prefix: str, what: str) -> None:
    change(folder, lambda tensors: {prefix + key: tensor for key, tensor in tensors.items()})
    assert refusal(folder) == (
        f"model.base: 'FOLDER': the names of its weights hold {prefix!r}: they were saved from {what}"
    )


def test_tensors_that_the_model_has_no_place_for_are_refused(folder: Path) -> None:
    change(folder, lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)})
    assert refusal(folder).startswith(
        "model.base: 'FOLDER': 1 tensors among its weights have no place in the model that its config.json describes, "
        "such as 'model.layers.0.self_attn.q_proj.bias'; "
    )


def test_a_layer_more_than_the_config_says_is_refused(folder: Path) -> None:
    change(folder, lambda tensors: tensors | {"model.layers.1.input_layernorm.weight": torch.ones(16)})
    assert "'model.layers.1.input_layernorm.weight'" in refusal(folder)


def test_a_part_that_a_language_model_does_not_have_is_left_aside_and_told(folder: Path) -> None:
    change(folder, lambda tensors: tensors | {"model.vision_tower.patches.weight": torch.zeros(2, 2)})
    base = find_base(ModelConfig(base=str(folder)))
    assert base.notes == [
        f"1 tensors of {str(folder)!r} are left aside, such as 'model.vision_tower.patches.weight': they are of a part "
        "that its language model does not have",
    ]
    load_model(base, ModelConfig(base=str(folder)), CPU, torch.float32)


def test_a_shape_that_contradicts_the_config(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=24)
    assert refusal(folder).startswith(
        "model.base: 'FOLDER': the weights hold 'model.layers.0.mlp.down_proj.weight' with the shape (16, 16), "
        "expected (16, 24) by its config.json, and 2 more differ; "
    )


def test_a_tied_head_and_buffers_are_not_missing(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    change(folder, lambda tensors: tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    find_base(ModelConfig(base=str(folder)))


def moe(folder: Path) -> Path:
    """A mixture of experts, whose files hold each expert by itself where the model stacks them."""
    shape = SHAPE | {"num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16, "num_experts": 4}
    model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(vocab_size=258, **shape))
    model.save_pretrained(folder)
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in load_file(folder / "model.safetensors")
    return folder


def test_experts_are_found_in_the_form_of_the_files(folder: Path) -> None:
    find_base(ModelConfig(base=str(moe(folder))))


@pytest.mark.parametrize("lost", ["experts.3.up_proj", "experts.3.", ".experts."])
def test_an_expert_that_is_missing_is_found(folder: Path, lost: str) -> None:
    change(moe(folder), lambda tensors: {key: tensor for key, tensor in tensors.items() if lost not in key})
    assert refusal(folder).startswith("model.base: ")


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4953\n")


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def header_of(tensors: dict[str, Any], contents: bytes = b"") -> Callable[[Path], None]:
    header = json.dumps(tensors).encode()
    return lambda file: [None, file.write_bytes(struct.pack("<Q", len(header)) + header + contents)][0]


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
AGAIN = "download it again"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (pointer, "is a git-lfs pointer and not the weights, expected the file that it stands for; run in that folder: "
                  "git lfs pull --include model.safetensors"),
        (half, f"of weights are there, of 40,384; {AGAIN}"),
        (lambda file: file.write_bytes(b""),
         f"is no safetensors file (0 bytes, of which it says 0 are its header); {AGAIN}"),
        (lambda file: file.write_bytes(b"<html><body>404</body></html>"), f"are its header); {AGAIN}"),
        (lambda file: file.write_bytes(struct.pack("<Q", 900) + b"{"),
         f"ends within its header, after 9 bytes: it is cut short; {AGAIN}"),
        (lambda file: file.write_bytes(struct.pack("<Q", 4) + b"nope"),
         f"has a header that cannot be read: it is damaged; {AGAIN}"),
        (lambda file: file.write_bytes(struct.pack("<Q", 90_000) + b"[" * 90_000),
         f"has a header that cannot be read: it is damaged; {AGAIN}"),
        (header_of({"a": TENSOR | {"dtype": "PICKLE"}}, bytes(8)),
         f"has a header that cannot be read: it is damaged; {AGAIN}"),
        (header_of({"a": TENSOR | {"shape": [3]}}, bytes(8)),
         f"has a header that contradicts its contents: it is damaged; {AGAIN}"),
        (header_of({"a": TENSOR, "b": TENSOR}, bytes(8)),
         f"has a header that contradicts its contents: it is damaged; {AGAIN}"),
        (lambda file: file.write_bytes(b"GGUF" + bytes(100)),
         "is a GGUF file under another name, expected safetensors; take the model's own files"),
    ],
    ids=["pointer", "half", "empty", "page", "cut-header", "no-json", "deep", "dtype", "shape", "overlap", "gguf"],
)  # fmt: skip
def test_a_file_that_is_no_whole_safetensors_is_told_with_its_remedy(
    folder: Path, damage: Callable[[Path], None], problem: str
) -> None:
    damage(folder / "model.safetensors")
    found = refusal(folder)
    assert found.startswith("model.base: 'FOLDER/model.safetensors' ")
    assert found.endswith(problem)


def test_every_damaged_file_is_told(folder: Path) -> None:
    first, second, *_ = sorted(sharded(folder).glob("*.safetensors"))
    pointer(first)
    half(second)
    assert refusal(folder).count("model.base: ") == 2


def test_files_that_the_index_names_and_that_are_not_there(folder: Path) -> None:
    first = min(sharded(folder).glob("*.safetensors"))
    first.unlink()
    assert refusal(folder).endswith(f"are not there, the first is {first.name!r}; download them too")


@pytest.mark.parametrize("name", ["evil.bin", "../other.safetensors", "/etc/x.safetensors"])
def test_an_index_that_names_another_kind_of_file_or_another_folder(folder: Path, name: str) -> None:
    index = sharded(folder) / "model.safetensors.index.json"
    edit(index, weight_map=json.loads(index.read_text())["weight_map"] | {"model.norm.weight": name})
    assert refusal(folder) == (
        f"model.base: 'FOLDER/model.safetensors.index.json' names the file {name!r}, expected *.safetensors inside the "
        "folder; do not use this model unless you know why"
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_an_index_that_is_none(folder: Path, text: str) -> None:
    (sharded(folder) / "model.safetensors.index.json").write_text(text)
    assert refusal(folder).startswith("model.base: 'FOLDER/model.safetensors.index.json' ")


def test_files_without_their_index(folder: Path) -> None:
    (sharded(folder) / "model.safetensors.index.json").unlink()
    assert "has weights that nothing names (model-00001-of-" in refusal(folder)


def test_what_changes_between_check_and_load_is_found_when_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    base = find_base(ModelConfig(base=str(folder)))
    whole = shutil.copytree(folder, tmp_path / "whole")

    def load_problem() -> str:
        with pytest.raises(ConfigError) as caught:
            load(base)
        return str(caught.value)

    change(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if "mlp" not in key})
    assert "3 of the model's 12 tensors are not among its weights" in load_problem()
    shutil.copy(whole / "model.safetensors", folder)
    change(folder, lambda tensors: tensors | {"model.norm.weight": torch.ones(8)})
    assert "'model.norm.weight' with the shape (8,), expected (16,)" in load_problem()
    half(folder / "model.safetensors")
    assert "cannot be loaded" in load_problem()


def load(base: Base) -> None:
    load_model(base, ModelConfig(base=base.name), CPU, torch.float32)


def test_a_quantized_load_refuses_missing_tensors_too(folder: Path) -> None:
    settings = ModelConfig(base=str(folder), quantization="nf4")
    base = find_base(settings)
    load_model(base, settings, CPU, torch.float32)
    change(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if "mlp" not in key})
    with pytest.raises(ConfigError, match=r"3 of the model's .* are not among its weights"):
        load_model(base, settings, CPU, torch.float32)
