"""Measurements of a job, from its events, its checkpoints and its result file, as results.csv and metrics.jsonl."""

import base64
import binascii
import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.runs.results import COLUMNS

Figures = dict[str, float]

# Both services, their pages and their files call the same things by these names.
NAMES = {
    "training_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "training_token_accuracy": "train_mean_token_accuracy",
    "train_token_accuracy": "train_mean_token_accuracy",
    "validation_loss": "valid_loss",
    "validation_mean_token_accuracy": "valid_mean_token_accuracy",
    "validation_token_accuracy": "valid_mean_token_accuracy",
    "valid_token_accuracy": "valid_mean_token_accuracy",
    "full_validation_loss": "full_valid_loss",
    "full_validation_valid_loss": "full_valid_loss",
    "full_validation_mean_token_accuracy": "full_valid_mean_token_accuracy",
    "full_valid_token_accuracy": "full_valid_mean_token_accuracy",
}
# "Step 31/40: training loss=0.07, validation loss=0.61, full validation loss=0.53"
STEP = re.compile(r"^Step (?P<step>\d+)(?:/(?P<total>\d+))?\b")
FIGURE = re.compile(r"(?P<name>full validation|validation|training) loss=(?P<value>[0-9.eE+-]+)")
LOSSES = {"training": "train_loss", "validation": "valid_loss", "full validation": "full_valid_loss"}


def in_our_names(data: Mapping[str, Any]) -> Figures:
    """The numbers in `data` by our names. One that is not measured is null, NaN or -1, and left out."""
    found: Figures = {}
    for key, value in data.items():
        name = NAMES.get(key, key)
        number = _number(value)
        if number is not None and not (name in COLUMNS and number < 0):
            found[name] = number
    return found


def in_text(message: str) -> Figures:
    """The figures of a step in the text of an event; some services put them nowhere else."""
    step = STEP.match(message)
    if step is None:
        return {}
    found: Figures = {"step": float(step["step"])} | ({"total_steps": float(step["total"])} if step["total"] else {})
    for figure in FIGURE.finditer(message):
        try:
            found[LOSSES[figure["name"]]] = float(figure["value"].rstrip("."))
        except ValueError:
            continue
    return in_our_names(found)


def read_csv(content: bytes) -> list[Figures]:
    """The rows of a result file, which one of the services sends as base64. Text that is no table has none."""
    text = content.decode("utf-8-sig", errors="replace")
    if "," not in text.partition("\n")[0]:
        try:
            text = base64.b64decode(text, validate=False).decode("utf-8-sig", errors="replace")
        except (binascii.Error, ValueError):
            return []
    rows = [in_our_names(row) for row in csv.DictReader(io.StringIO(text))]
    return [row for row in rows if "step" in row]


def by_step(rows: Iterable[Mapping[str, float]]) -> dict[int, Figures]:
    """The rows merged by step, in order; a later one says it better."""
    merged: dict[int, Figures] = {}
    for row in rows:
        if "step" in row:
            merged.setdefault(int(row["step"]), {}).update(row)
    return dict(sorted(merged.items()))


def results(merged: Mapping[int, Figures]) -> list[Figures]:
    """Of each step what results.csv has a column for; steps of which nothing was measured are left out."""
    kept = ({name: value for name, value in row.items() if name in COLUMNS} for row in merged.values())
    return [row for row in kept if len(row) > 1]


def others(merged: Mapping[int, Figures]) -> list[Figures]:
    """Of each step what results.csv has no column for."""
    columns = set(COLUMNS) - {"step"}
    kept = ({name: value for name, value in row.items() if name not in columns} for row in merged.values())
    return [row for row in kept if len(row) > 1]


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
