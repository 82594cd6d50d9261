"""Two processes that hold half of each of the base's layers learn what two with the whole base learn."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.integration.test_fit import adapter_hash, measurements
from tests.integration.test_fit import train as train_alone
from tests.integration.test_ranks import codes, run_of, start
from trainer.config import load_config
from trainer.config.schema import ModelConfig
from trainer.model.base import find_base
from trainer.model.checkpointing import recomputable
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

CONFIG = """
model: {{base: builtin:tiny}}
data: {{train: data/glossary_train.jsonl, validation: data/glossary_validation.jsonl}}
lora: {{r: 4, lora_dropout: 0.1}}
training: {{n_epochs: 1, batch_size: 7, learning_rate: 0.005, logging_steps: 2, save_steps: 2}}
memory: {{token_budget: 100, recompute_layers: 2}}
evaluation: {{max_rows: 3, max_new_tokens: 5}}
run: {{root: {root}}}
"""
WHOLE, SHARDED = "memory.shard_base=false", "memory.shard_base=true"

# Each process writes down what it holds, and how often it only took part. The environment says where, and what fails.
PROGRAM = """
import json, logging, os, torch
from pathlib import Path
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
from torch.distributed.tensor import DTensor
from trainer.cli.main import trainer
from trainer.model import lora_linear
from trainer.training import fit
from trainer.training.engine import Engine
rank, found = os.environ["RANK"], {"idle": 0, "packs": 0}

shard_base = fit.shard_base
def counted(model, *rest):
    model = shard_base(model, *rest)
    weights = [weight for name, weight in model.named_parameters() if "lora_" not in name]
    found["held"] = sum(w.to_local().numel() if isinstance(w, DTensor) else w.numel() for w in weights)
    found["adapter_is_sharded"] = any(isinstance(w, DTensor) for w in model.parameters() if w.requires_grad)
    return model
fit.shard_base = counted

sums = Engine.sums
def counting(self, pack):
    found["idle" if pack is self.idle else "packs"] += 1
    return sums(self, pack)
Engine.sums = counting

def failing(kind, number):
    original, calls = getattr(lora_linear._LoraProduct, kind), []
    def fail(*arguments):
        calls.append(1)
        if len(calls) == number:
            raise torch.OutOfMemoryError
        return original(*arguments)
    setattr(lora_linear._LoraProduct, kind, staticmethod(fail))
if rank == "1" and "FAILING" in os.environ:
    failing("forward", 400)
    failing("backward", 600)

try:
    trainer()
finally:
    Path(os.environ["COUNTS"], rank).write_text(json.dumps(found))
"""


def write_config(root: Path) -> Path:
    (root / "config.yaml").write_text(CONFIG.format(root=root / "runs"))
    return root / "config.yaml"


def train(root: Path, name: str, *settings: str) -> tuple[Run, list[dict[str, Any]]]:
    """A run of two processes, and what each of them counted."""
    (counts := root / f"counts-{name}").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTS", str(counts))
        processes = start(["--config", write_config(root), f"run.name={name}", *settings], 2, ("-c", PROGRAM))
    assert codes(processes) == [0, 0]
    return run_of(root, name), [json.loads((counts / rank).read_text()) for rank in "01"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What is to be learned: by two processes that hold all of the base."""
    return train(tmp_path_factory.mktemp("whole"), "whole", WHOLE)[0]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[dict[str, Any]]]:
    return train(tmp_path_factory.mktemp("sharded"), "sharded", SHARDED)


def test_a_sharded_base_learns_bit_for_bit_what_a_whole_one_learns(
    whole: Run, sharded: tuple[Run, list[dict[str, Any]]]
) -> None:
    run, counts = sharded
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        saved, expected = (max(each.checkpoints.glob("step-*")) / name for each in (run, whole))
        assert saved.read_bytes() == expected.read_bytes()
    assert run.config().memory.shard_base is True
    assert comparison(run) == comparison(whole)
    _hold_halves(counts)


def comparison(run: Run) -> dict[str, Any]:
    """What the run's report holds, but for when and how fast it was made."""
    report = json.loads((run.report / "report.json").read_text())
    return {name: value for name, value in report.items() if name not in ("created_at", "run", "seconds")}


