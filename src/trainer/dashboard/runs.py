"""The list of runs: found, filtered, sorted and compared by query parameters, and kept current while it is open."""

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from trainer.runs import Run
from trainer.runs.summary import Summaries, Summary
from trainer.web.app import render, render_text, studio_of
from trainer.web.attendance import ATTENDANCE
from trainer.web.routes import Access, Link, Route
from trainer.web.streaming import Delta, Event, EventStream, partial
from trainer.web.words import whole_number

PAGE_ROWS = 100
STATES = ("running", "queued", "validating_files", "paused", "succeeded", "failed", "cancelled")
SORTS: dict[str, Callable[[Summary], Any]] = {
    "name": lambda run: run.name.lower(),
    "base": lambda run: (run.base or "").lower() or None,
    "backend": lambda run: run.backend or None,
    "state": lambda run: STATES.index(run.state) if run.state in STATES else None,
    "created": lambda run: run.created_at,
    "duration": lambda run: run.seconds,
    "cost": lambda run: run.cost,
    "loss": lambda run: run.best_valid_loss,
    "until": lambda run: run.until,
}
COLUMNS = (  # the key to sort by, the title, and True of figures
    ("name", "Run", False),
    ("state", "State", False),
    ("base", "Base", False),
    ("backend", "Backend", False),
    ("created", "Created", False),
    ("duration", "Duration", True),
    ("cost", "Cost so far", True),
    ("loss", "Best valid loss", True),
    ("until", "Answers until", False),
)
NEWEST_FIRST = "-created"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The query of a list; it stands in the address, so that a reload shows the same."""

    words: str = ""
    state: str = ""
    backend: str = ""
    sort: str = NEWEST_FIRST
    page: int = 1

    @classmethod
    def of(cls, request: Request) -> "ListQuery":
        """The request's choice; what is no choice is left out."""
        given = request.query_params
        sort = given.get("sort", "")
        return cls(
            given.get("q", "").strip()[:200],
            given.get("state", "") if given.get("state") in STATES else "",
            given.get("backend", "")[:20],
            sort if sort.removeprefix("-") in SORTS else NEWEST_FIRST,
            whole_number(given.get("page", ""), 10**6) or 1,
        )

    def query(self, **changes: Any) -> str:
        """The query of the same list with some of it changed; changing anything else leads to the first page."""
        changes = {"page": 1} | changes
        values = {
            "q": changes.get("words", self.words),
            "state": changes.get("state", self.state),
            "backend": changes.get("backend", self.backend),
            "sort": changes.get("sort", self.sort),
            "page": changes["page"],
        }
        shown = {name: value for name, value in values.items() if value and (name, value) not in UNSAID}
        return f"?{urlencode(shown)}" if shown else "?"

    def of_all(self, runs: Sequence[Summary]) -> list[Summary]:
        """Matching runs in the chosen order; those without the value come last, either way."""
        matching = sorted(filter(self._matches, runs), key=lambda run: run.name)
        value, is_falling = SORTS[self.sort.removeprefix("-")], self.sort.startswith("-")
        known = sorted((run for run in matching if value(run) is not None), key=value, reverse=is_falling)
        return known + [run for run in matching if value(run) is None]

    def _matches(self, run: Summary) -> bool:
        text = f"{run.name} {run.base or ''} {run.backend} {run.state}".lower()
        return (
            all(word in text for word in self.words.lower().split())
            and self.state in ("", run.state)
            and self.backend in ("", run.backend)
        )


UNSAID = {("sort", NEWEST_FIRST), ("page", 1)}

_summaries: dict[Path, Summaries] = {}
_making = threading.Lock()


def summaries_of(root: Path) -> Summaries:
    """The summaries of a folder, which all pages share."""
    with _making:
        return _summaries.setdefault(root, Summaries(root))


@dataclass(frozen=True, slots=True)
class Shown:
    """One page of a list."""

    rows: Sequence[Summary]
    num_matching: int
    num_pages: int
    page: int


def shown(choice: ListQuery, runs: Sequence[Summary]) -> Shown:
    """The chosen page of the matching runs; the last one where there are not that many."""
    matching = choice.of_all(runs)
    num_pages = max(1, -(-len(matching) // PAGE_ROWS))
    page = min(choice.page, num_pages)
    return Shown(matching[(page - 1) * PAGE_ROWS : page * PAGE_ROWS], len(matching), num_pages, page)


def show(request: Request) -> Response:
    """The page; for htmx only the list, which a filter changes."""
    choice = ListQuery.of(request)
    runs, version = summaries_of(studio_of(request).root).all()
    found = shown(choice, runs)
    values = {
        "choice": choice,
        "shown": found,
        "num_runs": len(runs),
        "states": [state for state in STATES if any(run.state == state for run in runs) or state == choice.state],
        "backends": sorted({run.backend for run in runs if run.backend}),
        "cursor": cursor_of(version, found),
        "columns": COLUMNS,
        "row_id": row_id,
    }
    return render(request, "runs.html.jinja", title="Runs", **values)


def live(request: Request) -> EventStream:
    """Changes of the list as it is filtered and sorted."""
    studio = studio_of(request)
    return studio.streams.open(request, _List(summaries_of(studio.root), ListQuery.of(request), request))


class _List:
    """Rows of one reader's list: a changed one alone, the page of them where they are others or in another order.

    So the cursor is the version of the runs and a digest of the shown names.
    """

    def __init__(self, summaries: Summaries, query: ListQuery, request: Request) -> None:
        self.summaries, self.query = summaries, query
        self.render = functools.partial(render_text, request, "runs_rows.html.jinja", row_id=row_id)

    @property
    def key(self) -> Hashable:
        return ("runs", self.summaries.root)

    def state(self) -> Hashable:
        runs, version = self.summaries.all()
        for run in runs:
            if run.is_active:
                ATTENDANCE.look(Run(self.summaries.root / run.name), is_awaited=False)
        return version

    def since(self, cursor: str) -> Delta:
        runs, version = self.summaries.all()
        known, _, names = cursor.partition(".")
        found = shown(self.query, runs)
        now = cursor_of(version, found)
        if now == cursor:
            return Delta([], now)
        if now.partition(".")[2] == names:
            changed = self.summaries.since(known).changed
            return Delta([self._row(run) for run in found.rows if run.name in changed], now)
        count = f'<p class="soft small" id="count">{found.num_matching} of {len(runs)} runs</p>'
        return Delta([partial("rows", self.render(rows=found.rows, whole=True)), partial("count", count)], now)

    def _row(self, run: Summary) -> Event:
        return partial(row_id(run.name), self.render(rows=[run], whole=False))


def cursor_of(version: str, found: Shown) -> str:
    """The cursor of a list that shows these rows."""
    names = "\n".join(run.name for run in found.rows) + f"\n{found.num_matching}"
    return f"{version}.{sha256(names.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def row_id(name: str) -> str:
    """An element's id for a run, whatever stands in its name."""
    return f"run-{name.encode('utf-8', 'surrogatepass').hex()}"


ROUTES = (
    Route("/runs", show, Access.PAGE),
    Route("/runs-live", live, Access.STREAM),
)
LINK = Link("Runs", "/runs")
