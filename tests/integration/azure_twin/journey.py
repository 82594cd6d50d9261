"""From a config to an answer and back to nothing, through the product's own commands, each a process of its own.

A person reads the transcript from top to bottom; the test asserts what stands between the lines.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect

from tests.environments import REPOSITORY
from tests.integration.azure_twin.node import Node
from tests.integration.azure_twin.twin import Twin
from tests.waiting import is_attended, output_of, until
from trainer.runs import Run

NAME = "glossary-on-azure"
ENDPOINT = "glossary"
CLUSTER, MACHINE, SERVER = "gpu-cluster", "Standard_NC4as_T4_v3", "Standard_DS3_v2"
QUESTION = "What is a cassette?"
WAIT_SECONDS = 300.0
CONFIG = """\
model:    {{base: builtin:tiny}}
data:     {{train: {data}/glossary_train.jsonl, validation: {data}/glossary_validation.jsonl}}
training: {{n_epochs: 3, batch_size: 8, learning_rate: 5e-3, save_steps: 5}}
evaluation: {{max_rows: 8, max_new_tokens: 24}}
backend:  {{kind: azureml}}
azureml:  {{compute: {compute}, price_per_hour: 0.5, deployment: {{instance_type: {server}, price_per_hour: 0.3}}}}
run:      {{name: {name}}}
"""


class Journey:
    """Commands against a twin, in a folder of their own. `show` prints the transcript.

    `programs`: the folder with an installation's; without it, the commands are this checkout's.
    """

    def __init__(self, twin: Twin, folder: Path, show: Callable[[str], None], programs: Path | None = None) -> None:
        self.twin, self.folder, self.show = twin, folder, show
        self.program = [str(programs / "trainer")] if programs else [sys.executable, "-m", "trainer"]
        self.run = Run(folder / "runs" / NAME)
        twin.arm.add_compute(CLUSTER, MACHINE)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"data": REPOSITORY / "data", "compute": CLUSTER, "server": SERVER, "name": NAME}
        (folder / "azure.yaml").write_text(CONFIG.format(**settings), encoding="utf-8")
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.environment = inherited | twin.environment() | {
            "TRAINER_POLLING_SECONDS": "0.5", "COLUMNS": "110", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        if programs is None:
            self.environment["PYTHONPATH"] = str(REPOSITORY / "src")

    def trainer(self, *arguments: str, expect: int = 0) -> str:
        """A command to its end; what it printed."""
        started = time.monotonic()
        process = self.begin(*arguments)
        assert process.stdout is not None
        output = output_of(process.stdout, f"trainer {arguments[0]}", WAIT_SECONDS, self._tell)
        process.wait()
        self.show(f"  -- exit code {process.returncode} after {time.monotonic() - started:.0f} s")
        assert process.returncode == expect, f"{arguments} ended with {process.returncode}:\n{output}"
        assert "Traceback" not in output, output
        return output

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        self.show(f"\n$ trainer {' '.join(arguments)}")
        return subprocess.Popen(
            [*self.program, *arguments], env=self.environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def confirmed(self, *arguments: str) -> str:
        """A command that asks in a terminal and is told yes, to its end; what it printed."""
        self.show(f"\n$ trainer {' '.join(arguments)}")
        program, *words = [*self.program, *arguments]
        child = pexpect.spawn(
            program, words, env=self.environment | {"TERM": "dumb"}, cwd=str(self.folder), dimensions=(48, 110),
            timeout=None if is_attended() else WAIT_SECONDS, encoding="utf-8",
        )  # fmt: skip
        child.expect(r"\[y/N\]: ")
        asked = f"{child.before}{child.after}"
        child.sendline("y")
        child.expect(pexpect.EOF)
        child.close()
        output = asked + str(child.before)
        self._tell(output)
        assert child.exitstatus == 0, f"{arguments} ended with {child.exitstatus}:\n{output}"
        assert "Traceback" not in output, output
        return output

    def _tell(self, output: str) -> None:
        for line in output.splitlines():
            self.show("  " + line)

    def node(self) -> Node:
        """The machine of the newest job."""
        assert self.twin.nodes is not None
        return list(self.twin.nodes.jobs.values())[-1]

    def stored_checkpoints(self) -> list[int]:
        """Steps of the checkpoints that are whole in blob storage."""
        return sorted(int(name.rsplit("step-", 1)[1].split("/")[0]) for name in self.stored_files("MANIFEST.json"))

    def stored_files(self, end: str) -> list[str]:
        """What is in blob storage of runs, by the end of its name."""
        container = self.twin.arm.containers["workspaceblobstore"]
        return [name for name in self.twin.blobs.names(container, "trainer/") if name.endswith(end)]

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        until(condition, f"waiting for {what}", WAIT_SECONDS)

    # The chapters

    def check(self) -> str:
        self.show("# Check and quote: nothing is created.")
        return self.trainer("train", "--config", "azure.yaml", "--check")

    def train(self) -> str:
        self.show("\n# Train: a quote, a question, the job, and its results on this machine.")
        return self.confirmed("train", "--config", "azure.yaml")

    def train_until_all_dies(self) -> int:
        """Terminal and machine go at once; the step of the newest whole checkpoint."""
        self.show("\n# Train. Once a checkpoint is stored, this terminal is killed and Azure takes the machine away.")
        process = self.begin("train", "--config", "azure.yaml", "--yes")
        self.wait_until(self.stored_checkpoints, "a checkpoint")
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        self._tell(output)
        assert self.twin.nodes is not None
        node = self.node()
        self.twin.nodes.preempt(node.name, restart=False)
        node.thread.join(timeout=60)
        step = self.stored_checkpoints()[-1]
        self.show(f"  -- killed; job {node.name} is {node.job['status']}, the checkpoint of step {step} is stored")
        return step

    def resume(self) -> str:
        self.show("\n# The same run goes on from its checkpoint, as a second job.")
        return self.trainer("resume", f"runs/{NAME}")

    def look(self) -> str:
        self.show("\n# The run's folder is here, as if it had been trained on this machine.")
        return self.trainer("show", f"runs/{NAME}")

    def register(self) -> str:
        self.show("\n# Keep the adapter as a model of the workspace.")
        return self.trainer("register", f"runs/{NAME}")

    def deploy(self) -> str:
        self.show("\n# Put it behind an endpoint: it gets traffic once it has answered as it did here.")
        return self.trainer("deploy", f"runs/{NAME}", "--name", ENDPOINT, "--yes")

    def chat(self) -> str:
        self.show("\n# Ask it.")
        self.trainer("endpoints")
        return self.trainer("chat", f"runs/{NAME}", "--endpoint", ENDPOINT, QUESTION)

    def tear_down(self) -> str:
        self.show("\n# Remove what bills, and the models, files and code that were uploaded.")
        return self.trainer("teardown", f"runs/{NAME}", "--everything", "--yes")

    def delete(self) -> str:
        self.show("\n# Remove the run: its folder here, and its checkpoints in the workspace's storage.")
        return self.trainer("delete", f"runs/{NAME}", "--yes")

    def account(self) -> None:
        arm = self.twin.arm
        self.show(f"\n# What the workspace still has of ours: {arm.inventory() or 'nothing'}")
        self.show(f"# What still bills: {arm.billing() or 'nothing'}")
        self.show(f"# Addresses outside the twin that were asked for: {self.twin.proxy.refused or 'none'}")
