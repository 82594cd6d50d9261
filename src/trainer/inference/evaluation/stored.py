"""A comparison as report.json holds it, also one that an earlier version wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from trainer.inference.evaluation.noise import noise_levels
from trainer.inference.evaluation.result import FORMAT
from trainer.inference.evaluation.rightness import is_right
from trainer.runs.files import refuse_newer

FORMER = 1  # knew no right answers


def readable(result: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The result with what has been added since it was written to `path`, None where it is none.

    Raises: ConfigError, when a newer version wrote it.
    """
    refuse_newer(path, result.get("format"), FORMAT)
    if result.get("format") not in (FORMER, FORMAT):
        return None
    rows = list(result["rows"])
    if result["format"] == FORMER:
        rows = [_with_right(row) for row in rows]
    if any("noise" not in row for row in rows):
        rows = _with_noise(rows)
    return {"models": {"base": "base", "tuned": "tuned"}, "measures_from_base": [], **result, "rows": rows}


def _with_right(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: [_is_right(answer, name) for answer in row["answers"]] for name in row["sums"]}
    sums = {
        name: values | {"right": (float(sum(counts[name])), float(len(counts[name])))}
        for name, values in row["sums"].items()
    }
    return dict(row) | {"sums": sums}


def _is_right(answer: Mapping[str, Any], name: str) -> bool:
    measures = answer[name]["measures"]
    if "calls" in measures:
        return bool(measures["calls"])
    return is_right(answer[name]["text"], answer["reference"])


def _with_noise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What wrong answers to each row may score, found in the references of all rows."""
    levels = iter(noise_levels([_text(row, answer) for row in rows for answer in row["answers"]]))
    return [dict(row) | {"noise": mean(next(levels) for _ in row["answers"])} for row in rows]


def _text(row: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    return None if row["messages"][answer["message"]].get("tool_calls") else str(answer["reference"])
