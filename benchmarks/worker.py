"""Worker process of one arm of a benchmark: runs a step on each command."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any


class Worker:
    """An arm's process: it answers each line with a JSON object. `job` is a dataclass with the name of its `arm`."""

    def __init__(self, script: str, job: Any, is_ours: bool = False) -> None:
        self.job = job
        # This trainer sets it where it is imported, and the rows come through it in all arms.
        own = {"THP_MEM_ALLOC_ENABLE": str(int(is_ours))}
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", json.dumps(asdict(job))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | own,
        )  # fmt: skip

    def ask(self, what: str) -> dict[str, Any]:
        """The answer to a line; an arm that ends without one ends the benchmark."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{"'):  # TRL prints dictionaries of its own
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"{self.job.arm}: ended with {self.process.wait()}")

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
