"""`trainer serve`: models of runs behind an OpenAI-compatible API on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from trainer.cli.console import Debug, Root, command, loading, say
from trainer.errors import Attempts
from trainer.extras import need
from trainer.runs import Run, find_run

if TYPE_CHECKING:
    from trainer.inference.serve.limits import Limits


@command
def serve(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Names or folders of runs, of several where they share a base."),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="transformers, to try the model out, or vLLM.")
    ] = "transformers",
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 1024,
    max_requests: Annotated[int, typer.Option(min=1, max=256, help="Requests answered at a time.")] = 16,
    max_seconds: Annotated[float, typer.Option(min=1, help="The longest time for an answer.")] = 120.0,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that clients reach this server by.")
    ] = None,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Serve the models of runs to OpenAI clients, with the prompts and the numbers they were trained with.

    The key comes from TRAINER_API_KEY, or is made and shown. Made for trying out on one machine; for more use vLLM.
    """
    attempts = Attempts()
    found = [run for name in runs if (run := attempts.make(find_run, name, root)) is not None]
    attempts.end()
    need("serve", "starlette", "uvicorn", extra="serve")

    from trainer.inference.serve.guards import KEY_VARIABLE, api_key
    from trainer.inference.serve.limits import Limits
    from trainer.inference.serve.sources import TrainedRuns

    source = TrainedRuns(found)
    key, is_new = api_key()
    limits = Limits(max_requests=max_requests, max_tokens=max_tokens, max_seconds=max_seconds)
    shown = f"key: {key} (shown once; set {KEY_VARIABLE} to choose one)" if is_new else ""
    if engine == "vllm":
        _become_vllm(found, host, port, key, limits, shown)

    from trainer.inference.serve.server import Program

    program = Program(source, host, port, allowed_host or (), key, limits, say, key if is_new else None)
    if shown:
        say(shown)

    with loading():
        from trainer.training.prepare import be_quiet  # imports torch: every check that does without has passed

        be_quiet()
    program.run_until_signal()


def _become_vllm(runs: Sequence[Run], host: str, port: int, key: str, limits: "Limits", shown: str) -> NoReturn:
    from trainer.inference.serve.vllm import find_vllm, serve_with_vllm

    program = find_vllm()
    if shown:
        say(shown)

    with loading():
        from trainer.training.prepare import be_quiet

        be_quiet()
    serve_with_vllm(program, runs, host, port, key, limits)
