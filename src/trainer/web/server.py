"""`trainer ui`: bind, print the link, answer until a signal comes."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from trainer.inference.serve.connections import connection_type
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.listening import bind, run_until_signal
from trainer.web.app import Studio, make_app
from trainer.web.door import Door
from trainer.web.policy import make_policy
from trainer.web.routes import Link, Route
from trainer.web.sessions import Sessions, find_secret
from trainer.web.templates import Templates

STOP_SECONDS = 5
CONNECTIONS = Limits(max_body_seconds=600.0)  # an upload from a slow disk takes minutes


class StudioServer:
    """A server that listens already, so that a taken port is reported before anything is shown. Raises: ConfigError."""

    def __init__(
        self,
        root: Path,
        routes: Sequence[Route],
        navigation: Sequence[Link],
        packages: Sequence[str],
        host: str = "127.0.0.1",
        port: int = 0,
        names: Sequence[str] = (),
        report: Callable[[Exception], None] = lambda error: None,
        file_roots: Sequence[Path] = (),
        door: Door | None = None,
    ) -> None:
        """`packages` hold the templates of `routes`; `report` gets each mistake of ours.

        Pages may list and read the files below `file_roots` beside those of the runs. Programs enter by the `door`.
        """
        self.sessions = Sessions(find_secret(root))
        self.listener = bind(host, port)
        port = self.listener.getsockname()[1]
        policy = make_policy(host, port, names, self.sessions)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        templates = Templates(["trainer.web", *packages])
        self.studio = Studio(root, policy, templates, routes, navigation, report, file_roots=file_roots, door=door)
        settings = uvicorn.Config(
            make_app(self.studio),
            http=connection_type(CONNECTIONS),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self.uvicorn = _Server(settings, self.studio.streams.end)

    @property
    def link(self) -> str:
        """The address that signs a browser in."""
        return f"{self.address}/?token={self.sessions.token}"

    def run_until_signal(self) -> None:
        """Answer until SIGTERM or Ctrl-C. Raises: KeyboardInterrupt, after Ctrl-C."""
        run_until_signal(self.run)

    def run(self) -> None:
        """Answer until a signal to stop."""
        self.uvicorn.run(sockets=[self.listener])

    def stop(self) -> None:
        """Take no more requests, end the streams, and return from `run`."""
        self.uvicorn.should_exit = True


class _Server(uvicorn.Server):
    """Ends streams before it waits for connections, which would wait for them."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self.end_streams = end_streams

    async def shutdown(self, sockets: "list[socket.socket] | None" = None) -> None:
        self.end_streams()
        await super().shutdown(sockets)
