import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.manifests import manifest
from trainer.config.schema import ModelConfig, RunConfig
from trainer.errors import ConfigError
from trainer.inference.trained import trained_base
from trainer.model import tiny
from trainer.model.base import find_base, weights_digest
from trainer.model.lineage import find_parent
from trainer.model.tiny import NAME, refuse_former, tiny_base
from trainer.model.tiny_recipe import conversations, token_stream
from trainer.runs import create_run
from trainer.runs.manifest import PinnedBase


def test_it_is_shipped_and_small() -> None:
    weights = tiny_base() / "model.safetensors"
    assert weights.stat().st_size < 4_000_000
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.bfloat16}


def test_no_cache_folder_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    pinned = find_base(ModelConfig(base=NAME)).pinned()
    assert pinned == PinnedBase(NAME, None, weights_digest(tiny_base()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["a byte", "a missing file", "no folder"])
def test_one_that_is_not_what_was_shipped_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "tiny_base"
    shutil.copytree(tiny_base(), folder)
    if damage == "a byte":
        weights = folder / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "a missing file":
        (folder / "generation_config.json").unlink()
    else:
        shutil.rmtree(folder)
    monkeypatch.setattr(tiny, "FOLDER", folder)
    with pytest.raises(ConfigError, match=r"is not the builtin:tiny that was shipped.*install azure-llm-trainer again"):
        tiny_base.__wrapped__()


@pytest.mark.apart
def test_it_has_learned_the_bundled_text_and_ends_its_answers() -> None:
    """Bounds with room: a base of random numbers has a loss of 7.3, and ends no answer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    model = AutoModelForCausalLM.from_pretrained(tiny_base(), dtype=torch.float32).eval()
    windows = token_stream(tokenizer)[: 16 * 256].view(16, 256)
    with torch.no_grad():
        loss = float(model(input_ids=windows, labels=windows).loss)
        ended = [_ends(model, tokenizer, messages[:-1]) for messages in islice(conversations(), 0, 200, 10)]
    assert loss < 1.5
    assert sum(ended) >= 16, ended


def _ends(model: torch.nn.Module, tokenizer: "AutoTokenizer", messages: list[dict[str, str]]) -> bool:
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, do_sample=False, max_new_tokens=96)
    return int(answer[0, -1]) == tokenizer.eos_token_id


def test_its_files_are_those_of_the_recipe() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    template = (tiny.FOLDER.parent / "tiny_template.jinja").read_text(encoding="utf-8")
    assert tokenizer.chat_template == template
    for messages in conversations():
        assert messages[-1]["role"] == "assistant"
        assert {message["role"] for message in messages} <= {"system", "user", "assistant"}


def test_a_run_on_a_base_that_was_made_on_first_use_is_refused_in_words(tmp_path: Path) -> None:
    values = {"model": {"base": NAME}, "data": {"train": "a.jsonl"}, "run": {"root": str(tmp_path), "name": "old"}}
    run = create_run(RunConfig.model_validate(values))
    run.write_manifest(manifest(base=PinnedBase(NAME, "tiny-d95eff64dabda08b", None)))
    sentence = (
        f"{run.path}: was trained on a builtin:tiny that an earlier version made on its first use, expected the one "
        f"that this version ships; train it again: train --config {run.path}/config.yaml run.name=NAME"
    )
    values["model"] = {"base": str(run.path)}
    for door in (
        lambda: refuse_former(run),
        lambda: find_parent(RunConfig.model_validate(values)),
        lambda: trained_base(run),
    ):
        with pytest.raises(ConfigError) as caught:
            door()
        assert str(caught.value) == sentence
