"""Part b: a GPU computes of shared packs what one conversation at a time gives, and a resumed run is the same."""

import io
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from gpu.run import Measurement, Report, Setting
from rich.console import Console

from tests.gpu.steps import alone, build, packed, rows
from tests.tiny_runs import train
from trainer.backends.local import execute
from trainer.model.sharing import UNSHARED
from trainer.training.engine import Engine

# Relative error of a gradient; of bfloat16, beyond one and a half times its own rounding.
EXACT = {torch.float32: 1e-3, torch.bfloat16: 2e-3}
BUDGETS = (700, 10_000)
TINY = {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
TINY_WINDOW = 150  # tokens: as in full size, some rows are longer


def exactness() -> Iterator[Measurement]:
    for windowed in (False, True):
        for dtype in ("float32", "bfloat16"):
            what = "sliding window" if windowed else "full attention"
            yield Measurement("b", f"gradient, {what}, {dtype}", partial(exact, windowed=windowed, dtype=dtype))
    yield Measurement("b", "gradient, nf4, bfloat16", partial(exact, windowed=False, dtype="bfloat16", quantized=True))
    yield Measurement("b", "a resumed run equals an uninterrupted one", resumed)


def exact(setting: Setting, report: Report, windowed: bool, dtype: str, quantized: bool = False) -> None:
    """Loss and adapter gradient of shared packs, by each kind of attention, against one conversation at a time."""
    device, number = torch.device(setting.device), getattr(torch, dtype)
    examples = rows(count=2, prompt=60) if setting.tiny else rows()
    shape = (TINY | ({"sliding_window": TINY_WINDOW} if windowed else {})) if setting.tiny else {}
    make = partial(build, device, quantized=quantized, windowed=windowed, **shape)
    reference = alone(make(torch.float32), examples)
    rounding = alone(make(number), examples).distance(reference)  # what one conversation at a time loses in this format
    report(rounding=rounding)
    bound = EXACT[number] + (1.5 * rounding if number != torch.float32 else 0)
    for kind in ("flex", "dense") if setting.device == "cuda" else ("segments", "dense"):
        model = make(number)
        engine = Engine(model, device, kind=kind)
        if engine.kind != kind or engine.sharing == UNSHARED:
            report(**{f"{kind}_exact": False, f"{kind}_notes": "; ".join(engine.notes)})
            continue
        found = [packed(model, engine, examples, budget) for budget in BUDGETS]
        gradient = max(one.distance(reference) for one in found)
        loss = max(abs(one.loss / reference.loss - 1) for one in found)
        report(**{f"{kind}_gradient_error": gradient, f"{kind}_loss_error": loss, f"{kind}_exact": gradient <= bound})


def resumed(setting: Setting, report: Report) -> None:
    """Throw away what a deterministic run did after a checkpoint, resume it, and compare the bits."""
    folder = Path(setting.folder) / "resumed"
    folder.mkdir()
    _be_installed(folder)
    every = {"training__deterministic": True, "training__save_steps": 4, "training__save_total_limit": 9}
    run = train(folder, **every, model__dtype="float32")
    whole = _bytes(run.adapter)
    steps = sorted(run.checkpoints.iterdir())
    for checkpoint in steps[len(steps) // 2 :]:
        shutil.rmtree(checkpoint)
    shutil.rmtree(run.adapter)
    run.set_status("paused", adapter_step=None)
    execute.resume(run, Console(file=io.StringIO()), lambda message: None)
    report(from_checkpoint=steps[len(steps) // 2 - 1].name, bit_identical=_bytes(run.adapter) == whole)


def _be_installed(folder: Path) -> None:
    """A run writes down this package's version: from a checkout that is not installed it gets one that says so."""
    try:
        metadata.version("azure-llm-trainer")
    except metadata.PackageNotFoundError:
        info = folder / "azure_llm_trainer-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: azure-llm-trainer\nVersion: 0+checkout\n")
        sys.path.append(str(folder))


def _bytes(adapter: Path) -> bytes:
    return (adapter / "adapter_model.safetensors").read_bytes()
