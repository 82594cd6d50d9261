"""`trainer api`: OpenAI's fine-tuning API over this machine's runs, and its part of `trainer ui`."""

import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, command, out, say
from trainer.errors import ConfigError
from trainer.extras import need
from trainer.runs.files import expanded

if TYPE_CHECKING:
    from trainer.api.app import ApiDoor
    from trainer.web.routes import Route

NEEDED = ("starlette", "uvicorn", "jinja2", "python_multipart")
LOCAL = ("127.0.0.1", "localhost", "::1")


def _expanded(path: Path | None) -> Path | None:
    return path and expanded(path)


Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.yaml", callback=_expanded, help="The server's YAML: bases, keys, cap."),
]
Bases = Annotated[
    list[str] | None, typer.Option("--base", metavar="NAME=BASE", help="A base that clients may name; repeatable.")
]


@dataclass(frozen=True)
class Programs:
    """The API's part of a server."""

    root: Path
    routes: "Sequence[Route]"
    door: "ApiDoor"
    new_key: str | None

    def attending(self) -> AbstractContextManager[object]:
        """Look after jobs while the block lasts."""
        from trainer.api.attendant import attending

        return attending(self.door.settings, say)

    def show(self, address: str) -> None:
        """Print a client's base_url, and the key where it was made here."""
        if self.new_key:
            say(f"key: {self.new_key} (shown once; set TRAINER_API_KEY to choose one)")
        say(f"the fine-tuning API of {self.root} answers at the address below, which is a client's base_url")
        out.print(f"{address}/v1", markup=False)


def served(config: Path | None, root: Path | None, bases: Sequence[str], alone: bool) -> Programs:
    """Load what the API serves, and remove what a killed server left half-written. Raises: ConfigError."""
    from trainer.api.app import ROUTES, ApiDoor
    from trainer.api.folders import sweep
    from trainer.api.settings import load_api

    loaded = load_api(config, root, bases)
    folder = loaded.settings.root
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"root: {str(folder)!r} is a file, expected a folder; choose another")
    sweep(folder)
    return Programs(folder, ROUTES, ApiDoor(loaded.settings, alone), loaded.new_key)


@command
def api(
    config: Config = None,
    base: Bases = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8420,
    host: Annotated[
        str, typer.Option(help="The address to listen on; another one needs --allow-remote.")
    ] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let other machines reach this server.")] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that clients reach this server by.")
    ] = None,
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Make a key, show its entry for the YAML, and end.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", callback=_expanded, help="The folder of runs; default: the YAML's, or runs."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Serve OpenAI's fine-tuning API: clients of OpenAI and Azure OpenAI change their address, and nothing else.

    Without keys in a YAML the key comes from TRAINER_API_KEY, or is made and shown. Ctrl-C ends the server and no run.
    """
    if new_key is not None:
        _show_new_key(new_key)
        return
    need("api", *NEEDED, extra="ui")
    if host not in LOCAL and not allow_remote:
        raise ConfigError(
            f"--host: {host!r} can be reached from other machines, expected --allow-remote beside it; whoever has a "
            "key can train here, and without TLS it can be overheard"
        )

    from trainer.web.mistakes import report
    from trainer.web.server import StudioServer

    programs = served(config, root, base or (), alone=True)
    server = StudioServer(
        programs.root, programs.routes, (), (), host, port, allowed_host or (), report, door=programs.door
    )
    if host not in LOCAL:
        say("this server speaks HTTP without TLS: on any network but your own put a proxy with TLS in front")
    programs.show(server.address)
    with programs.attending():
        server.run_until_signal()


def _show_new_key(name: str) -> None:
    from trainer.api.keys import OWNER, digest_of

    if not re.fullmatch(OWNER, name):
        raise ConfigError(f"--new-key: {name!r} is no name, expected up to 40 letters, digits, - and _; choose another")
    key = f"sk-{secrets.token_urlsafe(32)}"
    say(f"the key of {name}, shown once: {key}")
    out.print(f'keys:\n  - name: {name}\n    sha256: "{digest_of(key)}"', markup=False)
