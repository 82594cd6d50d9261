"""Several runs and their bases side by side, as one page."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer.inference.evaluation.measures import BAR
from trainer.inference.report.page import render_page, trusted
from trainer.inference.report.plots import runs_plot
from trainer.inference.report.row_view import row_view
from trainer.inference.report.standings import Contestant, contestants, notes, results_of, table, verdict
from trainer.inference.report.write import NUM_OPEN, NUM_SHOWN, capitalized
from trainer.runs import Run, files


def write_comparison(runs: Sequence[Run], out: Path) -> tuple[str, list[Contestant]]:
    """Write the page; returns the verdict and the models in its order.

    Raises: ConfigError.
    """
    results = results_of(runs)
    ranked = contestants(runs, results)
    sentence = verdict(ranked, results[0]["settings"]["seed"])
    rows = sorted(_merged(ranked), key=lambda row: min(row["score"].values()) - max(row["score"].values()))
    names = [contestant.name for contestant in ranked]
    plot = runs_plot({run.name: run.results() for run in runs}, "valid_loss", "held-out loss by step")
    page = render_page(
        "comparison",
        " and ".join(run.name for run in runs),
        sentence=sentence,
        bar=BAR,
        names=names,
        table=table(ranked),
        notes=[capitalized(note) for note in notes(runs, results)],
        files=", ".join(results[0]["files"]),
        num_rows=len(rows),
        curves=trusted(plot) if plot else None,
        rows=[row_view(row, names, mark_reference=False) for row in rows[:NUM_SHOWN]],
        num_open=min(NUM_OPEN, len(rows)),
        num_hidden=max(0, len(rows) - NUM_SHOWN),
        version=metadata.version("azure-llm-trainer"),
    )
    files.write_page("--out", out, page)
    return sentence, ranked


def _merged(ranked: Sequence[Contestant]) -> list[dict[str, Any]]:
    """The rows with the answers of all models, by their names."""
    merged = []
    for number, row in enumerate(ranked[0].result["rows"]):
        same = [(contestant.name, contestant.key, contestant.result["rows"][number]) for contestant in ranked]
        answers = [
            {"message": answer["message"], "reference": answer["reference"]}
            | {name: other["answers"][position][key] for name, key, other in same}
            for position, answer in enumerate(row["answers"])
        ]
        scores = {name: other["score"][key] for name, key, other in same}
        merged.append(
            {**{key: row[key] for key in ("place", "messages", "tools")}, "score": scores, "answers": answers}
        )
    return merged
