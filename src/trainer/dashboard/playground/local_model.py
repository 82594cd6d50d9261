"""The one model of this machine for the playground: a process on demand, ended when idle and with the server."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from trainer.backends.chat_route import events_of, pieces_of, request_body
from trainer.errors import BackendError
from trainer.inference.client import ChatMessage, Piece, Sampling, Tool
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.process import ModelProcess, serve_runs, start_process
from trainer.runs import Run

IDLE_SECONDS = 600.0
LIMITS = Limits(max_requests=4, max_tokens=4096, max_seconds=600.0)
ANSWER_SECONDS = 620.0


@dataclass
class LoadedModel(ModelProcess):
    """A process that serves a run's model and its base."""

    run: Run = field(kw_only=True)


class LocalModels:
    """At most one model at a time; loading another one ends the first."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self.idle_seconds = idle_seconds
        self.loaded: LoadedModel | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def load(self, run: Run) -> LoadedModel:
        """The run's model, which is loading or ready; that of another run is ended. Raises: ConfigError."""
        from trainer.inference.trained import trained_adapter

        trained_adapter(run)
        with self._lock:
            loaded = self.loaded
            if loaded is not None and loaded.run.path == run.path and loaded.state != "failed":
                return loaded
            if loaded is not None:
                loaded.end()
            self.loaded = loaded = _started(run)
        loaded.follow()
        threading.Thread(target=self._end_when_idle, args=(loaded,), daemon=True).start()
        return loaded

    def of(self, run: Run) -> LoadedModel | None:
        """The run's model, if it is the one that is held."""
        loaded = self.loaded
        return loaded if loaded is not None and loaded.run.path == run.path else None

    def client(self, run: Run, base: bool) -> "ServedChat":
        """A client of the loaded model or its base. Raises: BackendError, where it is not ready."""
        loaded = self.of(run)
        if loaded is None or loaded.state != "ready" or len(loaded.models) < 1 + base:
            raise BackendError(f"run {run.name!r}: its model is not loaded, expected it ready; load it, and ask again")
        return ServedChat(loaded, loaded.models[1 if base else 0])

    def unload(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            loaded, self.loaded = self.loaded, None
        if loaded is not None:
            loaded.end()

    def close(self) -> None:
        """End the process and the watching of it."""
        self._closed.set()
        self.unload()

    def _end_when_idle(self, loaded: LoadedModel) -> None:
        while not self._closed.wait(min(5.0, self.idle_seconds / 4)):
            if self.loaded is not loaded or loaded.state == "failed":
                return
            is_idle = loaded.state == "ready" and not loaded.num_answering  # a large model may load for longer
            if is_idle and time.monotonic() - loaded.used_at > self.idle_seconds:
                self.unload()
                return


def _started(run: Run) -> LoadedModel:
    made = start_process(run.path.parent, serve_runs(run.path), LIMITS)
    return LoadedModel(made.key, made.process, run=run)


class ServedChat:
    """A ChatClient of the model's process."""

    def __init__(self, loaded: LoadedModel, name: str) -> None:
        self.loaded, self.name = loaded, name

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[Piece]:
        """The answer in pieces, then its calls; whoever stops reading stops the model. Raises: BackendError."""
        assert self.loaded.port is not None
        body: Mapping[str, Any] = request_body(self.name, messages, sampling, tools) | {"stream": True}
        connection = HTTPConnection("127.0.0.1", self.loaded.port, timeout=ANSWER_SECONDS)
        self.loaded.num_answering += 1
        try:
            headers = {"Authorization": f"Bearer {self.loaded.key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise BackendError(_refusal(response.read()))
            yield from pieces_of(events_of(iter(lambda: response.read1(65536), b"")))
        except (OSError, HTTPException) as error:
            raise BackendError(f"the model's process does not answer: {error}; load the model again") from error
        finally:
            self.loaded.num_answering -= 1
            self.loaded.used_at = time.monotonic()
            connection.close()


def _refusal(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return "the model's process refused the question; load the model again"
