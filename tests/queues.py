"""Queues whose runs are a program of a moment in place of a training: it takes the run's lock, and notes each start."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run
from trainer.runs.lifecycle import enqueue

PROGRAM = """#!{python}
import json, os, sys, time
from pathlib import Path

sys.executable = __file__
if "queue" in sys.argv[:4]:
    from trainer.backends.worker import work
    from trainer.runs.queue import QueueInUse

    try:
        work(Path(sys.argv[-1]), lambda words: print(words, flush=True))
    except QueueInUse:
        sys.exit(3)
    sys.exit(0)

from trainer.runs import Run
from trainer.runs.lock import locked

run = Run(Path(sys.argv[-1]))
with locked(run.path, print):
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    note = {{"run": run.name, "gpus": gpus, "at": time.monotonic(), "folder": os.getcwd()}}
    with (run.path.parent / "starts.jsonl").open("a") as log:
        log.write(json.dumps(note) + "\\n")
    run.set_status("running", step=1)
    time.sleep({seconds})
    if run.name.startswith("dies"):
        os.kill(os.getpid(), 9)
    if run.name.startswith("stopped"):
        run.set_status("paused", stopped_by="pause")
        sys.exit(75)
    run.set_status("failed" if run.name.startswith("fails") else "succeeded", ended=time.monotonic())
    if run.name.startswith("gated"):
        from trainer.runs.lifecycle import note_gate

        note_gate(run, False, "gate better does not hold: of a test")
        sys.exit(3)
"""


@dataclass(frozen=True)
class Start:
    run: str
    gpus: str | None
    at: float
    folder: str


def program(folder: Path, seconds: float) -> str:
    """The program, in place of the interpreter that starts a run or a worker."""
    path = folder / "stand-in"
    path.write_text(PROGRAM.format(python=sys.executable, seconds=seconds))
    path.chmod(0o700)
    return str(path)


def make_run(root: Path, name: str, kind: str = "local") -> Run:
    values = {
        "model": {"base": "builtin:tiny" if kind == "local" else "gpt-4.1-mini"},
        "data": {name: str(REPOSITORY / "data" / "starter.jsonl") for name in ("train", "validation")},
        "backend": {"kind": kind},
        "evaluation": {"enabled": name.startswith("gated")} if kind == "local" else {},
        "run": {"name": name, "root": str(root)},
    }
    return create_run(RunConfig.model_validate(values))


def fill(root: Path, names: Sequence[str]) -> list[Run]:
    """New runs, in the queue in this order."""
    runs = [make_run(root, name) for name in names]
    for run in runs:
        enqueue(run)
    return runs


def starts(root: Path) -> list[Start]:
    """All starts in their order."""
    log = root / "starts.jsonl"
    return [Start(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def states(runs: Sequence[Run]) -> list[str]:
    return [run.state for run in runs]


def worker_in_a_fork(root: Path) -> int:
    """A worker in a fork of this process; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            from trainer.backends.worker import work

            work(root, lambda words: None)
            code = 0
        finally:
            os._exit(code)
    return pid
