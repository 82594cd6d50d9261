"""Several runs side by side: their curves in one chart, their verdicts, and what was different about them."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from trainer.dashboard.run import path_of, settings_of
from trainer.dashboard.run_metrics import CHARTS, Chart, ChartLine, new_points, seen, source_of
from trainer.dashboard.run_report import result_of
from trainer.errors import ConfigError, TrainerError
from trainer.inference.report.standings import contestants, notes, results_of, table, verdict
from trainer.runs import Run, list_runs
from trainer.runs.collection import run_below
from trainer.runs.damage import readable_manifest
from trainer.runs.summary import LOOKED_AT, Summary
from trainer.web.app import json_text, render, render_text, studio_of
from trainer.web.attendance import ATTENDANCE
from trainer.web.routes import Access, Link, Route
from trainer.web.streaming import EventStream, Feed, RenderedPart, Together, cursors, digest_of, state_of

MOST = 8  # runs, as many as the chart has colors
FIRST = "valid_loss"
REPORT = "report/report.json"
OWN = ("run.name", "run.root", "run.suffix")
UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Measured:
    """A curve that the chart can show of each run."""

    title: str
    line: ChartLine
    chart: Chart

    @property
    def curves(self) -> str:
        return json_text([asdict(self.line)])


MEASURED = [
    Measured(f"{chart.title}, {line.title}" if len(chart.curves) > 1 else chart.title, line, chart)
    for chart in CHARTS
    for line in chart.curves
]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run of the comparison, with the verdict beside its base."""

    run: Run
    path: str
    summary: Summary
    verdict: str
    kind: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Runs that answered the same rows, ranked; or in `problem` why they cannot be."""

    sentence: str = ""
    names: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    problem: str = ""


def show(request: Request) -> Response:
    """The chosen runs; without a choice, a list to choose from."""
    root = studio_of(request).root
    names, found = _chosen(request)
    gone = [name for name in names[:MOST] if all(run.name != name for run in found)]
    parts = _parts(request, found)
    html = [part.render() for part in parts]
    known = [*(digest_of(text) for text in html), *(cursor for run in found for cursor in seen(run))]
    measure = next(
        (each for each in MEASURED if each.line.column == request.query_params.get("measure", FIRST)), MEASURED[1]
    )
    return render(
        request,
        "compare.html.jinja",
        title="Compare",
        runs=found,
        connect=f"{LINK.path}/live?{urlencode([('run', run.name) for run in found])}&cursor={cursors(*known)}",
        parts=[Markup(text) for text in html],  # noqa: S704  # rendered with autoescape
        gone=gone,
        left_out=names[MOST:],
        most=MOST,
        known=[run.name for run in list_runs(root) if run.name not in names] if len(found) < MOST else [],
        measures=MEASURED,
        measure=measure,
        sources=lambda file: json_text([source_of(run, file, run.name) for run in found]),
        settings=differences({run.name: _settings(run) for run in found}),
        origins=differences({run.name: _origin(run) for run in found}),
    )


def _chosen(request: Request) -> tuple[list[str], list[Run]]:
    """The names that the address gives, and those runs of them that are there and fit."""
    names = list(dict.fromkeys(request.query_params.getlist("run")))
    root = studio_of(request).root
    return names, [run for name in names[:MOST] if (run := run_below(name, root)) is not None]


def live(request: Request) -> EventStream:
    """New points of every run, its state, and the ranking once a run has been compared with its base."""
    _, runs = _chosen(request)
    feeds: list[Feed] = [*_parts(request, runs), *(feed for run in runs for feed in new_points(run))]
    return studio_of(request).streams.open(request, Together(*feeds))


def _parts(request: Request, runs: Sequence[Run]) -> list[RenderedPart]:
    """The parts above the chart and below it that change by themselves."""
    names = tuple(run.name for run in runs)

    def sides() -> str:
        there = [(number, _side(run)) for number, run in enumerate(runs) if run.path.is_dir()]
        return render_text(request, "compare_runs.html.jinja", sides=there)

    def ranking() -> str:
        return render_text(request, "compare_ranking.html.jinja", ranking=_ranking(runs) if len(runs) > 1 else None)

    def states() -> Hashable:
        for run in runs:
            ATTENDANCE.look(run, is_awaited=False)
        files = [run.path / name for run in runs for name in (*LOOKED_AT, REPORT)]
        return state_of(files), tuple(run.path.is_dir() and run.state for run in runs)

    def reports() -> Hashable:
        return state_of(run.path / REPORT for run in runs)

    looks = (("compared", states, sides), ("ranking", reports, ranking))
    return [RenderedPart(target, (target, names), look, rendered) for target, look, rendered in looks]


def _side(run: Run) -> ComparedRun:
    comparison = run.comparison()
    sentence = str(comparison["verdict"]["sentence"]) if comparison else ""
    return ComparedRun(
        run, path_of(run), Summary.of(run), sentence, str(comparison["verdict"].get("kind", "")) if comparison else ""
    )


def _ranking(runs: Sequence[Run]) -> Ranking:
    """The runs by their answers to the same rows."""
    try:
        for run in runs:
            result_of(run)
        results = results_of(runs)
        ranked = contestants(runs, results)
        words = verdict(ranked, results[0]["settings"]["seed"])
        return Ranking(words, [each.name for each in ranked], table(ranked), notes(runs, results))
    except TrainerError as error:
        return Ranking(problem=str(error))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return Ranking(problem=f"a report cannot be read ({error!r}), expected what trainer evaluate writes")


def differences(facts: Mapping[str, Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Facts in which the runs differ, each with the runs' values; a fact that a run lacks is a dash.

    A run of which nothing is known differs from none.
    """
    names = dict.fromkeys(name for values in facts.values() for name in values)
    rows = [(name, [values.get(name, UNKNOWN) for values in facts.values()]) for name in names]
    told = [bool(values) for values in facts.values()]
    return [(name, values) for name, values in rows if len(set(itertools.compress(values, told))) > 1]


def _settings(run: Run) -> dict[str, str]:
    """The run's settings but those that differ between any two runs; empty where they cannot be read."""
    found = settings_of(run)
    return {} if isinstance(found, str) else {each.name: each.value for each in found if each.name not in OWN}


def _origin(run: Run) -> dict[str, str]:
    """Origin of the run, beside its settings."""
    try:
        manifest = readable_manifest(run)
    except ConfigError:
        manifest = None
    if manifest is None:
        return {}
    data = {f"{file.role} data {file.path}": f"{_shortened(file.sha256)}, {file.rows:,} rows" for file in manifest.data}
    return {
        "base": manifest.base.name,
        "base revision": manifest.base.revision or UNKNOWN,
        "base weights": _shortened(manifest.base.weights_sha256),
        "chat template": _shortened(manifest.template_sha256),
        **data,
        "tokens": f"{manifest.num_tokens:,}, {manifest.num_supervised_tokens:,} supervised",
        "device": f"{manifest.device}, {manifest.dtype}",
        "git revision": manifest.git_revision or UNKNOWN,
        "trainer": manifest.trainer_version,
        "python": manifest.python,
        **manifest.packages,
    }


def _shortened(sha256: str | None) -> str:
    return f"sha256 {sha256[:16]}…" if sha256 else UNKNOWN


LINK = Link("Compare", "/compare")
ROUTES = (
    Route("/compare", show, Access.PAGE),
    Route("/compare/live", live, Access.STREAM),
)
