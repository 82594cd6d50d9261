"""`trainer serve`: bind, load the model behind the open port, answer until a signal comes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from trainer.errors import TrainerError, TrainingError
from trainer.inference.serve.guards import KEY_VARIABLE, allowed_hosts
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.listening import bind, run_until_signal

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from trainer.inference.serve.app import Server
    from trainer.inference.serve.loading import Loader
    from trainer.inference.serve.sources import ModelSource

WATCH_SECONDS = 1.0


class Program:
    """A server that listens already, so that it reports a missing part or a taken port before it loads the model.

    Raises: ConfigError.
    """

    def __init__(
        self,
        source: "ModelSource",
        host: str,
        port: int,
        names: Sequence[str],
        key: str,
        limits: Limits,
        report: Callable[[str], None] = lambda message: None,
        authorization: str | None = None,
    ) -> None:
        """`authorization` is the key as a call may show it; None where it may not."""
        import uvicorn

        from trainer.inference.serve.app import Server, make_app
        from trainer.inference.serve.connections import connection_type

        self.listener = bind(host, port)
        port = self.listener.getsockname()[1]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.server = Server(source.names[0], key, allowed_hosts(host, port, names), limits, created=int(time.time()))
        self.keeper = _Keeper(source, self.server, report, self.address, authorization or f"${KEY_VARIABLE}")
        settings = uvicorn.Config(
            make_app(self.server, self.keeper.lifespan),
            http=connection_type(limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(limits.max_seconds) + 1,
        )
        self.uvicorn = uvicorn.Server(settings)
        self.keeper.stop = self.stop

    def run_until_signal(self) -> None:
        """Answer until SIGTERM or Ctrl-C, and then the requests in progress.

        Raises: ConfigError, when the model cannot be loaded; ParityError, when its prompts would not be the trained
        ones; TrainingError, when it fails later; KeyboardInterrupt, after Ctrl-C.
        """
        run_until_signal(self.run)

    def run(self) -> None:
        """Answer until a signal to stop."""
        self.uvicorn.run(sockets=[self.listener])
        if self.keeper.error is not None:
            raise self.keeper.error

    def stop(self) -> None:
        """Take no more requests, answer those in progress, and end."""
        self.uvicorn.should_exit = True


class _Keeper:
    """Loads the model while the port is open, watches it, and ends it with the server."""

    def __init__(
        self, source: "ModelSource", server: "Server", report: Callable[[str], None], address: str, authorization: str
    ) -> None:
        self.source, self.server, self.report, self.address = source, server, report, address
        self.authorization = authorization
        self.stop: Callable[[], None] = lambda: None
        self.loader: Loader | None = None
        self.error: TrainerError | None = None

    @asynccontextmanager
    async def lifespan(self, app: "Starlette") -> AsyncIterator[None]:
        task = asyncio.create_task(self._keep())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self.loader is not None:
            await self.loader.stop()

    async def _keep(self) -> None:
        from trainer.inference.serve.trained_prompt import ready_call

        names = ", ".join(self.source.names)
        try:
            self.report(f"loading {names}; {self.address}/health says when it is ready")
            self.loader = await self.source.load(self.server.limits, self.report)
            models = self.server.models = self.loader.models
            for run in self.source.runs[:1]:
                call = await asyncio.to_thread(ready_call, run, self.address, self.authorization)
                if call is None:
                    break
                self.report(f"a question as the training rows ask it:\n{call}")
            for name in models.names[len(self.source.names) :]:
                self.report(f"the model before fine-tuning answers there as {name}")
            self.report(f"serving {names} on {self.address}/v1")
            while not models.problem:
                await asyncio.sleep(WATCH_SECONDS)
            raise TrainingError(f"the model has stopped: {models.problem}; start the server again")
        except TrainerError as error:
            self.error = error
        except Exception as error:
            self.error = TrainingError(f"unexpected {type(error).__name__}: {error}; --debug shows where")
            self.error.__cause__ = error
        self.server.problem = str(self.error)
        self.stop()
