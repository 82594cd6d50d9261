"""The machines of the workspace: a job's command really runs here, beside folders that behave like mounts.

What a node has written reaches storage while it runs. When its machine is taken away, the process dies by SIGKILL and
everything that had not reached storage is lost; the job then starts again on a new machine, or fails, as it pleases.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.entra import token_of
from tests.guard import mark
from tests.integration.azure_twin.arm import Arm
from tests.integration.azure_twin.catalog import gpus_of
from tests.integration.azure_twin.gpus import GPUs, equip
from tests.integration.azure_twin.mount import Mount, Place, place_of, refusing
from tests.integration.azure_twin.plane import Tracking
from tests.integration.azure_twin.refusals import FINAL
from tests.integration.azure_twin.world import GROUP, PLANE_HOST, SUBSCRIPTION, WORKSPACE, WORKSPACE_ID, now

SYNC_SECONDS = 0.1
PREEMPTED = {"code": "PreemptionError", "message": "The node was preempted and the job did not complete."}


@dataclass
class Nodes:
    """Runs the jobs of a workspace, each in a thread. `network`: the environment that leads to the twin."""

    arm: Arm
    folder: Path
    python: Path
    network: dict[str, str]
    tracking: Tracking | None
    tokens: set[str]
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, "Node"] = field(default_factory=dict)
    gpus: Callable[[str, int], GPUs] = lambda job, count: GPUs(count)  # that the machine of a job really has
    times: dict[str, list[str | None]] = field(default_factory=dict)  # of each job: its start and its end

    def run(self, name: str) -> None:
        self.jobs[name] = Node(self, name)
        self.jobs[name].thread.start()

    def cancel(self, name: str) -> None:
        self.jobs[name].cancel()

    def preempt(self, name: str, restart: bool) -> None:
        """Take the job's machine away."""
        self.jobs[name].preempt(restart)

    def logs(self, name: str) -> dict[str, str]:
        """The addresses of a job's logs, signed."""
        prefix, blobs = f"ExperimentRun/dcid.{name}/", self.arm.blobs
        found = blobs.names(self.arm.containers["workspaceartifactstore"], prefix + "user_logs/")
        container = self.arm.containers["workspaceartifactstore"]
        return {blob.removeprefix(prefix): blobs.readable(container, blob) for blob in found}

    def stop(self) -> None:
        for node in self.jobs.values():
            node.cancel()
        for node in self.jobs.values():
            node.thread.join(timeout=60)


