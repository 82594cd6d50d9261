"""The queue of this machine: what runs, what waits and in which order, and the process that starts it."""

from collections.abc import Hashable

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from trainer.dashboard.run import path_of, run_of
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.lifecycle import withdraw
from trainer.runs.queue import WORKER_RECORD, Queue, QueuedRun
from trainer.runs.summary import Summary
from trainer.web.app import done, form_of, render, render_text, studio_of
from trainer.web.routes import Access, Link, Route
from trainer.web.streaming import EventStream, RenderedPart, digest_of, state_of
from trainer.web.words import whole_number

PART = "queue"


def show(request: Request) -> Response:
    """The page."""
    html = _rendered(request)
    return render(request, "queue.html.jinja", title="Queue", queue=Markup(html), cursor=digest_of(html))  # noqa: S704  # rendered with autoescape


def live(request: Request) -> EventStream:
    """The queue, sent again where it is another one."""
    root = studio_of(request).root
    queue = Queue(root)

    def look() -> Hashable:
        waiting = [root / entry.run / "status.json" for entry in _entries(queue)]
        return state_of([queue.file, queue.folder / WORKER_RECORD, *waiting]), queue.worker() is None

    return studio_of(request).streams.open(
        request, RenderedPart(PART, ("queue", root), look, lambda: _rendered(request))
    )


def _entries(queue: Queue) -> list[QueuedRun]:
    try:
        return queue.entries()
    except ConfigError:  # the page says so
        return []


def _rendered(request: Request) -> str:
    root, problem = studio_of(request).root, ""
    queue = Queue(root)
    try:
        entries = queue.entries()
    except ConfigError as error:
        entries, problem = [], str(error)
    return render_text(
        request,
        "queue_part.html.jinja",
        problem=problem,
        started=[(entry, Summary.of(Run(root / entry.run))) for entry in entries if not entry.waits],
        waiting=[entry for entry in entries if entry.waits],
        worker=queue.worker(),
        path_of=lambda name: path_of(Run(root / name)),
    )


def move(request: Request) -> Response:
    """Give a waiting run the place of the pressed button, from 1."""
    run, given = run_of(request), str(form_of(request).get("place", ""))
    if (place := whole_number(given, 10**9)) is None:
        raise ConfigError(f"place: is {given[:20]!r}, expected a number from 1 on; reload the page")
    Queue(run.path.parent).move(run.name, place)
    return done(request, LINK.path, [f"{run.name} has place {place}"])


def remove(request: Request) -> Response:
    """Take a waiting run out; it stays, paused."""
    run = run_of(request)
    if not withdraw(run, "paused"):
        Queue(run.path.parent).remove(run.name)
    return done(request, LINK.path, [f"{run.name} is out of the queue and paused; its page resumes it"])


def work(request: Request) -> Response:
    """Start the process that starts the runs."""
    was_started = Queue(studio_of(request).root).start_worker()
    words = "the queue continues" if was_started else "a process starts the runs already"
    return done(request, LINK.path, [words])


LINK = Link("Queue", "/queue")
ROUTES = (
    Route("/queue", show, Access.PAGE),
    Route("/queue/live", live, Access.STREAM),
    Route("/queue/work", work, Access.ACTION),
    Route("/queue/{name}/move", move, Access.ACTION),
    Route("/queue/{name}/remove", remove, Access.ACTION),
)
