"""Models in a process of their own, for a server that has no torch; it ends with that server, however that ends."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.child_environment import training_environment
from trainer.errors import TrainerError
from trainer.inference.serve.guards import KEY_VARIABLE
from trainer.inference.serve.limits import Limits
from trainer.runs.queue import Queue

END_SECONDS = 12.0


@dataclass
class ModelProcess:
    """A process that serves models on 127.0.0.1. Its key is known here and in the process alone."""

    key: str = field(repr=False)
    process: "subprocess.Popen[bytes]"
    port: int | None = None
    models: tuple[str, ...] = ()
    says: str = "starting"
    problem: str | None = None
    used_at: float = field(default_factory=time.monotonic)
    num_answering: int = 0
    taken: dict[str, str | None] = field(default_factory=dict)  # models that were added: why not, or None

    @property
    def state(self) -> str:
        if self.problem is not None or self.process.poll() is not None:
            return "failed"
        return "ready" if self.models else "loading"

    def add(self, run: Path, adapter: Path, name: str) -> None:
        """Let a run's model be asked by this name, with that adapter; `taken` will have the name."""
        assert self.process.stdin is not None
        line = json.dumps({"run": str(run.resolve()), "adapter": str(adapter.resolve()), "name": name})
        with contextlib.suppress(OSError):  # it has ended, which its state says
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def follow(self) -> None:
        """Read its lines in a thread until it ends."""
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        """Read its lines until it ends."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._take(json.loads(line))
        if self.problem is None and self.process.wait() != 0:
            killed = self.process.returncode == -signal.SIGKILL
            reason = ", as where memory runs out" if killed else ""
            self.problem = f"the model's process ended with {self.process.returncode}{reason}; load it again"

    def _take(self, said: dict[str, Any]) -> None:
        self.port = said.get("port", self.port)
        self.says = said.get("says", self.says)
        self.models = tuple(said.get("models", self.models))
        self.problem = said.get("problem", self.problem)
        if name := said.get("added", said.get("refused")):
            self.taken[name] = said.get("why")
        self.used_at = time.monotonic()

    def end(self) -> None:
        """End the process, kindly at first."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def serve_runs(*runs: Path) -> dict[str, Any]:
    """The task of serving finished runs and their base."""
    return {"runs": [str(run.resolve()) for run in runs]}


def start_process(root: Path, task: Mapping[str, Any], limits: Limits, **environment: str) -> ModelProcess:
    """A process that has begun to load; the queue of `root` starts no run of this machine while it lives."""
    key, held = secrets.token_urlsafe(24), _told_to_the_queue(root)
    words = json.dumps(dict(task) | {"limits": asdict(limits)})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.inference.serve.process_main", words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for the server, which ends this one
            pass_fds=held,
            env=training_environment(**{KEY_VARIABLE: key}, **environment),
        )
    finally:
        for handle in held:
            os.close(handle)
    return ModelProcess(key, process)


def _told_to_the_queue(root: Path) -> list[int]:
    """The handle by which the queue knows of the process; none in a folder of runs that cannot be written."""
    with contextlib.suppress(TrainerError):
        return [Queue(root).hold_model()]
    return []
