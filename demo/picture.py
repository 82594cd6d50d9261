"""The picture in README: a run's report, drawn from the report's own data.

Run: python -m demo.picture runs/demo-real docs/report.png
"""

import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.inference.report.plots import LIGHT
from trainer.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (11.0, 6.6)  # inches of 90 pixels
QUESTIONS = 3
CHIPS = {"better": "Better", "worse": "Worse", "unclear": "No clear difference"}


def draw(run: Run, output: Path) -> None:
    """Headline, counts of rows, the loss by step, and some answers of base and tuned model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    report = json.loads((run.report / "report.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=SIZE, dpi=90, facecolor="#f6f8fb")
    _headline(figure.add_axes((0.03, 0.68, 0.94, 0.29)), report)
    _curves(figure.add_axes((0.065, 0.11, 0.27, 0.47)), run.results())
    _answers(figure.add_axes((0.37, 0.02, 0.6, 0.62)), report)
    figure.savefig(output, metadata={"Software": None})


def _headline(axes: "Axes", report: dict[str, Any]) -> None:
    verdict = report["verdict"]
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0, 0.97, "Fine-tuning report", color=LIGHT["soft"], fontsize=11, va="top")
    chip = {"facecolor": "#dcf3e6", "edgecolor": "none", "boxstyle": "round,pad=0.4"}
    axes.text(0.01, 0.72, CHIPS[verdict["kind"]], color="#17693f", fontsize=12, weight="bold", va="top", bbox=chip)
    sentence = textwrap.fill(_plain(verdict["sentence"]), 80)
    axes.text(0.1, 0.74, sentence, color=LIGHT["ink"], fontsize=14, weight="bold", va="top", linespacing=1.4)
    left, total = 0.0, sum(verdict[kind] for kind in ("better", "same", "worse"))
    for kind, color in (("better", LIGHT["better"]), ("same", "#c5ccd8"), ("worse", LIGHT["worse"])):
        axes.barh(0.12, verdict[kind] / total, left=left, height=0.1, color=color)
        left += verdict[kind] / total


def _curves(axes: "Axes", results: list[dict[str, float]]) -> None:
    for column, style, color, label in (
        ("train_loss", "-", LIGHT["train"], "training rows"),
        ("full_valid_loss", "o-", LIGHT["valid"], "held-out rows"),
    ):
        points = [(row["step"], row[column]) for row in results if column in row]
        axes.plot([x for x, _ in points], [y for _, y in points], style, color=color, markersize=4, label=label)
    axes.set_title("loss", color=LIGHT["ink"], fontsize=11, loc="left", weight="bold")
    axes.set_xlabel("step", color=LIGHT["soft"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT["line"])
    axes.tick_params(colors=LIGHT["soft"], length=0)
    axes.grid(axis="y", color=LIGHT["line"])
    axes.set(facecolor="white", ylim=(0, None))
    axes.legend(frameon=False, labelcolor=LIGHT["ink"])


def _answers(axes: "Axes", report: dict[str, Any]) -> None:
    """Of the rows' middle, so that neither the best nor the worst stand for all."""
    ordered = sorted(report["rows"], key=lambda row: (row["score"]["tuned"], row["place"]))
    first = (len(ordered) - QUESTIONS) // 2
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for number, row in enumerate(ordered[first : first + QUESTIONS]):
        top, answer = 0.94 - number * 0.335, row["answers"][0]
        question = row["messages"][answer["message"] - 1]["content"]
        axes.text(0, top, textwrap.shorten(_plain(question), 80), color=LIGHT["ink"], fontsize=11, weight="bold")
        for label, text, at, color in (
            ("base", answer["base"]["text"], 0.0, LIGHT["soft"]),
            ("tuned", answer["tuned"]["text"], 0.51, LIGHT["ink"]),
        ):
            axes.text(at, top - 0.06, label, color=LIGHT["valid"], fontsize=9)
            shown = textwrap.fill(textwrap.shorten(_plain(text), 150, placeholder=" …"), 43)
            axes.text(at, top - 0.085, shown, color=color, fontsize=10, va="top", linespacing=1.35)


def _plain(text: str) -> str:
    """A dollar would begin a formula."""
    return text.replace("$", r"\$")


if __name__ == "__main__":
    draw(Run(Path(sys.argv[1])), Path(sys.argv[2]))
