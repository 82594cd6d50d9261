"""`trainer ui`: the studio, a page in the browser over the folder of runs."""

import threading
import webbrowser
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.api import Bases, Config, served
from trainer.cli.console import Debug, Root, command, out, say
from trainer.errors import ConfigError
from trainer.extras import need
from trainer.runs.files import expanded

NEEDED = ("starlette", "uvicorn", "jinja2", "python_multipart")
LOCAL = ("127.0.0.1", "localhost", "::1")


@command
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8421,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False,
    host: Annotated[
        str, typer.Option(help="The address to listen on; another one needs --allow-remote.")
    ] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines reach this page, and everything it can do.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that browsers reach this server by.")
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder whose files the page may show; default: the current one."),
    ] = None,
    api: Annotated[bool, typer.Option("--api", help="Serve the fine-tuning API too, below /v1.")] = False,
    config: Config = None,
    base: Bases = None,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Open the studio: runs, training and models in the browser, on this machine alone.

    The printed link signs a browser in; keep it to yourself. Ctrl-C ends the server, and no run.
    """
    need("ui", *NEEDED, extra="ui")
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--root: {str(root)!r} is a file, expected a folder; choose another")
    if host not in LOCAL and not allow_remote:
        raise ConfigError(
            f"--host: {host!r} can be reached from other machines, expected --allow-remote beside it; whoever has the "
            "link can start and delete runs and spend money, and without TLS can be overheard"
        )

    if (config or base) and not api:
        raise ConfigError("--config, --base: are the API's, expected --api beside them")

    roots = [expanded(folder) for folder in files or [Path()]]
    if missing := [str(folder) for folder in roots if not folder.is_dir()]:
        raise ConfigError(*(f"--files: {folder!r} is no folder, expected one; name another" for folder in missing))

    from trainer.dashboard import NAVIGATION, PACKAGE, ROUTES
    from trainer.dashboard.runs import summaries_of
    from trainer.web.mistakes import report
    from trainer.web.server import StudioServer

    programs = served(config, root, base or (), alone=False) if api else None
    routes, door = ((*ROUTES, *programs.routes), programs.door) if programs else (ROUTES, None)
    server = StudioServer(root, routes, NAVIGATION, [PACKAGE], host, port, allowed_host or (), report, roots, door)
    if host not in LOCAL:
        say(
            "this server speaks HTTP without TLS: on any network but your own put a proxy with TLS in front, since the "
            "link and all that is shown can be read on the way"
        )
    threading.Thread(target=summaries_of(root).all, daemon=True).start()  # read before the browser asks for them
    if programs:
        programs.show(server.address)
    say(f"the studio of {root} is at the link below; keep it to yourself; Ctrl-C ends it")
    out.print(server.link, markup=False)
    if not no_open:
        webbrowser.open(server.link)
    with programs.attending() if programs else nullcontext():
        server.run_until_signal()
