"""Actions on a run, carried out by the verbs of its backend. Beside each button stands what it costs or loses."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from trainer.backends.choose import choose
from trainer.backends.http import hurried
from trainer.dashboard.playground.page import playground_of
from trainer.dashboard.run import path_of, run_of
from trainer.kinds import executes_here
from trainer.runs import Run
from trainer.runs.lifecycle import refuse_deletion
from trainer.web.app import done, form_of, redirect, studio_of
from trainer.web.routes import Access, Route

WAIT_SECONDS = 3.0  # for a step to end; the page shows the rest as it happens


def pause(request: Request) -> Response:
    """Stop with a checkpoint."""
    run, said = _begin(request)
    choose(run.backend).pause(run, said.append, WAIT_SECONDS)
    return _end(request, run, said)


def resume(request: Request) -> Response:
    """Resume without this server: in a process of its own, when its turn comes, or at the service."""
    run, said = _begin(request)
    backend = choose(run.backend)
    free_device(request, run.backend)
    if "queue" in form_of(request):
        backend.enqueue(run, said.append)
    else:
        backend.resume(run, said.append)
        backend.detach(run, said.append)
    return _end(request, run, said)


def free_device(request: Request, kind: str) -> None:
    """Unload the playground's model before a run of that kind starts, where it needs this machine's memory."""
    if executes_here(kind):
        playground_of(studio_of(request).root.resolve()).models.unload()


def cancel(request: Request) -> Response:
    """End for good."""
    run, said = _begin(request)
    with hurried():
        choose(run.backend).cancel(run, said.append, WAIT_SECONDS)
    return _end(request, run, said)


def delete(request: Request) -> Response:
    """Remove the folder, and before it what is at the service."""
    run, said = _begin(request)
    refuse_deletion(run, said.append)
    with hurried():
        choose(run.backend).delete(run, said.append)
    run.delete()
    return redirect(request, "/runs")


def _begin(request: Request) -> tuple[Run, list[str]]:
    return run_of(request), []


def _end(request: Request, run: Run, said: Sequence[str]) -> Response:
    return done(request, path_of(run), [line for text in said for line in text.splitlines()])


ROUTES = tuple(
    Route(f"/runs/{{name}}/{handler.__name__}", handler, Access.ACTION) for handler in (pause, resume, cancel, delete)
)
