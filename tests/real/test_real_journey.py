"""Runs on real models: loaded, trained, killed and resumed, read back, and prompted as a server would.

SmolLM2-135M-Instruct is the real model; of the others the tokenizer and the architecture are real, the weights random.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import REPOSITORY
from tests.integration.test_fit import adapter_hash, measurements, resume, train
from trainer.config import RunConfig
from trainer.config.load import dump_config
from trainer.data.render.rendering import Renderer
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.inference.serve.gate import check_prompts
from trainer.inference.serve.rendering import PromptRenderer
from trainer.inference.trained import trained_tokenizer
from trainer.runs import Run
from trainer.runs.checkpoint import MANIFEST

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

MODELS, SAMPLES = os.environ.get("TRAINER_REAL_MODELS"), os.environ.get("TRAINER_SAMPLE_DATA")
TEMPLATES = {"gptoss": "gptoss"}  # TRL's, where the folder has none
NUM_ROWS = 4

Configured = Callable[..., RunConfig]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """A config for a run of a few steps on a few real rows."""
    if MODELS is None or SAMPLES is None:
        pytest.skip("TRAINER_REAL_MODELS or TRAINER_SAMPLE_DATA is not set")
    files = {}
    for role in ("training", "validation"):
        files[role] = tmp_path / f"{role}.jsonl"
        lines = (Path(SAMPLES) / "clippy" / f"{role}_set.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        files[role].write_text("".join(lines[:NUM_ROWS]), encoding="utf-8")

    def make(model: str, name: str, **training: Any) -> RunConfig:
        import trl

        base: dict[str, Any] = {"base": str(Path(MODELS or "") / model)}
        if model in TEMPLATES:
            base["chat_template"] = str(Path(trl.__file__).parent / "chat_templates" / f"{TEMPLATES[model]}.jinja")
        values = {
            "model": base,
            "data": {"train": str(files["training"]), "validation": str(files["validation"])},
            "lora": {"r": 4},
            "training": {"n_epochs": 1, "batch_size": 1, "learning_rate": 1e-3, "save_steps": 1, **training},
            "run": {"root": str(tmp_path / "runs"), "name": name},
        }
        return RunConfig.model_validate(values)

    return make


def killed_at_a_checkpoint(config: RunConfig, file: Path) -> Run:
    file.write_text(dump_config(config), encoding="utf-8")
    run = Run(Path(config.run.root) / str(config.run.name))
    command = [sys.executable, "-m", "trainer", "train", "--config", file]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 500
    while not list(run.checkpoints.glob(f"step-*/{MANIFEST}")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "it makes no checkpoint"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return run


async def compared_prompts(run: Run) -> tuple[int, str]:
    served = PromptRenderer(run.adapter)
    await served.start()
    try:
        return await check_prompts(run, Renderer(trained_tokenizer(run)), served)
    finally:
        await served.stop()


def test_a_real_model_learns_survives_a_kill_and_is_prompted_as_it_was_trained(
    configured: Configured, tmp_path: Path
) -> None:
    whole, _ = train(configured("smollm2", "whole"))
    losses = [row["full_valid_loss"] for row in whole.results() if "full_valid_loss" in row]
    assert losses[-1] < 6.0  # a base of random numbers has 10.8
    killed = killed_at_a_checkpoint(configured("smollm2", "killed"), tmp_path / "config.yaml")
    assert killed.state == "paused"
    resume(killed)
    assert (adapter_hash(killed), measurements(killed)) == (adapter_hash(whole), measurements(whole))
    assert asyncio.run(compared_prompts(killed)) == (NUM_ROWS, "validation.jsonl")


@pytest.mark.parametrize("model", ["gemma3", "llama3_1", "gptoss"])
def test_other_architectures_and_tokenizers_train_and_are_read_back(configured: Configured, model: str) -> None:
    run, _ = train(configured(model, model))
    stored = load_file(run.adapter / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in stored.values())
    assert all(tensor.any() for name, tensor in stored.items() if "lora_B" in name)
    reloaded = TunedModel(run)
    loaded = {name: parameter for name, parameter in reloaded.model.named_parameters() if "lora_" in name}
    assert len(loaded) == len(stored)
    assert all(stored[name.replace(".default", "")].equal(parameter.data) for name, parameter in loaded.items())
    assert isinstance(reloaded.tuned.answer([{"role": "user", "content": "Hello!"}], Sampling(max_tokens=4)), str)
    assert asyncio.run(compared_prompts(run)) == (NUM_ROWS, "validation.jsonl")