def _hold_halves(counts: list[dict[str, Any]]) -> None:
    """Half of each layer in each process, and only they sharded; each took part where the other had more packs."""
    skeleton = find_base(ModelConfig(base="builtin:tiny")).skeleton
    layers = sum(weight.numel() for layer in recomputable(skeleton) for weight in layer.parameters())
    rest = sum(weight.numel() for weight in skeleton.parameters()) - layers
    assert [each["held"] for each in counts] == [rest + layers // 2] * 2
    assert [each["adapter_is_sharded"] for each in counts] == [False, False]
    assert all(each["idle"] for each in counts)
    assert len({each["idle"] + each["packs"] for each in counts}) == 1


def stopped_early(root: Path, *settings: str) -> Run:
    """A run of two processes that was told to stop once it had a checkpoint."""
    processes, run = start(["--config", write_config(root), "run.name=stopped", *settings], 2), run_of(root, "stopped")
    until = time.monotonic() + 200
    while not any(run.checkpoints.glob("*/MANIFEST.json")) and time.monotonic() < until:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes) == [75, 75]
    return run


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [(SHARDED, WHOLE), (WHOLE, SHARDED)])
def test_a_run_resumes_with_the_base_sharded_or_whole(whole: Run, tmp_path: Path, before: str, after: str) -> None:
    run = stopped_early(tmp_path, before)
    assert codes(start(["--resume", run.path, after], 2)) == [0, 0]
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))


def test_memory_that_runs_out_in_the_middle_of_a_pass_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["memory.token_budget=300", "lora.lora_dropout=0", "evaluation.enabled=false"]
    alone, _ = train_alone(load_config(write_config(tmp_path), [*settings, "run.name=alone"]))
    monkeypatch.setenv("FAILING", "1")
    run, _ = train(tmp_path, "cut", SHARDED, *settings)
    messages = [event["message"] for event in run.events() if "out of memory" in event["message"]]
    assert [message.partition(", to ")[0] for message in messages] == ["out of memory: the step is cut finer"] * 2
    assert Checkpoint(max(run.checkpoints.glob("step-*"))).state()["plan"]["token_budget"] < 150
    for row, expected in zip(run.results(), alone.results(), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


@pytest.mark.long
def test_a_sharded_run_is_evaluated_again_by_several_processes_or_one(
    whole: Run, sharded: tuple[Run, list[dict[str, Any]]]
) -> None:
    run, _ = sharded
    for num_processes in "21":
        (run.report / "report.json").unlink()
        environment = os.environ | {"TRAINER_PROCESSES": num_processes, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "trainer", "evaluate", str(run.path)]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, timeout=300, capture_output=True, check=True)
        assert done.stdout.count(b"Token accuracy") == 1
        assert comparison(run) == comparison(whole)


@pytest.mark.long
def test_a_process_that_dies_is_missed_at_the_next_layer(tmp_path: Path) -> None:
    processes = start(["--config", write_config(tmp_path), "run.name=killed", SHARDED, "training.n_epochs=50"], 2)
    run, until = run_of(tmp_path, "killed"), time.monotonic() + 200
    while not any(run.checkpoints.glob("*/MANIFEST.json")) and time.monotonic() < until:
        time.sleep(0.02)
    processes[1].kill()
    assert processes[0].wait(timeout=60) == 1
    assert run.state == "failed"
    assert "another process of this run has ended" in run.status()["error"]


@pytest.mark.long
def test_accelerate_starts_the_processes_and_does_nothing_else(whole: Run, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml"]
    launcher += ["--mixed_precision", "bf16", "--dynamo_backend", "inductor", "-m", "trainer"]
    command = ["train", "--config", str(write_config(tmp_path)), "run.name=launched", WHOLE]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launcher, *command], cwd=REPOSITORY, env=environment, check=True, timeout=300, capture_output=True)
    run = run_of(tmp_path, "launched")
    assert run.manifest().num_processes == 2
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))


# Both processes compute the gradients of a family's tiny model with the base whole and sharded.
FAMILIES = """
import logging, sys, torch
from torch import distributed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
logging.getLogger("transformers").setLevel(logging.ERROR)
from tests.unit.training.test_engine import CPU, MODELS, UNSHARED_MODELS, build, gradients, random_rows
from trainer.model.rms_norm import use_lean_norms
from trainer.model.sharding import shard_base
from trainer.training.engine import Engine
from trainer.training.ranks import join
ranks = join()

def learned(name, is_sharded):
    torch.manual_seed(0)
    model = build(name, torch.float32)
    if is_sharded:
        use_lean_norms(model.get_base_model())
        shard_base(model, CPU, ranks.will_come)
    engine = Engine(model, CPU)
    engine.recompute(1)
    model.train()
    for pack in [*engine.packs(random_rows(), 150), engine.idle]:
        engine.sums(pack).nll.backward()
    return gradients(model)

for name in [*MODELS, *UNSHARED_MODELS]:
    whole, sharded = learned(name, False), learned(name, True)
    if not all(torch.equal(gradient, sharded[weight]) for weight, gradient in whole.items()):
        sys.exit(name)
"""


@pytest.mark.long
def test_every_family_of_models_can_be_sharded() -> None:
    processes = start([], 2, ("-W", "ignore", "-c", FAMILIES))
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
