"""The measurements of a run as charts: thinned on the server, live by deltas, and exact as a file.

Chart and stream share one cursor of results.csv. What comes twice is the same point, so nothing needs to be in step.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.dashboard.run import Tab, path_of, run_of, run_page, run_stream
from trainer.dashboard.run_files import attachment
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.growth import growth
from trainer.runs.measurements import PARSERS, OpenMeasurements, Points, rows_of
from trainer.training.curve import curve_of
from trainer.web.app import json_text, render_text
from trainer.web.problems import Problem
from trainer.web.routes import Access, Route
from trainer.web.streaming import Delta, Event, EventStream, RenderedPart, cursors, digest_of, state_of

RESULTS, OTHERS = "results.csv", "metrics.jsonl"
MOST_BUCKETS = 2000
MOST_NEW = 500  # rows of an event; a page that lacks more fetches the thinned whole
FINDINGS = "findings"

measurements = OpenMeasurements()


@dataclass(frozen=True, slots=True)
class ChartLine:
    """A curve of a chart: its column, its name for people, and its color in the style sheet."""

    column: str
    title: str
    color: str
    is_marked: bool = False  # each point, since there are few


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves of one scale."""

    id: str
    title: str
    curves: Sequence[ChartLine]
    file: str = RESULTS
    form: str = "number"  # or percent, bytes


def _of_pairs(measure: str, title: str, form: str = "number") -> Chart:
    """A chart of what preference training measures of its pairs."""
    parts = (
        ("train", "training", "--train"),
        ("valid", "validation", "--valid"),
        ("full_valid", "full validation", "--full"),
    )
    lines = (ChartLine(f"{part}_{measure}", words, color, is_marked=part != "train") for part, words, color in parts)
    return Chart(measure, title, tuple(lines), OTHERS, form)


CHARTS = (
    Chart(
        "loss",
        "Loss",
        (
            ChartLine("train_loss", "training", "--train"),
            ChartLine("valid_loss", "validation", "--valid", is_marked=True),
            ChartLine("full_valid_loss", "full validation", "--full", is_marked=True),
        ),
    ),
    Chart(
        "accuracy",
        "Token accuracy",
        (
            ChartLine("train_mean_token_accuracy", "training", "--train"),
            ChartLine("valid_mean_token_accuracy", "validation", "--valid", is_marked=True),
            ChartLine("full_valid_mean_token_accuracy", "full validation", "--full", is_marked=True),
        ),
        form="percent",
    ),
    _of_pairs("reward_accuracy", "Pairs whose preferred answer has the greater reward", "percent"),
    _of_pairs("reward_margin", "Reward of the preferred answer less that of the other"),
    Chart("learning_rate", "Learning rate", (ChartLine("learning_rate", "learning rate", "--valid"),), OTHERS),
    Chart("grad_norm", "Gradient norm", (ChartLine("grad_norm", "gradient norm", "--valid"),), OTHERS),
    Chart("speed", "Tokens per second", (ChartLine("tokens_per_second", "tokens per second", "--valid"),), OTHERS),
    Chart("memory", "Peak memory", (ChartLine("peak_memory_bytes", "peak memory", "--valid"),), OTHERS, form="bytes"),
)


def show(request: Request) -> Response:
    """Charts, and in words what they show."""
    run = run_of(request)
    view, others = (measurements.of(run.path / name).view(1) for name in (RESULTS, OTHERS))
    known = view.columns.keys() | others.columns.keys()
    charts = [chart for chart in CHARTS if any(curve.column in known for curve in chart.curves)]
    part = findings_part(request, run)
    return run_page(
        request,
        run,
        TAB,
        "run_metrics.html.jinja",
        stream=path_of(run, "metrics", "live"),
        cursor=cursors(view.cursor, others.cursor, digest_of(part.render())),
        charts=charts if view.num_rows else [],
        curves=lambda chart: json_text([asdict(curve) for curve in chart.curves]),
        sources=lambda chart: json_text([source_of(run, chart.file)]),
        num_rows=view.num_rows,
        findings=findings_of(run),
        here=path_of(run, "metrics"),
        has_others=bool(others.num_rows),
    )


def source_of(run: Run, file: str = RESULTS, name: str = "") -> dict[str, str]:
    """Origin of a chart's points, for the script; `name` tells several runs apart."""
    return {"name": name, "url": _address_of(run, file)}


def _address_of(run: Run, file: str) -> str:
    return path_of(run, "metrics", "points") + f"?file={file}"


