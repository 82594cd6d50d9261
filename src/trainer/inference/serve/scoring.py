"""The same service without HTTP: one request in, status and body out, for hosts that bring their own server."""

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.inference.serve.exported import models_of_export
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.models import Models
from trainer.inference.serve.refusals import Refusal, failed
from trainer.inference.serve.requests import parse_request


@dataclass(frozen=True, slots=True)
class Scored:
    """Response of the scoring script."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Scorer:
    """An exported model that answers from any thread; its own thread does the waiting.

    Raises: ConfigError, when the model cannot be loaded.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        loading = models_of_export(folder, limits, lambda message: None)
        self.models: Models = asyncio.run_coroutine_threadsafe(loading, self._loop).result()

    def score(self, body: bytes) -> Scored:
        """The answer to a chat request."""
        try:
            answer = asyncio.run_coroutine_threadsafe(self._answer(body), self._loop)
            try:
                return Scored(200, answer.result(), {})
            except BaseException:  # the host's own time limit, too
                answer.cancel()
                raise
        except Refusal as refusal:
            return Scored(refusal.status, refusal.body, refusal.headers)

    async def _answer(self, body: bytes) -> dict[str, Any]:
        if len(body) > self.limits.max_body_bytes:
            message = f"the body is too large, expected at most {self.limits.max_body_bytes:,} bytes"
            raise Refusal(413, message, "request_too_large")
        if problem := self.models.problem:
            raise failed(f"the model has stopped: {problem}")
        request = parse_request(body)
        if request.stream:
            raise Refusal(400, "stream is not supported here, expected false", "unsupported_parameter", "stream")
        async with self.models.using(request.model) as service:
            return await service.answer(request)
