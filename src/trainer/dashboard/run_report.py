"""The comparison of base and tuned model: verdict, measures with their intervals, the worst and the best answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import escape
from starlette.requests import Request
from starlette.responses import Response

from trainer.dashboard.run import Tab, path_of, run_of, run_page, run_stream
from trainer.dashboard.run_files import attachment
from trainer.errors import ConfigError
from trainer.inference.evaluation.result import readable
from trainer.inference.report.page import row_view
from trainer.inference.report.run_page import (
    benchmarks_view,
    columns_of,
    criterion,
    judge_view,
    kept_view,
    learning,
    measure_rows,
)
from trainer.runs import Run
from trainer.runs.lifecycle import pending_note
from trainer.web.problems import Problem
from trainer.web.routes import Access, Route
from trainer.web.streaming import EventStream, RenderedPart, digest_of, state_of
from trainer.web.words import whole_number

NUM_ROWS = 5  # of the worst, and of the best
KINDS = ("all", "worse", "same", "better")
PAGE_ROWS = 25
MOST_BARS = 240
PAGE, DATA = "report.html", "report.json"


DAMAGE = (KeyError, ValueError, IndexError, TypeError, AttributeError)  # of an object that is not as it was written


def _damaged(run: Run, error: Exception) -> ConfigError:
    return ConfigError(
        f"run {run.name!r}: report/{DATA} cannot be read ({error!r}), expected what trainer evaluate writes; make it "
        f"again with: trainer evaluate {run.path}"
    )


def result_of(run: Run) -> dict[str, Any] | None:
    """The run's comparison, None before there is one. Raises: ConfigError, where it cannot be read."""
    try:
        return readable(run.comparison(), run.report / DATA)
    except DAMAGE as error:
        raise _damaged(run, error) from None


def show(request: Request) -> Response:
    """The report, with the worst and best rows; or with `rows` one kind of them, page by page."""
    run = run_of(request)
    seen = _seen(run)
    stream = {"stream": path_of(run, "report", "live"), "query": f"seen={seen}"}
    stream["cursor"] = digest_of(_news(run, seen).render())
    result = result_of(run)
    if result is None:
        note = pending_note(run) if run.state == "succeeded" else None
        return run_page(request, run, TAB, "run_report.html.jinja", result=None, note=note, **stream)
    try:
        values = {**_figures(result), **_rows(result, request.query_params), "learning": _learning(run)}
    except DAMAGE as error:
        raise _damaged(run, error) from None
    has_page = (run.report / PAGE).is_file()
    here = path_of(run, "report")
    return run_page(
        request, run, TAB, "run_report.html.jinja", result=result, here=here, has_page=has_page, **values, **stream
    )


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and measures of the report."""
    verdict = result["verdict"]
    return {
        "verdict": verdict,
        "counts": {name: verdict[name] for name in ("better", "same", "worse")},
        "criterion": criterion(result),
        "measures": list(measure_rows(result)),
        "columns": list(columns_of(result).values()),
        "kept": kept_view(result),
        "benchmarks": benchmarks_view(result),
        "judge": judge_view(result),
        "before": columns_of(result)[verdict["against"]],
        "bars": _bars(result),
    }


def _learning(run: Run) -> str:
    """The sentence on how training went; empty where the run's files no longer tell."""
    try:
        return learning(run)
    except ConfigError:
        return ""


def _bars(result: Mapping[str, Any]) -> Sequence[float]:
    """Changes of the rows' scores by tuning in points, in order; of many rows evenly some, with both ends."""
    against = result["verdict"]["against"]
    changes = sorted(row["score"]["tuned"] - row["score"][against] for row in result["rows"])
    if len(changes) <= MOST_BARS:
        return changes
    return [changes[round(number * (len(changes) - 1) / (MOST_BARS - 1))] for number in range(MOST_BARS)]


def _rows(result: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """The rows that are shown: the ends of their order, or a page of one kind."""
    ordered, names = _from_the_worst(result), list(columns_of(result))
    middle = min(NUM_ROWS, -(-len(ordered) // 2))
    kind = query.get("rows", "") if query.get("rows") in KINDS else ""
    chosen = [row for row in ordered if kind in ("all", row["outcome"])] if kind else []
    num_pages = max(1, -(-len(chosen) // PAGE_ROWS))
    page = whole_number(query.get("page", ""), num_pages) or 1
    shown = {
        "worst": [] if kind else ordered[:middle],
        "best": [] if kind else ordered[middle:][: -NUM_ROWS - 1 : -1],
        "chosen": chosen[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
    }
    views = {which: [row_view(row, names) for row in rows] for which, rows in shown.items()}
    return {**views, "kind": kind, "page": page, "num_pages": num_pages}


def _from_the_worst(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Rows by the tuned model's score, those that lost most by tuning first."""
    against = result["verdict"].get("against", "base")
    return sorted(
        result["rows"], key=lambda row: (row["score"]["tuned"], row["score"]["tuned"] - row["score"][against])
    )


def _news(run: Run, seen: str) -> RenderedPart:
    """A notice once the comparison is another one than the page has `seen`."""
    path = run.report / DATA

    def render() -> str:
        if _seen(run) == seen or not path.is_file():
            return '<div id="report-news"></div>'
        words = '<p class="notice"><span>There is a new comparison. <a href="{}">Show it</a></span></p>'
        return f'<div id="report-news">{words.format(escape(path_of(run, "report")))}</div>'

    return RenderedPart("report-news", ("report", run.path, seen), lambda: state_of([path]), render)


def _seen(run: Run) -> str:
    return digest_of(str(state_of([run.report / DATA])))


def live(request: Request) -> EventStream:
    """A notice when a comparison is made while the page is open."""
    run = run_of(request)
    return run_stream(request, run, _news(run, request.query_params.get("seen", "")))


def page(request: Request) -> Response:
    """The report's own page as a download: it needs nothing else, and is not opened as a page of this server."""
    run = run_of(request)
    name = request.path_params["file"]
    if name not in (PAGE, DATA) or not (run.report / name).is_file():
        raise Problem(404, f"run {run.name!r}: has no such report; reload the page")
    return attachment(run.report / name)


TAB = Tab("Report", "report")
ROUTES = (
    Route("/runs/{name}/report", show, Access.PAGE),
    Route("/runs/{name}/report/live", live, Access.STREAM),
    Route("/runs/{name}/report/files/{file}", page, Access.DOWNLOAD),
)
