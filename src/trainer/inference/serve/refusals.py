"""A request that is not answered, in the words and with the status codes of OpenAI's API."""

from typing import Any


class Refusal(Exception):
    """Refused request; `body` is what the client gets."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.kind = status, message, code, param, kind
        self.retry_seconds = retry_seconds

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_seconds is None else {"retry-after": str(self.retry_seconds)}


def not_ready(reason: str) -> Refusal:
    """The model is being loaded, or the server is about to end."""
    return Refusal(503, reason, "not_ready", kind="server_error", retry_seconds=2)


def overloaded(max_requests: int) -> Refusal:
    """All places are taken; nothing waits in line."""
    message = f"{max_requests} requests are being answered, which is this server's limit; try again"
    return Refusal(429, message, "rate_limit_exceeded", kind="requests", retry_seconds=1)


def failed(reason: str) -> Refusal:
    """Something broke that the client has no part in."""
    return Refusal(500, reason, "server_error", kind="server_error")
