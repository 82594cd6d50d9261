"""Connections that are waited for: how long, and how many.

uvicorn waits for ever for the first line of a request, and refuses everybody once its connections are all taken. Here
each wait has an end, and where all are taken, the one that has been waited for longest makes room.
"""

import asyncio
import time
from collections import Counter
from typing import Any, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

from trainer.inference.serve.limits import Limits

GRACE_SECONDS = 2.0  # for the app, which has its own limit for bodies and says so
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 19\r\n"
    b"connection: close\r\n\r\nService Unavailable"
)
Awaited = Literal["request", "body"]


def connection_type(limits: Limits) -> type[H11Protocol]:
    """The protocol that uvicorn makes for each connection, under these limits."""

    class Limited(_Connection):
        pass

    Limited.limits = limits
    return Limited


class _Connection(H11Protocol):
    limits: Limits
    awaited: Awaited | None = None  # what the client has to send next; None while it is answered
    since: float = 0.0
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections and not self._make_room():
            transport.write(BUSY)
            transport.close()
            return
        self._wait_for_client()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_client()

    def on_response_complete(self) -> None:
        self.awaited = None  # whatever the client has still to send, its time begins anew, and once
        super().on_response_complete()
        self._wait_for_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_client(self) -> None:
        """Start the time of what the client has to send, unless it runs already."""
        awaited = self._awaited()
        if awaited == self.awaited:
            return
        self._stop_waiting()
        self.awaited = awaited
        if awaited is not None:
            header, body = self.limits.max_header_seconds, self.limits.max_body_seconds + GRACE_SECONDS
            self.since = time.monotonic()
            self.deadline = self.loop.call_later(header if awaited == "request" else body, self._give_up)

    def _awaited(self) -> Awaited | None:
        if self.cycle is None or self.cycle.response_complete:
            return "request"
        return "body" if self.cycle.more_body else None

    def _stop_waiting(self) -> None:
        self.awaited = None
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _give_up(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _make_room(self) -> bool:
        """End the oldest wait of the client with most of them; False where no other connection is waited for."""
        waiting = [one for one in self.connections if isinstance(one, _Connection) and one.awaited and one is not self]
        if not waiting:
            return False
        of_clients: Counter[Any] = Counter(one._address() for one in waiting)
        max(waiting, key=lambda one: (of_clients[one._address()], -one.since))._give_up()
        return True

    def _address(self) -> str:
        return "" if self.client is None else self.client[0]
