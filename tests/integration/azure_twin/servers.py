"""Programs that the twin runs beside itself, in environments of their own: an MLflow server, and the job's Python."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.environments import CannotInstall, environment, scoring_python
from tests.guard import mark
from tests.integration.azure_twin.blobs import Missing
from tests.integration.azure_twin.plane import Tracking
from tests.loopback import HOST
from tests.waiting import until

MLFLOW = "mlflow==3.15.0"
PLUGIN = "azureml-mlflow==1.62.0.post6"  # brings the mlflow-skinny that it fits
START_SECONDS = 120


def job_python() -> Path:
    """What a job's image has: everything of ours, and Azure ML's MLflow. Raises: Missing."""
    return _installed("azureml-job", [PLUGIN], hidden=())


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Tracking]:
    """A real tracking server until the block is left. Raises: Missing."""
    python, port = _installed("mlflow", [MLFLOW], hidden=None), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    options = [
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/runs.db",
    ]
    options += ["--default-artifact-root", str(folder / "artifacts")]
    own = {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    own |= mark()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([python, "-m", "mlflow", "server", *options], env=own, stdout=log, stderr=log,
                                   cwd=folder, start_new_session=True)  # fmt: skip
    try:
        _wait(process, port, folder / "log")
        yield Tracking(port)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, and its reason is being raised
            os.killpg(process.pid, 15)  # its workers too
        process.wait(timeout=60)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            connection = HTTPConnection(HOST, port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    until(answers, "starting the MLflow server", START_SECONDS)


def _installed(name: str, packages: list[str], hidden: tuple[str, ...] | None) -> Path:
    try:
        return environment(name, packages, hidden=hidden)
    except CannotInstall as error:
        raise Missing(str(error)) from error


def serving_python() -> Path:
    """What a deployment's image has: Azure ML's inference server, and everything of ours. Raises: Missing."""
    try:
        return scoring_python()
    except CannotInstall as error:
        raise Missing(str(error)) from error
