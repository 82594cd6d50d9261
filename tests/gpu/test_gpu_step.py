"""A step on a GPU: nothing waits for it, its memory is what was planned, and a whole run learns what a CPU's does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from tests.gpu.steps import build, rows
from tests.tiny_runs import train
from trainer.config import RunConfig
from trainer.data.render.rendering import Example
from trainer.model.adapter import add_adapter, keep_float32, trainable
from trainer.model.base import find_base
from trainer.model.loading import load_model
from trainer.model.tiny import tiny_base
from trainer.runs import Run
from trainer.training.engine import Engine
from trainer.training.footprint import footprint
from trainer.training.guard import FiniteGuard
from trainer.training.meter import Meter

LOWEST, HIGHEST = 0.6, 1.05  # measured / estimated


@pytest.fixture
def larger(tmp_path: Path) -> str:
    """A random model of 50 million parameters: its activations outweigh what CUDA's libraries hold."""
    shape = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=32_000, intermediate_size=1536, tie_word_embeddings=True, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "larger")
    AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(tmp_path / "larger")
    return str(tmp_path / "larger")


def one_step(engine: Engine, examples: list[Example], optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """All of an optimizer step that training does between two readings."""
    device, parameters = engine.device, list(trainable(engine.model).values())
    guard, meter = FiniteGuard(device, "stop", loss_is_scaled=False), Meter(device)

    def step() -> None:
        packs = engine.packs(examples, 10_000)
        total = sum(pack.num_supervised for pack in packs)
        for pack in packs:
            sums = engine.sums(pack)
            (sums.nll / total).backward()
            guard.see_loss(sums.nll.detach())
            meter.add(sums.nll.detach(), sums.num_correct, total, 1)
        guard.gate(torch.nn.utils.clip_grad_norm_(parameters, 1.0), optimizer)
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.parametrize("quantized", [False, True])
def test_nothing_in_a_step_waits_for_the_gpu(device: torch.device, quantized: bool) -> None:
    model = build(device, torch.float16, quantized)
    optimizer = torch.optim.AdamW(trainable(model).values(), fused=True)
    engine = Engine(model, device)
    model.train()
    one_step(engine, rows(), optimizer)()  # compiles
    step = one_step(engine, rows(1), optimizer)
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(("length", "num_supervised", "share"), [(6000, 4000, 0.0), (6000, 4000, 0.5), (6000, 200, 1)])
def test_a_step_takes_the_memory_that_is_estimated(
    settings: Callable[..., RunConfig],
    larger: str,
    device: torch.device,
    quantization: str,
    length: int,
    num_supervised: int,
    share: float,
) -> None:
    config = settings(model__base=larger, model__quantization=quantization)
    base, dtype = find_base(config.model), torch.float16
    model = add_adapter(load_model(base, config.model, device, dtype), config.lora)
    keep_float32(model)
    engine = Engine(model, device)
    layers = int(share * engine.num_recomputable)
    engine.recompute(layers)
    model.train()
    optimizer = torch.optim.AdamW(trainable(model).values(), fused=True)
    row = Example(tuple(range(length)), (-100,) * (length - num_supervised) + tuple(range(num_supervised)))
    step = one_step(engine, [row], optimizer)
    step()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    estimated = footprint(config, base, dtype, device, length).peak(length, num_supervised, layers)
    assert LOWEST * estimated <= torch.cuda.max_memory_allocated(device) <= HIGHEST * estimated


def losses(run: Run) -> list[float]:
    return [float(row["train_loss"]) for row in run.results() if "train_loss" in row]


def test_a_run_learns_what_it_learns_on_a_cpu(tmp_path: Path) -> None:
    here = train(tmp_path, "gpu", model__dtype="float32")
    code = f"from pathlib import Path; from tests.tiny_runs import train; train(Path({str(tmp_path)!r}), 'cpu', "
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code + "model__dtype='float32')"], env=environment, check=True)
    assert losses(here) == pytest.approx(losses(Run(tmp_path / "runs" / "cpu")), rel=5e-3)


def test_a_run_in_float16_scales_its_loss(tmp_path: Path) -> None:
    """As on a GPU before Ampere, where float16 is what `model.dtype: auto` means."""
    run = train(tmp_path, "half", model__dtype="float16")
    assert run.state == "succeeded"
    assert losses(run)[-1] < 0.7 * losses(run)[0]
