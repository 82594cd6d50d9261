"""The report of a run: `report/` with a page for people, report.json for machines, and the plots as files."""

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError
from trainer.inference.evaluation.measures import BAR, MARGIN, MEASURES
from trainer.inference.evaluation.significance import Difference
from trainer.inference.report.origin import commands, learning, origin
from trainer.inference.report.page import render_page, trusted
from trainer.inference.report.plots import change_plot, curve_plot, standalone
from trainer.inference.report.row_view import row_view
from trainer.runs import Run, files

NUM_OPEN = 10
NUM_SHOWN = 300  # rows on the page; more would make it slow to open
TILES = ("right", "calls", "exact", "chrf", "token_accuracy", "loss")


def write_report(run: Run, result: Mapping[str, Any], replace: bool = False) -> Path:
    """Write what `evaluate` found about `run`; returns the page's path.

    What answers fewer rows than the run's report, or others than its held-out ones, gets a name of its own beside it,
    unless it is to `replace` it.

    Raises: TrainingError, when the disk is full or the folder cannot be written.
    """
    is_the_runs = replace or _goes_as_far(run, result)
    plots, page = _plots(run, result), run.report / f"{'report' if is_the_runs else _name(result)}.html"
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
    """Whether a result covers what the run's report does: as many rows of the same files, and answers as long.

    The first one must be of the run's held-out rows, where it has any: with another the run would seem compared.
    """
    before, own = run.comparison(), list(run.config().data.validation_paths)
    if not before:
        return not own or result["files"] == own
    try:
        same_rows = before["rows_sha256"] == result["rows_sha256"]
        more_rows = before["files"] == result["files"] and before["num_rows"] < result["num_rows"]
        return (same_rows or more_rows) and _longest(before) <= _longest(result)
    except (LookupError, TypeError, ValueError):  # a damaged report: what was just computed is not lost for it
        return True


def _longest(result: Mapping[str, Any]) -> int:
    return int(result["settings"]["max_new_tokens"])


def _name(result: Mapping[str, Any]) -> str:
    """The name of a report beside the run's own: the same for the same rows and limits."""
    file = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(result["files"][0]).stem)[:40]
    return f"{result['num_rows']}-rows-{file}-{result['rows_sha256'][:8]}-{_longest(result)}-tokens"


def _plots(run: Run, result: Mapping[str, Any]) -> dict[str, str]:
    """The plots by the names of their files."""
    results, chosen, against = run.results(), run.status().get("adapter_step"), result["verdict"]["against"]
    plots = {
        "loss": curve_plot(results, "loss", "loss by step", chosen),
        "token_accuracy": curve_plot(results, "mean_token_accuracy", "token accuracy by step", chosen),
        "changes": change_plot([row["score"]["tuned"] - row["score"][against] for row in result["rows"]]),
    }
    return {name: svg for name, svg in plots.items() if svg is not None}


def report_page(run: Run, result: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The page for people."""
    against, columns = result["verdict"]["against"], columns_of(result)
    weakest = sorted(
        result["rows"], key=lambda row: (row["score"]["tuned"], row["score"]["tuned"] - row["score"][against])
    )
    titles = {"loss": "Loss", "token_accuracy": "Token accuracy"}
    return render_page(
        "report",
        f"{run.name}: fine-tuning report",
        run=run.name,
        base=run.manifest().base.name,
        created_at=result["created_at"][:16].replace("T", " ") + " UTC",
        verdict=result["verdict"],
        columns=list(columns.values()),
        before=columns[against],
        sentence=capitalized(result["verdict"]["sentence"]),
        criterion=criterion(result),
        remarks=[capitalized(remark) for remark in result["verdict"]["remarks"]],
        notes=[capitalized(note) for note in result["notes"]],
        tiles=list(_tiles(result)),
        measures=list(measure_rows(result)),
        learning=learning(run),
        curves=[(title, trusted(plots[name])) for name, title in titles.items() if name in plots],
        changes=trusted(plots["changes"]),
        rows=[row_view(row, list(columns)) for row in weakest[:NUM_SHOWN]],
        num_rows=len(weakest),
        num_open=min(NUM_OPEN, len(weakest)),
        num_hidden=max(0, len(weakest) - NUM_SHOWN),
        made=origin(run, result),
        commands=commands(run, result),
        version=metadata.version("azure-llm-trainer"),
    )


def criterion(result: Mapping[str, Any]) -> str:
    """What was compared, and what makes a row better."""
    score = "chrF, which counts the character sequences that an answer shares with the reference answer"
    if has_calls(result):
        score = "chrF for texts; for tool calls 100 if names and arguments are right and 50 if only the names are"
    count, total, seed = result["num_rows"], result["num_held_out"], result["settings"]["seed"]
    rows = f"All {total:,} held-out rows were compared."
    if count < total:
        rows = f"{count:,} of {total:,} held-out rows were compared, drawn at random with seed {seed}."
    return (
        f"{rows} {BAR} A row is better when more of its answers are right or nearly right. Where as many are, its "
        f"score must be at least {MARGIN:g} points of 100 higher, and as much above what the reference answers of "
        f"other rows would score: the same tone is not enough. The score is {score}."
    )


def columns_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The models, in the order in which they are shown, and what each is called; the last two are compared."""
    return {key: capitalized(name) if name == key else name for key, name in result["models"].items()}


def measure_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The table of measures; the score is left out where it says the same as chrF."""
    from_base = {values["key"]: values["base"] for values in result["measures_from_base"]}
    for values in result["measures"]:
        difference = Difference(**values)
        measure = MEASURES[difference.key]
        if difference.key == "score" and not has_calls(result):
            continue
        interval = "one row only"
        if difference.low is not None and difference.high is not None:
            interval = f"{measure.text(difference.low, sign=True)} to {measure.text(difference.high, sign=True)}"
            if difference.low == difference.high:  # drawing alike rows again shows no spread, which is no certainty
                interval = "alike in all rows"
        yield {
            "title": measure.title,
            "meaning": measure.meaning,
            "values": [
                *([measure.text(from_base[difference.key])] if from_base else []),
                measure.text(difference.base),
                measure.text(difference.tuned),
            ],
            "change": measure.text(difference.change, sign=True),
            "interval": interval,
            "tone": tone(difference),
        }


def _tiles(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows = {row["title"]: row for row in measure_rows(result)}
    yield from (rows[MEASURES[key].title] for key in TILES if MEASURES[key].title in rows)


def tone(difference: Difference) -> str:
    """`good` or `bad` where the interval leaves no doubt about the direction."""
    better = MEASURES[difference.key].better
    if not difference.is_clear or better is None:
        return ""
    return "good" if (difference.change > 0) == (better == "higher") else "bad"


def has_calls(result: Mapping[str, Any]) -> bool:
    """Whether some row expects tool calls; without any, the score is chrF."""
    return any(values["key"] == "calls" for values in result["measures"])


def capitalized(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]
