"""Plots as SVG whose colors are names: the page, or the file itself, says what each is in light and dark."""

import io
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.4, 3.4)  # inches of 72 pixels
# Colors that matplotlib writes, and the names that take their place. The values stand for nothing.
COLORS = {
    "ink": "#010101",
    "soft": "#020202",
    "line": "#030303",
    "train": "#040404",
    "valid": "#050505",
    "chosen": "#060606",
    "better": "#070707",
    "worse": "#080808",
    "second": "#090909",
    "third": "#0a0a0a",
    "fourth": "#0b0b0b",
}
RUN_COLORS = ("valid", "chosen", "better", "second", "third", "fourth")
# What the names mean in a file that stands alone; the page has the same.
LIGHT = {
    "ink": "#1c2430",
    "soft": "#667085",
    "line": "#e3e8ef",
    "train": "#8a94a6",
    "valid": "#3b6fd4",
    "chosen": "#c2571a",
    "better": "#2f9e64",
    "worse": "#d1495b",
    "second": "#8b5cc7",
    "third": "#1f8a9e",
    "fourth": "#a0742a",
}
DARK = {
    "ink": "#e6eaf0",
    "soft": "#94a0b3",
    "line": "#2c3542",
    "train": "#77829a",
    "valid": "#7aa5f7",
    "chosen": "#f0924f",
    "better": "#4cc38a",
    "worse": "#ef7a89",
    "second": "#b794f0",
    "third": "#4fc3d9",
    "fourth": "#d9ad5f",
}


def curve_plot(results: Sequence[dict[str, float]], measure: str, title: str, chosen: int | None) -> str | None:
    """`train_…`, `valid_…` and `full_valid_…` of a measure by step, and the chosen step; None without two points."""
    curves = {
        name: [(row["step"], row[f"{name}_{measure}"]) for row in results if f"{name}_{measure}" in row]
        for name in ("train", "valid", "full_valid")
    }
    if curves["full_valid"] and set(curves["full_valid"]) <= set(curves["valid"]):
        curves["full_valid"] = []  # the same rows, measured once
    if len(curves["train"]) < 2 and len(curves["valid"]) < 2:
        return None
    figure, axes = _figure()
    axes.plot(*_columns(curves["train"]), color=COLORS["train"], linewidth=1.6, label="training rows")
    if curves["valid"]:
        axes.plot(*_columns(curves["valid"]), "o-", color=COLORS["valid"], markersize=3.5, label="held-out rows")
    if curves["full_valid"]:
        axes.plot(*_columns(curves["full_valid"]), "s", color=COLORS["valid"], markersize=5, label="all held-out rows")
    if chosen is not None:
        axes.axvline(
            chosen, color=COLORS["chosen"], linestyle=(0, (4, 3)), linewidth=1.4, label=f"the adapter: step {chosen:,}"
        )
    axes.set_xlabel("step", color=COLORS["soft"])
    if measure.endswith("accuracy"):
        axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(frameon=False, labelcolor=COLORS["ink"], fontsize=11)
    return _svg(figure, title)


def change_plot(changes: Sequence[float]) -> str:
    """A bar a row: by how many points its score changed from base to tuned, in order."""
    figure, axes = _figure()
    ordered = sorted(changes)
    colors = [COLORS["better"] if change > 0 else COLORS["worse"] for change in ordered]
    axes.bar(range(1, len(ordered) + 1), ordered, color=colors, width=0.8)
    axes.axhline(0, color=COLORS["soft"], linewidth=1)
    axes.set_xlabel("held-out rows, from worst to best", color=COLORS["soft"])
    axes.set_xticks([])
    return _svg(figure, "change of the score")


def runs_plot(runs: Mapping[str, Sequence[dict[str, float]]], column: str, title: str) -> str | None:
    """A line a run, of one column of its results; None where none has two points."""
    curves = {name: [(row["step"], row[column]) for row in results if column in row] for name, results in runs.items()}
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return None
    figure, axes = _figure()
    for (name, points), color in zip(curves.items(), cycle(RUN_COLORS)):
        # A name that begins with an underscore would be left out of the legend, and dollars would be formulas.
        label = f" {name}".replace("$", r"\$")
        axes.plot(*_columns(points), "o-", color=COLORS[color], markersize=3.5, label=label)
    axes.set_xlabel("step", color=COLORS["soft"])
    axes.legend(frameon=False, labelcolor=COLORS["ink"], fontsize=11)
    return _svg(figure, title)


def standalone(svg: str) -> str:
    """The plot as a file of its own, which follows the reader's light or dark setting."""
    light, dark = (";".join(f"--{name}:{color}" for name, color in colors.items()) for colors in (LIGHT, DARK))
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    return re.sub(r"(<svg[^>]*>)", rf"\1{style}", svg, count=1)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _figure() -> tuple["Figure", "Axes"]:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells when it builds its font cache
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=72, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLORS["line"])
    axes.grid(axis="y", color=COLORS["line"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=COLORS["soft"], labelsize=11, length=0)
    return figure, axes


def _svg(figure: "Figure", label: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    prefix = re.sub(r"\W+", "-", label)  # ids must be unique on a page with several plots
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\1{prefix}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
