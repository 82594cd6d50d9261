"""The logs of a run: searched from the end on the server, by level and text, and live by what is new."""

from collections.abc import Hashable
from pathlib import Path
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from trainer.dashboard.run import Tab, path_of, run_of, run_page, run_stream
from trainer.runs.growth import end_cursor
from trainer.runs.log_search import LEVELS, LogFilter, lines_since, lines_up_to
from trainer.runs.run import OUTPUT
from trainer.web.app import render, render_text
from trainer.web.routes import Access, Route
from trainer.web.streaming import Delta, Event, EventStream, partial, state_of
from trainer.web.words import whole_number

EVENTS = "events.jsonl"
LOGS = {EVENTS: "What happened", OUTPUT: "Printed output"}
LEVEL_TITLES = {"info": "All levels", "warning": "Warnings and errors", "error": "Errors"}
LOG = "log-lines"
MOST_TEXT = 200  # characters to search for


def show(request: Request) -> Response:
    """The newest lines that match, or with `before` the page of lines above them."""
    run, wanted = run_of(request), _wanted(request)
    name = _log_of(request)
    end = whole_number(request.query_params.get("before", ""), 10**15)
    cursor = end_cursor(run.path / name)
    page = lines_up_to(run.path / name, wanted, end if end is not None else int(cursor.partition("-")[0] or 0))
    here = path_of(run, "logs")
    values = {"page": page, "wanted": wanted, "is_live": end is None, "link": _links(here, name, wanted)}
    if end is not None:
        return render(request, "run_log_lines.html.jinja", **values)
    return run_page(
        request,
        run,
        TAB,
        "run_logs.html.jinja",
        stream=f"{here}/live",
        query=_query(name, wanted),
        cursor=cursor,
        logs={file: title for file, title in LOGS.items() if file == EVENTS or (run.path / file).is_file()},
        name=name,
        levels=LEVEL_TITLES,
        here=here,
        **values,
    )


def _wanted(request: Request) -> LogFilter:
    given = request.query_params
    level = next((level for level in LEVELS if level == given.get("level")), LEVELS[0])
    return LogFilter(level, given.get("q", "").strip()[:MOST_TEXT])


def _log_of(request: Request) -> str:
    name = request.query_params.get("log", EVENTS)
    return name if name in LOGS else EVENTS


def _query(name: str, wanted: LogFilter) -> str:
    values = {"log": name if name != EVENTS else "", "level": wanted.level, "q": wanted.text}
    return urlencode({key: value for key, value in values.items() if value and value != LEVELS[0]})


def _links(here: str, name: str, wanted: LogFilter) -> str:
    """The address of a page of lines, to which its place is added."""
    query = _query(name, wanted)
    return f"{here}?{query}{'&' if query else ''}before="


def live(request: Request) -> EventStream:
    """Lines as they are written."""
    run = run_of(request)
    return run_stream(request, run, _NewLines(request, run.path / _log_of(request), _wanted(request)))


class _NewLines:
    """Matching lines since a cursor, put at the end of the page's list; of a file that began anew, a new list."""

    def __init__(self, request: Request, path: Path, wanted: LogFilter) -> None:
        self.request, self.path, self.wanted = request, path, wanted

    @property
    def key(self) -> Hashable:
        return ("log", self.path)

    def state(self) -> Hashable:
        return state_of([self.path])

    def since(self, cursor: str) -> Delta:
        lines, after, starts_over = lines_since(self.path, self.wanted, cursor)
        events = list[Event]()
        if lines or (starts_over and cursor):
            html = render_text(self.request, "run_log_entries.html.jinja", lines=lines, wanted=self.wanted)
            events.append(partial(LOG, html, "innerHTML" if starts_over and cursor else "beforeend"))
        if not events and after != cursor:
            events.append(Event("{}", "passed"))  # lines that do not match: the cursor moves on
        return Delta(events, after)


TAB = Tab("Logs", "logs")
ROUTES = (
    Route("/runs/{name}/logs", show, Access.PAGE),
    Route("/runs/{name}/logs/live", live, Access.STREAM),
)
