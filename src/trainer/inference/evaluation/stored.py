"""A comparison as report.json holds it, also one that an earlier version wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.inference.evaluation.result import FORMAT
from trainer.inference.evaluation.rightness import is_right
from trainer.runs.files import refuse_newer

FORMER = 1  # knew no right answers


def readable(result: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The result with what has been added since it was written to `path`, None where it is none.

    Raises: ConfigError, when a newer version wrote it.
    """
    refuse_newer(path, result.get("format"), FORMAT)
    complete = {"models": {"base": "base", "tuned": "tuned"}, "measures_from_base": [], **result}
    match result.get("format"):
        case format if format == FORMAT:
            return complete
        case format if format == FORMER:
            return complete | {"rows": [_with_right(row) for row in result["rows"]]}
    return None


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
