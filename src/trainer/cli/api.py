"""`trainer api`: OpenAI's fine-tuning API over this machine's runs."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.console import Debug, command, out, say
from trainer.errors import ConfigError
from trainer.extras import need
from trainer.runs.files import expanded

NEEDED = ("starlette", "uvicorn", "jinja2", "python_multipart")
LOCAL = ("127.0.0.1", "localhost", "::1")

Config = Annotated[
    Path | None,
    typer.Option("--config", callback=lambda path: path and expanded(path), help="The server's YAML."),
]
Bases = Annotated[
    list[str] | None, typer.Option("--base", metavar="NAME=BASE", help="A base that clients may name; repeatable.")
]


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
        typer.Option("--root", callback=lambda path: path and expanded(path), help="The folder that holds the runs."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Serve OpenAI's fine-tuning API: clients of OpenAI and Azure OpenAI change their address, and nothing else.

    Without --config the key comes from TRAINER_API_KEY, or is made and shown. Ctrl-C ends the server, and no run.
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

    from trainer.api.app import ROUTES, ApiDoor
    from trainer.api.attendant import attending
    from trainer.api.folders import sweep
    from trainer.api.settings import load_api
    from trainer.web.mistakes import report
    from trainer.web.server import StudioServer

    started = load_api(config, root, base or ())
    door = ApiDoor(started.settings, alone=True)
    folder = started.settings.root
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"root: {str(folder)!r} is a file, expected a folder; choose another")
    server = StudioServer(folder, ROUTES, (), (), host, port, allowed_host or (), report, door=door)
    sweep(folder)
    if host not in LOCAL:
        say("this server speaks HTTP without TLS: on any network but your own put a proxy with TLS in front")
    if started.new_key:
        say(f"key: {started.new_key} (shown once; set TRAINER_API_KEY to choose one)")
    say(f"the API of {folder} answers at the address below, which is a client's base_url; Ctrl-C ends it")
    out.print(f"{server.address}/v1", markup=False)
    with attending(started.settings, say):
        server.run_until_signal()


def _show_new_key(name: str) -> None:
    from trainer.api.keys import digest_of

    key = f"sk-{secrets.token_urlsafe(32)}"
    say(f"key of {name}, shown once: {key}")
    out.print(f"keys:\n  - name: {name}\n    sha256: {digest_of(key)}", markup=False)
