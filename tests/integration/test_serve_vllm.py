"""What vLLM is called with, for each kind of run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.errors import ConfigError, MissingDependency
from trainer.inference.model_card import loading
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.vllm import command, find_vllm
from trainer.inference.trained import trained_base
from trainer.model.base import Base
from trainer.runs import Run


def changed(tuned: Run, folder: Path, before: str, after: str) -> Run:
    """The run with another setting in its config."""
    shutil.copytree(tuned.path, folder / "changed")
    config = folder / "changed" / "config.yaml"
    text = config.read_text()
    assert text.count(before) == 1
    config.write_text(text.replace(before, after))
    return Run(folder / "changed")


def words_of(*runs: Run) -> list[str]:
    return command("vllm", runs, "127.0.0.1", 8000, Limits())


@pytest.mark.parametrize(("rank", "allowed"), [(1, "1"), (4, "8"), (33, "64"), (300, "320")])
def test_the_rank_is_the_next_one_that_vllm_allows(tuned: Run, tmp_path: Path, rank: int, allowed: str) -> None:
    words = words_of(changed(tuned, tmp_path, "  r: 4\n", f"  r: {rank}\n"))
    assert words[words.index("--max-lora-rank") + 1] == allowed


def test_several_runs_get_one_base_the_largest_rank_and_their_names(tuned: Run, tmp_path: Path) -> None:
    tall = changed(tuned, tmp_path, "  r: 4\n", "  r: 33\n")
    words = words_of(tuned, tall)
    at = words.index("--lora-modules")
    assert words[at + 1 : at + 3] == [f"tuned={tuned.adapter}", f"changed={tall.adapter}"]
    assert [words[words.index(name) + 1] for name in ("--max-lora-rank", "--max-loras")] == ["64", "2"]
    tall.write_manifest(replace(tall.manifest(), template_sha256="0" * 64))
    with pytest.raises(ConfigError, match=r"run 'changed': its chat template is not that of 'tuned', expected one"):
        words_of(tuned, tall)


def test_a_4_bit_base_is_made_by_vllm_too(tuned: Run, tmp_path: Path) -> None:
    assert "--quantization" not in words_of(tuned)
    words = words_of(changed(tuned, tmp_path, "quantization: none", "quantization: nf4"))
    assert words[words.index("--quantization") + 1] == "bitsandbytes"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("use_dora: false", "use_dora: true", "has a DoRA adapter, which vLLM does not take; merge it with: trainer"),
        ("quantization: none", "quantization: int8", "was trained on an int8 base, which vLLM does not make; merge it"),
        ("  r: 4\n", "  r: 1000\n", "lora.r is 1000, expected at most 512 for vLLM"),
    ],
)
def test_what_vllm_cannot_serve_is_told_with_the_way_out(
    tuned: Run, tmp_path: Path, before: str, after: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        words_of(changed(tuned, tmp_path, before, after))


def test_without_vllm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependency, match="--engine: vllm is not installed; run: pip install vllm"):
        find_vllm()


def test_a_base_of_the_hub_is_named_with_its_commit(tuned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, and in the README of an export: the newest commit may be another model."""
    from trainer.inference.serve import vllm

    commit = "a" * 40
    base = Base("org/model", "org/model", commit, trained_base(tuned).config, {})
    monkeypatch.setattr(vllm, "trained_base", lambda run: base)
    words = words_of(tuned)
    assert words[2] == "org/model"
    assert words[words.index("--revision") + 1] == commit
    code = loading(tuned, base, "out", merged=False, dtype="bfloat16")
    assert f'from_pretrained("org/model", dtype="bfloat16", revision="{commit}")' in code
