"""A report on data files in a process of its own: rules, statistics, tokens. JSON on standard input, JSON back."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from trainer.data.files.stats import TokenMeasure
    from trainer.data.read.checks import DataReport

MAX_FINDINGS = 2_000


def report(request: Mapping[str, Any]) -> dict[str, Any]:
    """Findings by line and statistics of a file, against held-out rows where they are named."""
    from trainer.data.read.checks import check_files

    train = [Path(request["file"])]
    held_out = [Path(path) for path in request["held_out"]]
    checked = check_files(train, held_out)
    found: dict[str, Any] = {
        "rows": checked.rows,
        "held_out_rows": checked.validation_rows,
        "method": checked.method,
        "severities": checked.severities,
        "counts": checked.counts,
        "num_left_out": max(0, len(checked.findings) - MAX_FINDINGS),
        "findings": [finding.to_json() for finding in checked.findings[:MAX_FINDINGS]],
    }
    return found | _statistics(checked, train, held_out, request.get("config"))


def _statistics(checked: "DataReport", train: list[Path], held_out: list[Path], config: str | None) -> dict[str, Any]:
    """Statistics, or the reason why there are none; tokens where a config names a model that is at hand."""
    from trainer.data.files.stats import measure_report

    why_no_tokens = "" if config else "choose a run whose model counts them"
    counter = None
    if config:
        try:
            counter = _counter(Path(config), train)
        except TrainerError as error:
            why_no_tokens = str(error)
    try:
        measured = measure_report(checked, train, held_out, counter)
    except TrainerError as error:
        if counter is None:
            return {"statistics": None, "why": _first(error), "why_no_tokens": why_no_tokens}
        return _statistics(checked, train, held_out, None) | {"why_no_tokens": _first(error)}
    return {"statistics": measured.to_json(), "why": "", "why_no_tokens": why_no_tokens}


def _counter(config: Path, train: list[Path]) -> "TokenMeasure":
    from trainer.config.load import load_config
    from trainer.training.step_tokens import token_counter

    paths = json.dumps([str(file) for file in train])
    return token_counter(load_config(config, [f"data.train={paths}", "data.validation="], together=False))


def _first(error: TrainerError) -> str:
    more = f" (and {len(error.problems) - 1:,} more)" if len(error.problems) > 1 else ""
    return f"{error.problems[0]}{more}"


def main() -> None:
    """Answer the request of standard input; what libraries print does not get into the answer."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer = report(request)
    except TrainerError as error:
        answer = {"problem": _first(error)}
    json.dump(answer, answers)
    answers.flush()


if __name__ == "__main__":
    main()
