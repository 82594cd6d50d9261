"""The run's numbers in the workspace's MLflow, written beside training: whatever goes wrong here ends nothing."""

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from trainer.errors import ConfigError
from trainer.runs import Run

SECONDS = 10.0
MAX_PARAMETERS = 200  # Azure ML refuses more, which ended whole trainings
MAX_CHARACTERS = 250  # of a parameter's value
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
            print(f"MLflow: {type(error).__name__}: {error}"[:300], file=sys.stderr)  # noqa: T201  # the job's log
        if last:
            return


def _write(run: Run, done: dict[str, int]) -> None:
    """What is new since the last time. `done`: how far each part has been written."""
    import mlflow

    client = mlflow.MlflowClient()
    run_id = os.environ.get("MLFLOW_RUN_ID") or mlflow.start_run().info.run_id
    if not done.get("parameters") and run.manifest():
        for name, text in parameters(run):
            client.log_param(run_id, name, text)
        done["parameters"] = 1
    for part, rows in (("results", run.results()), ("metrics", list(run.metrics()))):
        for row in rows[done.get(part, 0) :]:
            step = int(row.get("step", 0))
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                    client.log_metric(run_id, name, float(value), step=step)
            done[part] = done.get(part, 0) + 1


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
