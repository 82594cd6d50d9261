"""Time that training is expected to take, by the speed of earlier runs."""

import json
import statistics
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from trainer.runs import list_runs

RUNS_LOOKED_AT = 20
LINES_LOOKED_AT = 50


def expected_seconds(root: Path, plan: Mapping[str, Any] | None) -> float | None:
    """The time of a plan of this machine, as fast as earlier runs of its base here; None where there are none."""
    numbers = (plan or {}).get("numbers")
    if not numbers:
        return None
    speeds = [
        speed
        for run in islice(reversed(list_runs(root)), RUNS_LOOKED_AT)
        if run.base_name() == numbers["base"] and (speed := _tokens_per_second(run.path / "metrics.jsonl"))
    ]
    return numbers["num_tokens"] * numbers["n_epochs"] / statistics.median(speeds) if speeds else None


def _tokens_per_second(metrics: Path) -> float | None:
    """The speed of a run, by the middle of its last measurements."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()[-LINES_LOOKED_AT:]
    except OSError:
        return None
    speeds = [speed for line in lines if (speed := _speed_in(line)) is not None]
    return statistics.median(speeds) if speeds else None


def _speed_in(line: str) -> float | None:
    """The speed that a line of metrics tells; none of one that is torn."""
    try:
        return float(json.loads(line)["tokens_per_second"])
    except (ValueError, KeyError, TypeError):
        return None
