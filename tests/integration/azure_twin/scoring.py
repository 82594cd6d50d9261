"""Managed online endpoints: the address that clients call, and the real inference server behind each deployment."""

import os
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.entra import claims_of
from tests.guard import mark
from tests.integration.azure_twin.arm import Arm
from tests.integration.azure_twin.mount import place_of
from tests.integration.azure_twin.servers import free_port, serving_python
from tests.loopback import HOST, Request, Response
from tests.waiting import until

START = "from azureml_inference_server_http import amlserver_linux; amlserver_linux.run('127.0.0.1', {port}, 1)"
READY_SECONDS = 240.0
TOKEN_AUDIENCE = "https://ml.azure.com"
DROPPED = frozenset({"host", "connection", "content-length", "authorization", "accept-encoding", "transfer-encoding"})


@dataclass
class Server:
    """The container of a deployment."""

    port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    state: str = ""  # the deployment's, once it is known


@dataclass
class Scoring:
    arm: Arm
    folder: Path | None = None
    python: Path | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    answer: Callable[[Request, str], Response] | None = None  # instead of a container, where nothing is served

    def serve(self, folder: Path) -> None:
        """Run a container for each deployment from now on."""
        self.folder, self.python = folder, serving_python()
        self.arm.start_deployment, self.arm.stop_deployment = self._start, self._stop
        self.arm.deployment_log = self._log

    def stop(self) -> None:
        for path in list(self.servers):
            self._stop(path)

    def __call__(self, request: Request) -> Response:
        name = request.host.split(".")[0]
        endpoint = self.arm.resources.get(f"onlineEndpoints/{name}")
        if endpoint is None:
            return Response(404, {"error": {"code": "NotFound", "message": "no such endpoint"}})
        if not self._is_let_in(request, name, str(endpoint["properties"].get("authMode"))):
            return Response(401, {"error": {"code": "Unauthorized", "message": "Please provide a valid key."}})
        traffic = endpoint["properties"].get("traffic") or {}
        chosen = request.headers.get("azureml-model-deployment") or max(
            traffic, key=lambda one: traffic[one], default=""
        )
        path = f"onlineEndpoints/{name}/deployments/{chosen}"
        deployment = self.arm.resources.get(path)
        if deployment is None or deployment["properties"]["provisioningState"] != "Succeeded":
            return Response(404, {"error": {"code": "NotFound", "message": "no deployment takes this request"}})
        answer = self.answer(request, path) if self.answer else self._forward(request, self.servers[path])
        if answer.status >= 400:  # the container's own status goes into a header
            own = {"ms-azureml-model-error-statuscode": str(answer.status)}
            answer = Response(424, answer.body, answer.headers | own)
        answer.headers |= {"azureml-model-deployment": chosen}
        return answer

    def _is_let_in(self, request: Request, name: str, mode: str) -> bool:
        """By a key of the endpoint, or by a token of Entra's for Azure ML, and by nothing else."""
        if mode.lower() == "aadtoken":
            claims = claims_of(request)
            return claims is not None and claims["aud"].rstrip("/") == TOKEN_AUDIENCE
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer in self.arm.keys[f"onlineEndpoints/{name}"].values()

    def _forward(self, request: Request, server: Server) -> Response:
        connection = HTTPConnection(HOST, server.port, timeout=180)
        headers = {name: value for name, value in request.headers.items() if name not in DROPPED}
        connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        return Response(answer.status, answer.read(), {"Content-Type": answer.getheader("content-type") or ""})

    def _log(self, path: str) -> str:
        return self.servers[path].log.read_text(errors="replace")[-5000:] if path in self.servers else ""

    def _start(self, path: str) -> Callable[[], str]:
        self._stop(path)
        assert self.folder is not None
        folder = self.folder / re.sub(r"\W", "-", path)
        folder.mkdir(parents=True, exist_ok=True)
        server = self.servers[path] = Server(free_port(), folder / "log")
        server.log.touch()
        threading.Thread(target=self._live, args=(path, server, folder), daemon=True).start()
        return lambda: server.state

    def _live(self, path: str, server: Server, folder: Path) -> None:
        properties = self.arm.resources[path]["properties"]
        try:
            environment = self._prepare(properties, folder)
            with server.log.open("ab") as log:
                server.process = subprocess.Popen(
                    [str(self.python), "-c", START.format(port=server.port)], env=environment, stdout=log, stderr=log,
                    cwd=folder, start_new_session=True,
                )  # fmt: skip
            process = server.process
            until(lambda: process.poll() is not None or _is_ready(server.port), "starting a container", READY_SECONDS)
            server.state = "Succeeded" if server.process.poll() is None and _is_ready(server.port) else "Failed"
        except Exception as error:
            with server.log.open("a") as log:
                log.write(f"the twin cannot start this container: {type(error).__name__}: {error}\n")
            server.state = "Failed"

    def _prepare(self, properties: dict[str, Any], folder: Path) -> dict[str, str]:
        """What the storage initializer does: model and code into folders, and the names of both."""
        given = {name: str(value) for name, value in (properties.get("environmentVariables") or {}).items()}
        own = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
        own["HF_HUB_OFFLINE"] = "1"
        if model := properties.get("model"):
            own["AZUREML_MODEL_DIR"] = str(self._model(model, folder))
        code = properties.get("codeConfiguration")
        assert code is not None, "a container without a scoring script needs its own image, which is not run here"
        self._fetch(self._body(code["codeId"])["codeUri"], folder / "code")
        script = Path(code["scoringScript"])
        own |= {"AML_APP_ROOT": str(folder / "code" / script.parent), "AZUREML_ENTRY_SCRIPT": script.name}
        return own | given | mark()

    def _model(self, model: str, folder: Path) -> Path:
        name, _, version = model.rpartition("/models/")[2].partition("/versions/")
        uri = self._body(model)["modelUri"].rstrip("/")
        target = folder / "azureml-models" / name / version
        self._fetch(uri, target / uri.rsplit("/", 1)[1])
        return target

    def _body(self, identity: str) -> dict[str, Any]:
        found: dict[str, Any] = self.arm.resources[identity.partition("/workspaces/")[2].partition("/")[2]][
            "properties"
        ]
        return found

    def _fetch(self, uri: str, folder: Path) -> None:
        place = place_of(self.arm, uri)
        folder.mkdir(parents=True, exist_ok=True)
        self.arm.blobs.download(place.container, place.prefix, folder)

    def _stop(self, path: str) -> None:
        server = self.servers.pop(path, None)
        if server is not None and server.process is not None:
            server.process.terminate()
            server.process.wait(timeout=60)


def _is_ready(port: int) -> bool:
    try:
        connection = HTTPConnection(HOST, port, timeout=5)
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