def points(request: Request) -> Response:
    """Points of all columns as JSON, thinned to at most four for each of `buckets`, from step `low` to `high`."""
    file = _file_of(run_of(request), request.query_params.get("file", RESULTS))
    low, high = _number(request, "low"), _number(request, "high")
    buckets = min(max(int(_number(request, "buckets") or 500), 1), MOST_BUCKETS)
    view = measurements.of(file).view(buckets, low, high)
    is_thinned = view.num_rows > 4 * buckets
    return JSONResponse({"columns": view.columns, "num_rows": view.num_rows, "is_thinned": is_thinned})


def _file_of(run: Run, name: str) -> Path:
    """A file of measurements, by one of two names. Raises: Problem, for any other."""
    if name not in PARSERS:
        raise Problem(404, f"file: is {name[:100]!r}, expected one of {', '.join(PARSERS)}; reload the page")
    return run.path / name


def _number(request: Request, name: str) -> float | None:
    try:
        value = float(request.query_params.get(name, ""))
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None


def live(request: Request) -> EventStream:
    """New points, and the words where they change."""
    run = run_of(request)
    return run_stream(request, run, *new_points(run), findings_part(request, run))


def new_points(run: Run) -> "list[NewPoints]":
    """The feeds of a run's charts; `seen` has their cursors."""
    return [NewPoints(run, name) for name in (RESULTS, OTHERS)]


def seen(run: Run) -> list[str]:
    """Cursors after all that is measured so far, in the order of `new_points`."""
    return [measurements.of(run.path / name).view(1).cursor for name in (RESULTS, OTHERS)]


class NewPoints:
    """Rows of a file since a cursor, as columns; a reader that lacks many is told to fetch the thinned whole."""

    def __init__(self, run: Run, file: str) -> None:
        self.path, self.source = run.path / file, _address_of(run, file)

    @property
    def key(self) -> Hashable:
        return ("points", self.path)

    def state(self) -> Hashable:
        return state_of([self.path])

    def since(self, cursor: str) -> Delta:
        found = growth(self.path, cursor)
        if not found.lines and not found.starts_over:
            return Delta([], found.cursor)
        if found.starts_over or len(found.lines) > MOST_NEW:
            while (rest := growth(self.path, found.cursor)).lines:
                found = rest
            return Delta([Event(json_text({"source": self.source}), "points")], found.cursor)
        columns: dict[str, Points] = {}
        for row in rows_of(found.lines, PARSERS[self.path.name]):
            for name, value in row.items():
                if name != "step":
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(row["step"])
                    values.append(value)
        news = {"source": self.source, "columns": columns}
        return Delta([Event(json_text(news), "points")], found.cursor)


@dataclass(frozen=True, slots=True)
class Findings:
    """Steps that a chart marks, and why: the chosen one, the best so far, and where overfitting begins."""

    chosen: int | None
    best: int | None
    best_loss: float | None
    last_loss: float | None
    overfitting: str | None
    still_falling: str | None
    is_over: bool


def findings_of(run: Run) -> Findings:
    """As far as validation losses tell."""
    status = run.status()
    chosen, total = status.get("adapter_step"), status.get("total_steps")
    steps, losses = measurements.of(run.path / RESULTS).points("valid_loss")
    try:
        config = run.config()
    except ConfigError:
        return Findings(chosen, None, None, None, None, None, False)
    curve, n_epochs = curve_of(zip(steps, losses, strict=True), config, total)
    is_over = status["state"] == "succeeded"
    return Findings(
        chosen if isinstance(chosen, int) else None,
        curve.best_step,
        curve.best_loss if losses else None,
        losses[-1] if losses else None,
        curve.overfitting(),
        curve.still_falling(n_epochs) if is_over else None,
        is_over,
    )


def findings_part(request: Request, run: Run) -> RenderedPart:
    """The words, which hold the marks of the charts."""

    def render() -> str:
        return render_text(request, "run_findings.html.jinja", findings=findings_of(run))

    files = [run.path / name for name in (RESULTS, "status.json")]
    return RenderedPart(FINDINGS, ("findings", run.path), lambda: state_of(files), render)


def download(request: Request) -> Response:
    """The exact measurements, as the run wrote them."""
    file = _file_of(run_of(request), request.path_params["file"])
    if not file.is_file():
        raise Problem(404, f"{file.name}: nothing has been measured yet; come back later")
    return attachment(file)


TAB = Tab("Metrics", "metrics")
ROUTES = (
    Route("/runs/{name}/metrics", show, Access.PAGE),
    Route("/runs/{name}/metrics/points", points, Access.DOWNLOAD),
    Route("/runs/{name}/metrics/live", live, Access.STREAM),
    Route("/runs/{name}/metrics/files/{file}", download, Access.DOWNLOAD),
)
