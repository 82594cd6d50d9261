"""The workspace's data plane: discovery, run history, and the door to a real MLflow server."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode

from tests.entra import claims_of
from tests.integration.azure_twin.arm import Arm
from tests.integration.azure_twin.refusals import FINAL
from tests.integration.azure_twin.world import PLANE_HOST
from tests.loopback import HOST, Request, Response

RUNS = re.compile(
    r"/history/v1\.0.*?/workspaces/[^/]+(?:/experiments/[^/]+|/experimentids/[^/]+)?/runs/([^/:]+)(/.*)?$"
)
TRACKING = re.compile(r"/mlflow/v\d\.0/subscriptions/.*?/workspaces/[^/]+(/.*)$", re.IGNORECASE)
JSON = {"Content-Type": "application/json"}


@dataclass
class Plane:
    arm: Arm
    logs_of: Callable[[str], dict[str, str]] = lambda job: {}  # a log's name to an address where it can be read
    errors: dict[str, dict[str, Any]] | None = None  # why a job failed
    times: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    mlflow: "Tracking | None" = None
    node_tokens: frozenset[str] | set[str] = frozenset()

    def __call__(self, request: Request) -> Response:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if claims_of(request) is None and bearer not in self.node_tokens:
            return Response(401, {"error": {"code": "UserError", "message": "The token is missing or expired."}})
        if request.path.startswith("/discovery"):
            names = ("api", "history", "experimentation", "modelmanagement", "data", "catalog", "metrics")
            return Response(200, dict.fromkeys(names, f"https://{PLANE_HOST}"))
        if (match := TRACKING.match(request.path)) and self.mlflow is not None:
            return self.mlflow.forward(request, match[1])
        if match := RUNS.match(request.path):
            return self._run(request, match[1], match[2] or "")
        if request.path.endswith("/rundata"):
            return self._run(request, request.json()["runId"], "/rundata")
        return Response(404, {"error": {"code": "UserError", "message": f"Not found: {request.path}"}})

    def _run(self, request: Request, name: str, rest: str) -> Response:
        job = self.arm.resources.get(f"jobs/{name}")
        if job is None:
            return Response(404, {"error": {"code": "UserError", "message": f"Run {name} was not found."}})
        run = self._details(name, job["properties"])
        match rest:
            case "/rundata":
                return Response(200, {"runMetadata": run, "runDefinition": None, "jobSpecification": None})
            case "/events":
                return Response(200, {"value": []})
            case "" | "/details" if request.method == "GET":
                return Response(200, run)
            case "" if request.method == "PATCH":
                job["properties"]["isArchived"] = bool(request.json().get("hidden"))
                return Response(200, run)
        return Response(404, {"error": {"code": "UserError", "message": f"Not found: {rest}"}})

    def _details(self, name: str, job: dict[str, Any]) -> dict[str, Any]:
        error = (self.errors or {}).get(name)
        start, end = self.times.get(name, (None, None))
        return {
            "runId": name, "status": job["status"], "parentRunId": None, "rootRunId": name, "target": "cluster",
            "experimentId": "00000000-0000-0000-0000-000000000001", "startTimeUtc": start,
            "endTimeUtc": end, "warnings": [], "error": {"error": error} if error and job["status"] in FINAL else None,
            "properties": job["properties"], "tags": job.get("tags") or {}, "inputDatasets": [], "outputDatasets": [],
            "logFiles": self.logs_of(name), "runType": "azureml.scriptrun", "inputs": {}, "outputs": {},
        }  # fmt: skip


class Tracking:
    """A real MLflow server. It names its runs itself, so that a job's name stands for its run's id on the way."""

    def __init__(self, port: int) -> None:
        self.port, self.ids = port, dict[str, str]()

    def start_run(self, job: str, experiment: str) -> str:
        """Make the run of a job, as Azure ML does before its command begins; the experiment's id."""
        found = self.call("GET", f"experiments/get-by-name?{urlencode({'experiment_name': experiment})}")
        if "experiment" in found:
            identity = found["experiment"]["experiment_id"]
        else:
            identity = self.call("POST", "experiments/create", {"name": experiment})["experiment_id"]
        made = self.call("POST", "runs/create", {"experiment_id": identity, "run_name": job, "start_time": 0})
        self.ids[job] = made["run"]["info"]["run_id"]
        return str(identity)

    def metrics(self, job: str) -> dict[str, float]:
        """The last value of each metric that a job has logged."""
        run = self.call("GET", f"runs/get?run_id={self.ids[job]}")["run"]
        return {one["key"]: one["value"] for one in run["data"].get("metrics", [])}

    def history(self, job: str, metric: str) -> list[tuple[int, float]]:
        found = self.call("GET", f"metrics/get-history?run_id={self.ids[job]}&metric_key={quote(metric)}")
        return [(one.get("step", 0), one["value"]) for one in found.get("metrics", [])]

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = HTTPConnection(HOST, self.port, timeout=60)
        connection.request(method, f"/api/2.0/mlflow/{path}", json.dumps(body) if body else None, JSON)
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found

    def forward(self, request: Request, path: str) -> Response:
        path, query = self._renamed(path, False), {k: self._renamed(v, False) for k, v in request.query.items()}
        connection = HTTPConnection(HOST, self.port, timeout=60)
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        body = self._renamed(request.body.decode(), False) if request.body else None
        connection.request(request.method, target, body, JSON)
        answer = connection.getresponse()
        return Response(answer.status, self._renamed(answer.read().decode(), True).encode(), JSON)

    def _renamed(self, text: str, back: bool) -> str:
        for job, identity in sorted(self.ids.items(), key=lambda pair: -len(pair[0])):  # a name may begin another
            text = text.replace(identity, job) if back else text.replace(job, identity)
        return text