class Node:
    """One job on its machine, or on one after another."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self.nodes, self.name, self.arm = nodes, name, nodes.arm
        self.job: dict[str, Any] = self.arm.resources[f"jobs/{name}"]["properties"]
        self.process: subprocess.Popen[bytes] | None = None
        self.attempts, self.experiment = 0, ""
        self._end: str | None = None  # cancelled, preempted or restarted, told from outside
        self.thread = threading.Thread(target=self._live, daemon=True)

    def cancel(self) -> None:
        if self.job["status"] not in FINAL:
            self._end = "cancelled"
            self._kill()

    def preempt(self, restart: bool) -> None:
        self._end = "restarted" if restart else "preempted"
        self._kill()

    def _kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _live(self) -> None:
        times = self.nodes.times.setdefault(self.name, [now(), None])
        try:
            exit_code = self._attempt()
            while self._end == "restarted":
                self._end = None
                self._is("Queued")
                exit_code = self._attempt()
        except Exception as error:
            self._fail("SystemError", f"{type(error).__name__}: {error}")
            raise
        finally:
            times[1] = now()
        if self._end == "cancelled":
            self._is("Canceled")
        elif self._end == "preempted":
            self.nodes.errors[self.name] = PREEMPTED
            self._is("Failed")
        elif self._end == "out of time":
            self._fail("JobTimeout", "The job was canceled because it reached its maximum duration.")
        elif exit_code:
            text = (
                f"Execution failed. User process 'python' exited with status code {exit_code}. Please check log file "
            )
            self._fail("UserError", text + "'user_logs/std_log.txt' for error details.")
        else:
            self._is("Completed")

    def _fail(self, code: str, message: str) -> None:
        self.nodes.errors[self.name] = {"code": code, "message": message}
        self._is("Failed")

    def _is(self, status: str) -> None:
        self.job["status"] = status

    def _attempt(self) -> int:
        """The command on a machine that knows nothing of the one before; its exit code."""
        self.attempts += 1
        folder = self.nodes.folder / self.name / str(self.attempts)
        code, mounts, paths = folder / "code", list[Mount](), dict[str, str]()
        self._is("Preparing")
        self._fetch(self._code(), code)
        for key, given in (self.job.get("inputs") or {}).items():
            paths[f"inputs.{key}"] = self._input(given, folder / "inputs" / key)
        for key, made in self.job["outputs"].items():
            if key != "default":
                mounts.append(Mount(self.arm.blobs, place_of(self.arm, made["uri"]), folder / "outputs" / key))
                paths[f"outputs.{key}"] = str(mounts[-1].folder)
        artifacts = Place(self.arm.containers["workspaceartifactstore"], f"ExperimentRun/dcid.{self.name}/")
        logs = folder / "logs"
        mounts.append(Mount(self.arm.blobs, artifacts.below("user_logs/"), logs, fresh=True))
        mounts.append(Mount(self.arm.blobs, artifacts.below("outputs/"), code / "outputs", fresh=True))
        return self._run(code, logs / "std_log.txt", paths, mounts)

    def _run(self, code: Path, log: Path, paths: dict[str, str], mounts: list[Mount]) -> int:
        command = re.sub(r"\$\{\{(\w+\.\w+)\}\}", lambda match: paths[match[1]], self.job["command"])
        environment = self._environment(code.parent)
        limit = _seconds((self.job.get("limits") or {}).get("timeout"))
        environment = refusing([mount.folder for mount in mounts], code.parent / "site", environment)
        if self._end is not None:
            return 1
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", command], cwd=code, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self._is("Running")
        until = time.monotonic() + limit
        while self.process.poll() is None:
            if self._end is None:
                for mount in mounts:
                    mount.sync()
            if time.monotonic() > until:
                self._end = "out of time"
                self._kill()
            time.sleep(SYNC_SECONDS)
        if self._end is None:
            self._is("Finalizing")
            for mount in mounts:
                mount.sync()
        shutil.rmtree(code.parent, ignore_errors=True)
        return self.process.returncode

    def _code(self) -> Place:
        version = self.arm.resources[self.job["codeId"].partition("/workspaces/")[2].partition("/")[2]]
        return place_of(self.arm, version["properties"]["codeUri"])

    def _fetch(self, place: Place, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.arm.blobs.download(place.container, place.prefix, folder)

    def _input(self, given: dict[str, Any], folder: Path) -> str:
        """A literal as it is, and everything else as a path."""
        if given["jobInputType"] == "literal":
            return str(given["value"])
        place = place_of(self.arm, given["uri"])
        self._fetch(place, folder)
        if given["jobInputType"] == "uri_file":
            return str(next(folder.iterdir()))
        return str(folder)

    def _environment(self, folder: Path) -> dict[str, str]:
        until = int(time.time()) + 86400
        token = token_of({"aud": f"https://{PLANE_HOST}", "runid": self.name, "exp": until})
        self.nodes.tokens.add(token)
        tracking = f"azureml://{PLANE_HOST}/mlflow/v1.0{WORKSPACE_ID}"
        experiment = self.job["experimentName"]
        if self.nodes.tracking is not None and not self.experiment:
            self.experiment = self.nodes.tracking.start_run(self.name, experiment)
        (folder / "home").mkdir(parents=True, exist_ok=True)
        path = f"{self.nodes.python.parent}:{os.environ['PATH']}"
        if count := gpus_of(self._size()):
            equipped = equip(folder / "gpus", self.nodes.gpus(self.name, count), path)
        else:
            equipped = {"PATH": path}
        ours = equipped | {
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "home"), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "AZUREML_RUN_ID": self.name, "AZUREML_RUN_TOKEN": token,
            "AZUREML_RUN_TOKEN_EXPIRY": str(until),
            "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION, "AZUREML_ARM_RESOURCEGROUP": GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": WORKSPACE, "AZUREML_ARM_PROJECT_NAME": experiment,
            "AZUREML_EXPERIMENT_SCOPE": f"{WORKSPACE_ID}/experiments/{experiment}",
            "AZUREML_SERVICE_ENDPOINT": f"https://{PLANE_HOST}",
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"https://{PLANE_HOST}/discovery",
            "AZ_BATCHAI_JOB_TEMP": str(folder / "home"),
            "AZUREML_CR_NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "1",
            "RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        }  # fmt: skip
        if self.nodes.tracking is not None:
            ours |= {
                "MLFLOW_TRACKING_URI": tracking, "MLFLOW_TRACKING_TOKEN": token, "MLFLOW_RUN_ID": self.name,
                "MLFLOW_EXPERIMENT_NAME": experiment, "MLFLOW_EXPERIMENT_ID": self.experiment,
            }  # fmt: skip
        given = {name: str(value) for name, value in (self.job.get("environmentVariables") or {}).items()}
        return self.nodes.network | ours | given | mark()

    def _size(self) -> str:
        """The machine's, which the job names itself or through its cluster."""
        if cluster := self.job.get("computeId"):
            body = self.arm.resources[f"computes/{cluster.rsplit('/', 1)[1]}"]
            return str(body["properties"]["properties"]["vmSize"])
        return str(self.job["resources"]["instanceType"])


def _seconds(duration: str | None) -> float:
    """An ISO 8601 duration as Azure ML writes it."""
    parts = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", duration or "P1D")
    assert parts is not None, duration
    return sum(int(part or 0) * unit for part, unit in zip(parts.groups(), (86400, 3600, 60, 1), strict=True))
