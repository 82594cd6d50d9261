"""Two processes train one run: the same result as one, and they stop and go on together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import QUESTIONS, REPOSITORY
from tests.integration.test_fit import adapter_hash, measurements
from tests.integration.test_preference import pairs_of
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

CONFIG = """
model: {{base: builtin:tiny}}
data: {{train: data/glossary_train.jsonl, validation: data/glossary_validation.jsonl}}
lora: {{r: 4, lora_dropout: {dropout}}}
training: {{n_epochs: 1, batch_size: 7, learning_rate: 0.005, logging_steps: 2, save_steps: 2}}
run: {{root: {root}}}
"""


# The second process runs out of memory in its third forward pass of training.
OUT_OF_MEMORY = """
import logging, os, torch
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
from trainer.cli.main import trainer
from trainer.training.engine import Engine
original, is_second, calls = Engine.sums, os.environ["RANK"] == "1", []
def sums(self, pack):
    calls.append(torch.is_grad_enabled())
    if is_second and torch.is_grad_enabled() and sum(calls) == 3:
        raise torch.OutOfMemoryError
    return original(self, pack)
Engine.sums = sums
trainer()
"""


def start(
    arguments: Sequence[str | Path], size: int, program: Sequence[str] = ("-m", "trainer")
) -> list[subprocess.Popen[str]]:
    """What torchrun does: one process for each rank, with their meeting point in the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        environment = os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *program, "train", *map(str, arguments)]
        processes.append(
            subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    return processes


def codes(processes: Sequence[subprocess.Popen[str]]) -> list[int]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert outputs[1:] == [""] * (len(processes) - 1), "only the first process speaks"
    return [process.returncode for process in processes]


def write_config(root: Path, dropout: float) -> Path:
    path = root / "config.yaml"
    path.write_text(CONFIG.format(root=root / "runs", dropout=dropout))
    return path


def write_pairs(root: Path) -> list[str]:
    """Files of pairs, and the settings that train on them; an uneven number of pairs for two processes."""
    pairs = pairs_of(QUESTIONS)
    for name, rows in (("train", pairs[:17]), ("validation", pairs[17:])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"data.train={root}/train.jsonl", f"data.validation={root}/validation.jsonl", "training.method=dpo"]


def run_of(root: Path, name: str) -> Run:
    return Run(root / "runs" / name)


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    for size, name in ((1, "one"), (2, "two")):
        assert codes(start(["--config", config, f"run.name={name}"], size)) == [0] * size
    one, two = run_of(tmp_path, "one"), run_of(tmp_path, "two")
    for row, expected in zip(two.results(), one.results(), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    weights, expected_weights = (load_file(run.adapter / "adapter_model.safetensors") for run in (two, one))
    for name, weight in weights.items():
        assert float((weight - expected_weights[name]).norm() / expected_weights[name].norm()) < 1e-3, name
    assert two.manifest().num_processes == 2


def test_two_processes_learn_from_pairs_what_one_learns(tmp_path: Path) -> None:
    """Also where a step is cut within pairs, and with the same reference."""
    config, pairs = write_config(tmp_path, dropout=0), write_pairs(tmp_path)
    budgets = {"one": 4096, "two": 70}
    for size, (name, budget) in enumerate(budgets.items(), 1):
        settings = [*pairs, f"memory.token_budget={budget}", f"run.name={name}", "evaluation.enabled=false"]
        assert codes(start(["--config", config, *settings], size)) == [0] * size
    one, two = run_of(tmp_path, "one"), run_of(tmp_path, "two")
    for row, expected in zip(two.results(), one.results(), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    logps, expected_logps = (load_file(run.reference)["logps"] for run in (two, one))
    assert float((logps - expected_logps).abs().max()) < 1e-3
    weights, expected_weights = (load_file(run.adapter / "adapter_model.safetensors") for run in (two, one))
    for name, weight in weights.items():
        assert float((weight - expected_weights[name]).norm() / expected_weights[name].norm()) < 1e-3, name


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.long), 0.1])
def test_two_processes_stop_together_and_go_on_bit_identically(tmp_path: Path, dropout: float) -> None:
    config = write_config(tmp_path, dropout)
    assert codes(start(["--config", config, "run.name=whole"], 2)) == [0, 0]
    processes = start(["--config", config, "run.name=stopped"], 2)
    stopped = run_of(tmp_path, "stopped")
    until = time.monotonic() + 200
    while not any(stopped.checkpoints.glob("*/MANIFEST.json")) and time.monotonic() < until:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)  # either of them stops both
    assert codes(processes) == [75, 75]
    assert stopped.state == "paused"
    assert codes(start(["--resume", stopped.path], 2)) == [0, 0]
    whole = run_of(tmp_path, "whole")
    assert adapter_hash(stopped) == adapter_hash(whole)
    assert measurements(stopped) == measurements(whole)


def test_memory_that_runs_out_in_one_process_cuts_the_step_finer_in_both(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    budget = "memory.token_budget=300"
    assert codes(start(["--config", config, "run.name=whole", budget], 2)) == [0, 0]
    assert codes(start(["--config", config, "run.name=cut", budget], 2, ("-c", OUT_OF_MEMORY))) == [0, 0]
    whole, cut = run_of(tmp_path, "whole"), run_of(tmp_path, "cut")
    messages = [event["message"] for event in cut.events() if "out of memory" in event["message"]]
    assert messages == ["out of memory: the step is cut finer, to 150 tokens at a time"]
    last = max(cut.checkpoints.glob("step-*"))
    assert Checkpoint(last).state()["plan"]["token_budget"] == 150
    for row, expected in zip(cut.results(), whole.results(), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


def test_a_mistake_that_only_the_first_process_sees_ends_both(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    assert codes(start(["--config", config, "run.name=taken"], 2)) == [2, 2]
