"""Bases and tokenizers that cannot be used are refused with the way out."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.conftest import CHATML
from tests.hub import COMMIT, fetched
from tests.unit.model.conftest import SHAPE
from trainer.config.schema import LoraSettings, ModelConfig
from trainer.errors import ConfigError
from trainer.model.adapter import add_adapter
from trainer.model.base import find_base, load_tokenizer, weights_digest
from trainer.model.loading import load_model
from trainer.model.targets import find_targets
from trainer.runs.manifest import PinnedBase


def problem(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_is_pinned_by_its_weights(folder: Path) -> None:
    settings = ModelConfig(base=str(folder))
    before = find_base(settings).pinned()
    assert before == PinnedBase(str(folder), None, weights_digest(folder))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert find_base(settings).pinned() != before


def test_a_hub_model_is_pinned_by_its_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer, settings = COMMIT[::-1], ModelConfig(base="org/model")
    fetched(folder, "org/model", tmp_path / "hub", monkeypatch)
    first = find_base(settings)
    assert (first.pinned(), first.loading["revision"]) == (PinnedBase("org/model", COMMIT, None), COMMIT)
    fetched(folder, "org/model", tmp_path / "hub", monkeypatch, newer)
    assert find_base(settings).pinned() == PinnedBase("org/model", newer, None)
    assert find_base(settings.model_copy(update={"revision": COMMIT})).pinned() == first.pinned()


WITHOUT_TORCH = """\
import json, sys
from dataclasses import asdict
sys.modules["torch"] = sys.modules["peft"] = None
from trainer.config.schema import ModelConfig
from trainer.extras import TO_LOAD_A_MODEL, lack
from trainer.model.base import find_base
found = find_base(ModelConfig(base=sys.argv[1]))
print(json.dumps([asdict(found.pinned()), found.notes, lack(TO_LOAD_A_MODEL)]))
"""


@pytest.mark.apart
def test_without_torch_the_base_is_found_and_pinned_and_its_weights_are_left_to_the_load(folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    note = f"the weights of {str(folder)!r} were not compared with its layers: torch is not installed here; "
    assert json.loads(done.stdout) == [
        asdict(find_base(ModelConfig(base=str(folder))).pinned()),
        [note + "loading does that"],
        "torch, peft are not installed here",
    ]
    assert done.stderr == ""


def test_the_weights_of_a_folder_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = find_base(ModelConfig(base=str(folder)))
    pinned = base.pinned()
    assert pinned.weights_sha256 == weights_digest(folder)
    monkeypatch.setattr("trainer.model.base.weights_digest", lambda folder: "read again")
    assert base.pinned() == pinned


def test_a_missing_pad_token_becomes_the_end_token_without_touching_labels(folder: Path) -> None:
    settings = ModelConfig(base=str(folder))
    assert load_tokenizer(find_base(settings), settings).pad_token == "<|im_end|>"


def test_unknown_builtin() -> None:
    found = problem(lambda: find_base(ModelConfig(base="builtin:small")))
    assert found == "model.base: 'builtin:small' is not known, expected 'builtin:tiny'"


def test_an_unknown_hub_id_says_what_was_tried_and_how_to_give_a_folder() -> None:
    found = problem(lambda: find_base(ModelConfig(base="nobody/nothing")))
    assert found.startswith("model.base: 'nobody/nothing' was not found as a folder here nor on the model hub (")
    assert found.endswith("or without a network give the path of a folder that holds the model")


def test_a_folder_without_config(tmp_path: Path) -> None:
    found = problem(lambda: find_base(ModelConfig(base=str(tmp_path))))
    assert (
        found == f"model.base: the folder {str(tmp_path)!r} has no config.json, expected a model in Hugging Face format"
    )


def test_weights_that_are_not_safetensors_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    found = problem(lambda: find_base(ModelConfig(base=str(folder))))
    assert found == (
        f"model.base: the folder {str(folder)!r} has no safetensors weights, expected *.safetensors; "
        "convert it with save_pretrained of transformers"
    )


def gguf(file: Path) -> Path:
    file.write_bytes(b"GGUF" + bytes(60))
    return file


def test_a_gguf_file_is_called_what_it_is_with_the_way_to_convert_it(tmp_path: Path) -> None:
    file = gguf(tmp_path / "tiny.q4.gguf")
    for base, start in ((file, f"{str(file)!r} is"), (tmp_path, f"the folder {str(tmp_path)!r} holds")):
        found = problem(lambda base=base: find_base(ModelConfig(base=str(base))))  # type: ignore[misc]
        assert found.startswith(f"model.base: {start} a GGUF file, the format of llama.cpp, expected safetensors")
        assert f"f = {str(tmp_path)!r}; n = 'tiny.q4.gguf'; M.from_pretrained(f, gguf_file=n, " in found
        assert "dequantize=True" in found  # else transformers refuses to save it


def test_a_file_is_no_base(folder: Path) -> None:
    file = str(folder / "model.safetensors")
    assert problem(lambda: find_base(ModelConfig(base=file))) == (
        f"model.base: {file!r} is a file, expected the folder that holds the model"
    )


def test_a_folder_with_a_model_and_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert problem(lambda: find_base(ModelConfig(base=str(folder)))) == (
        f"model.base: the folder {str(folder)!r} holds a model and an adapter, expected one of them; move "
        "adapter_config.json and adapter_model.safetensors to another folder"
    )


@pytest.mark.parametrize(
    ("origin", "way"),
    [
        ({"run": "first"}, "to train it further give its run: model.base=runs/first; or write the merged model: "
         "trainer export runs/first --merge --output FOLDER"),
        ({}, "merge it into its base with merge_and_unload of PEFT, and give the folder of the result"),
    ],
    ids=["ours", "foreign"],
)  # fmt: skip
def test_a_folder_that_holds_only_an_adapter(origin: dict[str, str], way: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "parity.json").write_text(json.dumps(origin))
    assert problem(lambda: find_base(ModelConfig(base=str(tmp_path)))) == (
        f"model.base: the folder {str(tmp_path)!r} holds an adapter and no model, expected a model; {way}"
    )


def test_code_from_the_repository_is_never_run(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    edit(
        folder / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    )
    found = problem(lambda: find_base(ModelConfig(base=str(folder))))
    assert (
        found == f"model.base: {str(folder)!r} needs code from its repository, which is never run; choose another base"
    )
    assert not marker.exists()


def test_a_model_that_is_no_causal_language_model(folder: Path) -> None:
    edit(folder / "config.json", model_type="t5")
    found = problem(lambda: find_base(ModelConfig(base=str(folder))))
    assert found == f"model.base: {str(folder)!r} is a 't5' model, expected a causal language model"


def test_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    settings = ModelConfig(base=str(folder))
    assert problem(lambda: load_tokenizer(find_base(settings), settings)) == (
        f"model.base: {str(folder)!r} has no chat template, expected one; choose the instruct variant of the model "
        "or give a jinja file as model.chat_template"
    )


def test_a_chat_template_of_ones_own(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (tmp_path / "own.jinja").write_text(CHATML)
    settings = ModelConfig(base=str(folder), chat_template=str(tmp_path / "own.jinja"))
    assert load_tokenizer(find_base(settings), settings).chat_template == CHATML


def test_a_tokenizer_larger_than_the_model(folder: Path) -> None:
    LlamaForCausalLM(LlamaConfig(vocab_size=100, **SHAPE)).save_pretrained(folder)
    settings = ModelConfig(base=str(folder))
    assert problem(lambda: load_tokenizer(find_base(settings), settings)) == (
        f"model.base: the tokenizer of {str(folder)!r} has 258 tokens and the model 100; take both from the same model"
    )


def test_a_special_token_for_images_needs_no_row_of_its_own(folder: Path) -> None:
    """As Gemma 3 1B's: 262,144 rows, and a tokenizer of 262,145 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    tokenizer.save_pretrained(folder)
    settings = ModelConfig(base=str(folder))
    assert len(load_tokenizer(find_base(settings), settings)) == 259
    LlamaForCausalLM(LlamaConfig(vocab_size=257, **SHAPE)).save_pretrained(folder)
    assert "has 259 tokens and the model 257" in problem(lambda: load_tokenizer(find_base(settings), settings))


def test_every_target_that_matches_nothing_is_named(folder: Path) -> None:
    base = find_base(ModelConfig(base=str(folder)))
    settings = LoraSettings(target_modules=["q_proj", "nope", "lm_head"])
    expected = "expected some of: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert problem(lambda: find_targets(base.skeleton, settings)) == "\n".join(
        f"lora.target_modules: {name!r} matches no layer of this model, {expected}" for name in ("nope", "lm_head")
    )


def test_a_new_adapter_changes_nothing_and_spares_the_head(folder: Path) -> None:
    settings = ModelConfig(base=str(folder))
    model = load_model(find_base(settings), settings, torch.device("cpu"), torch.float32)
    ids = torch.arange(8)[None]
    before = model(ids).logits
    adapted = add_adapter(model, LoraSettings())
    assert torch.equal(adapted(ids).logits, before)
    assert not any("lm_head" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)
