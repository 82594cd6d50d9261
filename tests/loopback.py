"""HTTP services for tests: on 127.0.0.1, with a memory of every request, and with faults on demand.

A service is a function from Request to Response that keeps its own state. A Fault says what happens to the first
request that it matches (or to `times` of them): an answer instead of the service's, or a broken connection, before or
after the service has done what was asked. A Kill ends the client's process at a request's boundary.
"""

import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str  # decoded, without the query
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    host: str = ""  # as the client called it: a proxy may stand between

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Response:
    status: int = 200
    body: Any = None  # bytes are sent as they are, everything else as JSON; None sends none
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Handler = Callable[[Request], Response]
Match = Callable[[Request], bool]
Break = Literal["", "timeout", "reset", "truncated"]


@dataclass
class Fault:
    """What goes wrong. `commits`: the service does what was asked before it goes wrong."""

    name: str
    match: Match = lambda request: True
    commits: bool = False
    broken: Break = ""  # the connection, instead of an answer
    answer: Callable[[Response], Response] | None = None  # made of the service's own where it commits
    times: int = 1

    def fresh(self, match: Match) -> "Fault":
        return Fault(self.name, match, self.commits, self.broken, self.answer, self.times)


@dataclass
class Kill:
    """End the client's process at the first request that matches, before or after the service has acted on it."""

    match: Match
    after: bool
    pid: Callable[[], int]
    done: bool = False


def status(code: int, body: Any = None, **headers: str) -> Callable[[Response], Response]:
    words = {name.replace("_", "-"): value for name, value in headers.items()}
    error = {"error": {"code": f"Code{code}", "message": f"refused with {code} for a test"}}
    return lambda own: Response(code, error if body is None else body, words)


def altered(change: Callable[[Any], Any]) -> Callable[[Response], Response]:
    """The service's own answer with another body."""
    return lambda own: Response(own.status, change(own.body), own.headers)


def with_unknown_fields(body: Any) -> Any:
    return body | {"a_field_of_tomorrow": {"deep": [1, None]}} if isinstance(body, dict) else body


def with_nulls(body: Any) -> Any:
    """Every field that may be absent stands there as null, as Azure OpenAI writes it."""
    return body | dict.fromkeys(("a_null_field", "metadata", "error"), None) if isinstance(body, dict) else body


HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
LATER = "Sun, 06 Nov 1994 08:49:37 GMT"  # a date in the past: the clocks differ

FAULTS = (
    Fault("timeout before", broken="timeout"),
    Fault("timeout after", commits=True, broken="timeout"),
    Fault("reset before", broken="reset"),
    Fault("reset after", commits=True, broken="reset"),
    Fault("truncated body", commits=True, broken="truncated"),
    Fault("400", answer=status(400)),
    Fault("400 with Retry-After", answer=status(400, Retry_After="1")),
    Fault("401 once", answer=status(401)),
    Fault("403", answer=status(403)),
    Fault("404", answer=status(404)),
    Fault("408 before", answer=status(408)),
    Fault("408 after", commits=True, answer=status(408)),
    Fault("409", answer=status(409)),
    Fault("412", answer=status(412)),
    Fault("413", answer=status(413)),
    Fault("429", answer=status(429)),
    Fault("429 Retry-After 0", answer=status(429, Retry_After="0")),
    Fault("429 Retry-After 1", answer=status(429, Retry_After="1")),
    Fault("429 Retry-After -5", answer=status(429, Retry_After="-5")),
    Fault("429 Retry-After a past date", answer=status(429, Retry_After=LATER)),
    Fault("429 Retry-After garbage", answer=status(429, Retry_After="soon")),
    Fault("429 Retry-After 1e9", answer=status(429, Retry_After="1000000000")),
    Fault("500 before", answer=status(500)),
    Fault("500 after", commits=True, answer=status(500)),
    Fault("502", answer=status(502, HTML, Content_Type="text/html")),
    Fault("503 before", answer=status(503, Retry_After="0")),
    Fault("503 after", commits=True, answer=status(503, Retry_After="0")),
    Fault("504 after", commits=True, answer=status(504)),
    Fault("an HTML page with 200", commits=True, answer=lambda own: Response(200, HTML, {"Content-Type": "text/html"})),
    Fault("invalid JSON", commits=True, answer=lambda own: Response(own.status, b'{"id": ', own.headers)),
    Fault("null fields", commits=True, answer=altered(with_nulls)),
    Fault("unknown fields", commits=True, answer=altered(with_unknown_fields)),
)


class Loopback:
    """A server of one service. `https` gives it a certificate; `requests` is all that has arrived, in order."""

    def __init__(self, handler: Handler, https: ssl.SSLContext | None = None) -> None:
        self.handler, self.faults, self.kills = handler, list[Fault](), list[Kill]()
        self.requests: list[Request] = []
        self.hang_seconds = 5.0  # longer than the client's patience with one call
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((HOST, 0), _handler_of(self))
        self._server.daemon_threads = True
        if https is not None:
            self._server.socket = https.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self.url = f"http{'s' if https else ''}://{HOST}:{self.port}"

    def __enter__(self) -> "Loopback":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paused(self) -> threading.Lock:
        """Hold the lock, and every request waits."""
        return self._lock

    def answer(self, request: Request) -> tuple[Response | None, Break]:
        """The service's answer, or how the connection breaks; one request at a time, so that state never races."""
        with self._lock:
            self.requests.append(request)
            kill = next((kill for kill in self.kills if not kill.done and kill.match(request)), None)
            if kill and not kill.after:
                _end(kill)
                return None, "reset"
            fault = next((fault for fault in self.faults if fault.times and fault.match(request)), None)
            if fault:
                fault.times -= 1
            own = self.handler(request) if fault is None or fault.commits else Response(500)
        if kill:
            _end(kill)
            return None, "reset"
        if fault is None:
            return own, ""
        if fault.broken == "timeout":
            time.sleep(self.hang_seconds)
            return None, "reset"
        return (fault.answer(own) if fault.answer else own), fault.broken


def _end(kill: Kill) -> None:
    kill.done = True
    os.kill(kill.pid(), signal.SIGKILL)


def _handler_of(service: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handling(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes: 40 ms of waiting for the client's system

        def _handle(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(
                self.command, unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True)), headers,
                self._body(headers), headers.get("host", ""),
            )  # fmt: skip
            response, broken = service.answer(request)
            if broken == "reset" or response is None:
                self._reset()
                return
            content = response.content()
            self.send_response(response.status)
            for name, value in ({"Content-Type": "application/json"} | response.headers).items():
                self.send_header(name, value)
            if response.status != 204 and "Content-Length" not in response.headers:  # HEAD names the length of GET
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if broken == "truncated":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self._reset()
            elif self.command != "HEAD" and response.status != 204:
                self.wfile.write(content)

        def _body(self, headers: Mapping[str, str]) -> bytes:
            if headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(headers.get("content-length") or 0))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _reset(self) -> None:
            """End the connection with RST, so that the client sees a reset and not an end of file."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, ssl.SSLError, ValueError, OSError):
                return  # the client is gone, or we have closed on it

        def finish(self) -> None:
            try:
                super().finish()
            except (ConnectionError, ValueError, OSError):
                return

        def log_message(self, *words: object) -> None:
            return

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        setattr(Handling, f"do_{method}", Handling._handle)
    return Handling
