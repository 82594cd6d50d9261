"""The whole twin: every host that the product speaks to, started and stopped together."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.entra import CREDENTIAL, LOGIN, Entra
from tests.integration.azure_twin.arm import Arm
from tests.integration.azure_twin.blobs import Blobs, storage
from tests.integration.azure_twin.catalog import prices
from tests.integration.azure_twin.node import Nodes
from tests.integration.azure_twin.plane import Plane, Tracking
from tests.integration.azure_twin.scoring import Scoring
from tests.integration.azure_twin.servers import job_python, mlflow_server
from tests.integration.azure_twin.world import (
    ARM_HOST,
    BLOB_HOST,
    GROUP,
    PLANE_HOST,
    PRICES_HOST,
    SCORING_HOSTS,
    SUBSCRIPTION,
    WORKSPACE,
)
from tests.loopback import Loopback, Request, Response
from tests.proxy import Authority, Proxy

HOSTS = (ARM_HOST, LOGIN, PLANE_HOST, PRICES_HOST)


class Twin:
    """A workspace. `service` takes the calls to Azure, `door` those to blob storage: both record, fail and kill."""

    def __init__(self, blobs: Blobs, authority: Authority) -> None:
        self.blobs, self.entra, self.arm = blobs, Entra(), Arm(blobs)
        self.plane = Plane(self.arm)
        self.service = Loopback(self._serve, authority.context(*HOSTS))
        self.door = Loopback(self._store, authority.context(BLOB_HOST))
        self.scoring = Scoring(self.arm)
        self.endpoints = Loopback(self.scoring, authority.context(SCORING_HOSTS))
        routes = dict.fromkeys(HOSTS, self.service.port)
        self.proxy = Proxy(authority, routes | {BLOB_HOST: self.door.port, SCORING_HOSTS: self.endpoints.port})
        self.nodes: Nodes | None = None
        self.logs: dict[str, dict[str, str]] = {}  # addresses of the logs of jobs that ran on no machine

    def run_jobs(self, folder: Path, tracking: Tracking | None) -> None:
        """Give the workspace machines. Without them a job stays where it is, and a deployment is ready at once."""
        self.nodes = Nodes(self.arm, folder, job_python(), self.proxy.environment(), tracking, set())
        self.plane.mlflow, self.plane.node_tokens = tracking, self.nodes.tokens
        self.plane.logs_of, self.plane.errors, self.plane.times = self.nodes.logs, self.nodes.errors, self.nodes.times
        self.arm.run_job, self.arm.cancel_job = self.nodes.run, self.nodes.cancel

    def _serve(self, request: Request) -> Response:
        match request.host.partition(":")[0]:
            case "login.microsoftonline.com":
                return self.entra(request)
            case "prices.azure.com":
                return prices(request)
            case "management.azure.com":
                return self.arm(request)
        return self.plane(request)

    def _store(self, request: Request) -> Response:
        if code := self.arm.storage_refusal:
            body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Not allowed.</Message></Error>'
            return Response(403, body.encode(), {"Content-Type": "application/xml", "x-ms-error-code": code})
        return self.blobs(request)

    def end_job(self, name: str, code: str, message: str, logs: dict[str, str]) -> None:
        """A job that has failed on a machine of which nothing else is known. `logs`: their texts by their names."""
        container = self.arm.containers["workspaceartifactstore"]
        for log, text in logs.items():
            self.blobs.write(container, f"ExperimentRun/dcid.{name}/{log}", text.encode())
        self.logs[name] = {log: self.blobs.readable(container, f"ExperimentRun/dcid.{name}/{log}") for log in logs}
        self.plane.logs_of = self.logs_of
        self.plane.errors = (self.plane.errors or {}) | {name: {"code": code, "message": message}}
        self.arm.resources[f"jobs/{name}"]["properties"]["status"] = "Failed"

    def logs_of(self, job: str) -> dict[str, str]:
        """Addresses of the logs of a job that ran on no machine."""
        return self.logs.get(job, {})

    def start_over(self) -> None:
        """Forget everything, as a subscription in which nothing was ever made."""
        assert self.nodes is None, "what runs cannot be forgotten"
        self.arm = Arm(self.blobs, self.arm.types)
        self.plane.arm = self.scoring.arm = self.arm
        self.plane.errors, self.plane.times, self.logs = None, {}, {}
        self.plane.logs_of, self.scoring.answer = self.logs_of, None
        for loopback in (self.service, self.door, self.endpoints):
            loopback.requests.clear()
            loopback.faults, loopback.kills = [], []

    def environment(self) -> dict[str, str]:
        """For a process that is to find the twin where Azure would be."""
        workspace = {"AZURE_SUBSCRIPTION_ID": SUBSCRIPTION, "AZURE_RESOURCE_GROUP": GROUP,
                     "AZUREML_WORKSPACE_NAME": WORKSPACE}  # fmt: skip
        return self.proxy.environment() | CREDENTIAL | workspace


@contextmanager
def twin(folder: Path) -> Iterator[Twin]:
    """A twin until the block is left. Raises: Missing."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder / "authority")
    with contextlib.ExitStack() as stack:
        made = Twin(stack.enter_context(storage(authority, folder)), authority)
        for one in (made.service, made.door, made.endpoints, made.proxy):
            stack.enter_context(one)
        yield made


@contextmanager
def working_twin(folder: Path) -> Iterator[Twin]:
    """A twin that trains and serves for real, with an MLflow server. Raises: Missing."""
    with twin(folder) as made, mlflow_server(folder / "mlflow") as tracking:
        made.run_jobs(folder / "nodes", tracking)
        made.scoring.serve(folder / "serving")
        try:
            yield made
        finally:
            assert made.nodes is not None
            made.nodes.stop()
            made.scoring.stop()
