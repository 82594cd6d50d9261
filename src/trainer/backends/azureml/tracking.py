"""The run's numbers in the workspace's MLflow, written beside training: whatever goes wrong here ends nothing."""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import ConfigError
from trainer.runs import Run

SECONDS = 10.0
MAX_PARAMETERS = 200  # Azure ML refuses more, which ended whole trainings
MAX_CHARACTERS = 250  # of a parameter's value
BATCH = 100  # MLflow's limit for parameters; metrics may be more
MAX_FAILURES = 5  # in a row, then MLflow is left alone


def watch(run: Run, stop: threading.Event) -> None:
    """Write each new measurement until `stop` is set, and once more after it."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    done: dict[str, int] = {}
    failures = 0
    while failures < MAX_FAILURES:
        last = stop.wait(SECONDS)
        try:
            _write(run, done)
            failures = 0
        except Exception as error:  # the tracker's many ways to fail
            failures += 1
            sys.stderr.write(f"MLflow: {type(error).__name__}: {error}"[:300] + "\n")
        if last:
            return


def _write(run: Run, done: dict[str, int]) -> None:
    """What is new since the last time. `done`: how many rows of each file, and parameters, have been written."""
    import mlflow
    from mlflow.entities import Metric, Param

    client = mlflow.MlflowClient()
    run_id = os.environ.get("MLFLOW_RUN_ID") or mlflow.start_run().info.run_id
    for part, rows in (("results", run.results()), ("metrics", list(run.metrics()))):
        new = rows[done.get(part, 0) :]
        now = int(time.time() * 1000)
        found = [Metric(name, value, now, step) for row in new for name, value, step in measurements(row)]
        for start in range(0, len(found), BATCH):
            client.log_batch(run_id, metrics=found[start : start + BATCH])
        done[part] = len(rows)
    if "parameters" not in done and run.find_manifest() is not None:
        done["parameters"] = 1  # tried once: a job that starts again may find others there, which cannot be changed
        found = [Param(name, text) for name, text in parameters(run)]
        for start in range(0, len(found), BATCH):
            client.log_batch(run_id, params=found[start : start + BATCH])


def measurements(row: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every finite number in a row."""
    for name, value in row.items():
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value), int(row.get("step", 0))


def parameters(run: Run) -> list[tuple[str, str]]:
    """The resolved settings as MLflow takes them: few enough and short enough."""
    try:
        settings = run.config().model_dump(mode="json", exclude={"azureml", "openai", "backend", "run"})
    except ConfigError:
        return []
    return [(name, str(value)[:MAX_CHARACTERS]) for name, value in _flat(settings)][:MAX_PARAMETERS]


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value
