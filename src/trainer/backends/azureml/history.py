"""A job's logs, and why it failed, from the workspace's run history: the API behind the studio's pages."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.azureml.workspace import Place, credential
from trainer.backends.http import Say, patiently, timeout_seconds

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

SCOPE = "https://management.azure.com/.default"
# The output of the command; with several processes that of the first one.
LOGS = ("user_logs/std_log.txt", "user_logs/std_log_process_0.txt", "user_logs/std_log_process_00.txt")


@dataclass(frozen=True, slots=True)
class Details:
    """What the history says of a job. `logs`: their addresses by name, readable as they are where signed."""

    reason: str = ""
    seconds: float | None = None  # that it ran
    logs: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str | None:
        """The address of what the command printed; None before it has."""
        return next((self.logs[name] for name in LOGS if name in self.logs), None)


class History:
    """The run history of a workspace."""

    def __init__(self, client: "MLClient", place: Place, say: Say) -> None:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RedirectPolicy

        self.place, self.say, self._ml = place, say, client
        self._client = PipelineClient(
            "https://management.azure.com",
            policies=[RedirectPolicy(), BearerTokenCredentialPolicy(credential(), SCOPE)],
            connection_timeout=timeout_seconds(),
            read_timeout=timeout_seconds(),
        )
        self._api: str | None = None

    def details(self, job: str) -> Details:
        """What is known of a job now. Raises: BackendError."""
        found = patiently(lambda: self._details(job), f"reading the history of job {job!r}", self.say)
        return Details(_reason(found), _seconds(found), dict(found.get("logFiles") or {}))

    def read_log(self, address: str, start: int) -> bytes:
        """A log from the byte `start` on. Raises: BackendError."""
        return patiently(lambda: _read(address, start), "reading the job's log", self.say)

    def _details(self, job: str) -> dict[str, Any]:
        if self._api is None:
            discovery = str(self._ml.workspaces.get(self.place.workspace).discovery_url)
            services = self._get(discovery)
            self._api = str(services.get("history") or services.get("api") or f"https://{urlsplit(discovery).netloc}")
        return self._get(f"{self._api.rstrip('/')}/history/v1.0{self.place.arm_id}/runs/{job}/details")

    def _get(self, address: str) -> dict[str, Any]:
        from azure.core.rest import HttpRequest

        response = self._client.send_request(HttpRequest("GET", address))
        response.raise_for_status()
        found: dict[str, Any] = json.loads(response.content)
        return found


def _read(address: str, start: int) -> bytes:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobClient

    signed = "sig=" in urlsplit(address).query
    blob = BlobClient.from_blob_url(address, credential=None if signed else credential())
    try:
        return bytes(blob.download_blob(offset=start).readall()) if start or _size(blob) else b""
    except HttpResponseError as error:
        if error.status_code in (404, 416):  # not written yet; nothing new
            return b""
        raise


def _size(blob: Any) -> int:
    """An empty blob has no first byte to begin at."""
    return int(blob.get_blob_properties().size)


def _reason(found: dict[str, Any]) -> str:
    """Code and message of the innermost error that says something."""
    error = (found.get("error") or {}).get("error") or found.get("error") or {}
    code, message = str(error.get("code") or ""), " ".join(str(error.get("message") or "").split())[:500]
    inner = error.get("innerError") or {}
    while isinstance(inner.get("innerError"), dict):
        inner = inner["innerError"]
    codes = dict.fromkeys(filter(None, [code, str(inner.get("code") or "")]))
    return ": ".join(filter(None, ["/".join(codes), message]))


def _seconds(found: dict[str, Any]) -> float | None:
    try:
        start, end = (datetime.fromisoformat(found[name]) for name in ("startTimeUtc", "endTimeUtc"))
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, (end - start).total_seconds())
