"""The report of a run: `report/` with a page for people, report.json for machines, and the plots as files."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, TrainingError
from trainer.inference.evaluation.result import FORMAT
from trainer.inference.report.plots import change_plot, curve_plot, standalone
from trainer.inference.report.run_page import report_page
from trainer.runs import Run, files

OWN_PAGE = "report"  # the page that is the run's own, without its suffix


def write_report(run: Run, result: Mapping[str, Any], replace: bool = False) -> Path:
    """Write what `evaluate` found about `run`; returns the page's path.

    What answers fewer rows than the run's report, or others than its held-out ones, gets a name of its own beside it,
    unless it is to `replace` it.

    Raises: TrainingError, when the disk is full or the folder cannot be written.
    """
    is_the_runs = replace or _goes_as_far(run, result)
    if is_the_runs:
        result = _with_earlier(run, result)
    plots, page = _plots(run, result), run.report / f"{OWN_PAGE if is_the_runs else _name(result)}.html"
    html = report_page(run, result, plots)
    try:
        run.report.mkdir(exist_ok=True)
        for name, svg in plots.items() if is_the_runs else ():
            files.write_whole(run.report / f"{name}.svg", standalone(svg))
        files.write_whole(page, html)
        files.write_json(page.with_suffix(".json"), dict(result))
    except OSError as error:
        raise TrainingError(
            f"report {str(run.report)!r}: cannot be written: {error.strerror}, expected free space and write access; "
            f"repeat it with: trainer evaluate {run.path}"
        ) from error
    return page


def _goes_as_far(run: Run, result: Mapping[str, Any]) -> bool:
    """True if a result covers the run's report: as many rows of the same files, answers as long, its general items.

    The first one must be of the run's held-out rows, where it has any: with another the run would seem compared.
    """
    before, own = run.comparison(), list(run.config().data.validation_paths)
    if not before:
        return not own or result["files"] == own
    try:
        same_rows = before["rows_sha256"] == result["rows_sha256"]
        more_rows = before["files"] == result["files"] and before["num_rows"] < result["num_rows"]
        same_items = "suite" not in before or result.get("suite", {}).get("sha256") == before["suite"]["sha256"]
        return (same_rows or more_rows) and same_items and _longest(before) <= _longest(result)
    except (LookupError, TypeError, ValueError):  # a damaged report: what was just computed is not lost for it
        return True


def own_report(run: Run, purpose: str) -> dict[str, Any]:
    """The run's own report. Raises: ConfigError, where it has none of this version, with the purpose it was for."""
    result = run.comparison()
    if result.get("format") != FORMAT:
        found = "has no comparison with its base" if not result else "has a report of another version"
        raise ConfigError(f"run {run.name!r}: {found}, expected one {purpose}; run: trainer evaluate {run.path}")
    return result


def _with_earlier(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with what was added to the report before: a judge's opinion of the same answers, benchmarks."""
    before, kept = run.comparison(), dict[str, Any]()
    if before.get("rows") == json.loads(json.dumps(result["rows"])):
        kept |= {name: before[name] for name in ("judge",) if name in before}
    if before.get("benchmarks", {}).get("adapter_step") == run.status().get("adapter_step"):
        kept |= {name: before[name] for name in ("benchmarks",) if name in before}
    return kept | dict(result)


def _longest(result: Mapping[str, Any]) -> int:
    return int(result["settings"]["max_new_tokens"])


def _name(result: Mapping[str, Any]) -> str:
    """The name of a report beside the run's own: the same for the same rows, limits and general items."""
    file = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(result["files"][0]).stem)[:40]
    suite = f"-suite-{result['suite']['sha256'][:8]}" if "suite" in result else ""
    return f"{result['num_rows']}-rows-{file}-{result['rows_sha256'][:8]}-{_longest(result)}-tokens{suite}"


def _plots(run: Run, result: Mapping[str, Any]) -> dict[str, str]:
    """The plots by the names of their files."""
    results, chosen, against = run.results(), run.status().get("adapter_step"), result["verdict"]["against"]
    plots = {
        "loss": curve_plot(results, "loss", "loss by step", chosen),
        "token_accuracy": curve_plot(results, "mean_token_accuracy", "token accuracy by step", chosen),
        "changes": change_plot([row["score"]["tuned"] - row["score"][against] for row in result["rows"]]),
    }
    return {name: svg for name, svg in plots.items() if svg is not None}
