"""A real server of the fine-tuning API on 127.0.0.1, in a thread of this process, with a key for each caller."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI

from tests.api_contract import Watched
from tests.studio import Answer, Studio
from trainer.api.app import ROUTES, ApiDoor
from trainer.api.attendant import attending
from trainer.api.keys import Caller, Key, digest_of
from trainer.api.settings import ApiSettings, BaseOffer
from trainer.web.server import StudioServer

CALLERS = (Caller("ann"), Caller("bob"), Caller("small", max_jobs=1, max_tokens=1000, max_bytes=1000))
TINY = "builtin:tiny"


def key_of(name: str) -> str:
    return f"key-of-{name}"


class ApiServer:
    """The server, and clients of it as the SDK makes them."""

    def __init__(self, server: StudioServer) -> None:
        self.server, self.http = server, Studio(server)
        self.clients = dict[tuple[object, ...], OpenAI]()

    def client(self, name: str = "ann", below: str = "/v1", **settings: Any) -> OpenAI:
        """An unmodified client of OpenAI's SDK; it does not repeat what fails."""
        key = (name, below, *sorted(settings.items()))
        if key not in self.clients:
            own = {"max_retries": 0} | settings
            self.clients[key] = OpenAI(api_key=key_of(name), base_url=f"{self.server.address}{below}", **own)
        return self.clients[key]

    def send(
        self, method: str, path: str, body: bytes | str | None = None, name: str = "ann", **headers: str
    ) -> Answer:
        """A request with the caller's key and these headers."""
        own = {"Authorization": f"Bearer {key_of(name)}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.http.send(method, path, own, body)


def settings_of(root: Path, **settings: Any) -> ApiSettings:
    """Settings with a key for each of CALLERS and the tiny base."""
    keys = [Key(caller, digest_of(key_of(caller.name))) for caller in CALLERS]
    bases: Mapping[str, BaseOffer] = {TINY: BaseOffer(base=TINY)}
    return ApiSettings(**{"root": root, "bases": bases, "keys": keys} | settings)


@contextmanager
def api_server(root: Path, **settings: Any) -> Iterator[ApiServer]:
    """Serve the API of a folder of runs; it has ended when the block is left, and made no mistake.

    Every request and answer was as the OpenAPI document has it.
    """
    mistakes, said = list[Exception](), list[str]()
    door = ApiDoor(settings_of(root, **settings), alone=True)
    server = StudioServer(root, ROUTES, (), (), report=mistakes.append, door=door)
    watched = server.uvicorn.config.app = Watched(server.uvicorn.config.app)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with attending(door.settings, said.append, poll_seconds=0.05):
            yield ApiServer(server)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
    assert (mistakes, said) == ([], []), (mistakes, said)
    assert watched.findings == [], watched.findings
