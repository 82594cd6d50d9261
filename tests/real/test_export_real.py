"""Merged exports of a real model after ordinary training, in each number format."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.conftest import QUESTIONS
from trainer.config import RunConfig
from trainer.errors import ParityError
from trainer.inference.export import Accepted, Export, export_run
from trainer.inference.local import TunedModel
from trainer.model.device import has_bf16_units
from trainer.runs import Run, create_run
from trainer.training.fit import fit
from trainer.training.prepare import prepare

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

MODELS = os.environ.get("TRAINER_REAL_MODELS")
NUM_TOKENS = 12
needs_bf16_units = pytest.mark.skipif(
    not has_bf16_units(torch.cpu.get_capabilities()), reason="this CPU has no bfloat16 units: a step would take minutes"
)


@pytest.fixture(scope="module")
def run_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A run of the real model, trained in a number format when it is first asked for."""
    if MODELS is None:
        pytest.skip("TRAINER_REAL_MODELS is not set: there is no real model here")
    root, made = tmp_path_factory.mktemp("real"), {}

    def run_in(dtype: str) -> Run:
        if dtype not in made:
            made[dtype] = _train(root, dtype)
        return made[dtype]

    return run_in


def _train(root: Path, dtype: str) -> Run:
    """Few and short rows: a CPU without 16-bit units takes a second for three tokens in bfloat16."""
    assert MODELS is not None
    files = {"train": QUESTIONS[:12], "validation": QUESTIONS[12:15]}
    for name, rows in files.items():
        turns = ([{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in rows)
        (root / f"{name}.jsonl").write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    values: dict[str, dict[str, Any]] = {
        "model": {"base": str(Path(MODELS, "smollm2")), "dtype": dtype},
        "data": {name: str(root / f"{name}.jsonl") for name in files},
        "training": {"n_epochs": 2, "batch_size": 4},
        "run": {"root": str(root / "runs"), "name": dtype},
    }
    prepared = prepare(RunConfig.model_validate(values), lambda message: None)
    run = create_run(prepared.config)
    fit(prepared, run, Console(file=io.StringIO()))
    return run


def greedy(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NUM_TOKENS
        )
    return [int(token) for token in output[0, len(prompt) :]]


def stored(folder: Path) -> Any:
    """As a user loads it: plain transformers, in the number format of the files."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def kept_most(result: Export) -> bool:
    """Whether rounding lost little of what was learned."""
    return result.drift.mean_kl < 0.1 * result.change.mean_kl


def test_a_float32_merge_answers_as_the_run_does(run_in: Callable[[str], Run], tmp_path: Path) -> None:
    run = run_in("float32")
    result = export_run(run, tmp_path / "out", merge=True)
    assert result.dtype == "float32"
    assert result.losses is not None
    assert abs(result.losses.change) < 1e-4
    tuned, merged = TunedModel(run), stored(tmp_path / "out")
    prompts = [tuned.renderer.prompt_ids([{"role": "user", "content": question}]) for question, _ in QUESTIONS[:12]]
    same = [greedy(tuned.model, prompt) == greedy(merged, prompt) for prompt in prompts]
    assert sum(same) >= 0.95 * len(same)


@needs_bf16_units
def test_a_float32_run_is_merged_into_bfloat16_as_well(run_in: Callable[[str], Run], tmp_path: Path) -> None:
    """And is held against the run as it was trained: with its adapter apart, in bfloat16, that would be another one."""
    result = export_run(run_in("float32"), tmp_path / "out", merge=True, dtype="bfloat16")
    assert stored(tmp_path / "out").dtype == torch.bfloat16
    assert result.losses is not None
    assert abs(result.losses.run - result.losses.recorded) < 1e-3
    assert kept_most(result)


@needs_bf16_units
def test_a_bfloat16_run_is_merged_by_default(run_in: Callable[[str], Run], tmp_path: Path) -> None:
    result = export_run(run_in("bfloat16"), tmp_path / "out", merge=True)
    assert result.dtype == "bfloat16"
    assert stored(tmp_path / "out").dtype == torch.bfloat16
    assert kept_most(result)
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert parity["valid_loss"]["export"] - parity["valid_loss"]["run"] <= parity["bounds"]["loss"]


@needs_bf16_units
def test_a_bfloat16_run_is_merged_into_float32_exactly(run_in: Callable[[str], Run], tmp_path: Path) -> None:
    """And is held against the run computed in float32, not against what training recorded in bfloat16."""
    result = export_run(run_in("bfloat16"), tmp_path / "out", merge=True, dtype="float32")
    assert result.losses is not None
    assert abs(result.losses.change) < 1e-4 < result.bounds.recorded_loss
    assert result.drift.num_same_answers == result.drift.num_answers
    assert result.num_bytes > 500e6


@needs_bf16_units
def test_what_is_refused_names_the_loss_that_has_to_be_accepted(run_in: Callable[[str], Run], tmp_path: Path) -> None:
    run = run_in("float32")
    with pytest.raises(ParityError, match=r"--dtype float32: .*; or accept what is lost") as caught:
        export_run(run, tmp_path / "out", merge=True, dtype="bfloat16", accepted=Accepted(drift=1e-9))
    needed = float(str(caught.value).rsplit(" ", 1)[1])
    assert list(tmp_path.iterdir()) == []
    result = export_run(run, tmp_path / "out", merge=True, dtype="bfloat16", accepted=Accepted(loss=needed))
    assert result.drift.mean_kl <= needed
