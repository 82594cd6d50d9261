"""What runs on a node: `train --config config.yaml --auto-resume` around which a job is started, ended and watched.

python -m trainer.backends.azureml.node --config config.yaml --data FOLDER --output FOLDER

The config's paths `data`, `base` and `runs` become links to the mounts, so that they read the same on every attempt.
The run's folder lies on the mounted output: a job that is started again, or another one for the same run, goes on from
its newest complete checkpoint. The first process writes the run's numbers to MLflow and, at the end, `files.json` with
size and sha256 of every file. Exit code 75 says that the run can be resumed.
"""

import argparse
import hashlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from trainer.child_environment import training_environment
from trainer.config.load import load_config
from trainer.errors import ConfigError, ExitCode, TrainerError
from trainer.runs import Run, files

FILES = "files.json"
NOT_BROUGHT_HOME = frozenset({"lock.json", "process.json", "request.json", "output.log"})
TRACKING_SECONDS = 10.0
MAX_PARAMETERS = 200  # Azure ML refuses more, which ended whole trainings
MAX_CHARACTERS = 250  # of a parameter's value
BATCH = 100  # MLflow's limit for parameters; metrics may be more
MAX_FAILURES = 5  # in a row, then MLflow is left alone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training of one process of the job; the exit code of `train`."""
    parser = argparse.ArgumentParser(prog="python -m trainer.backends.azureml.node")
    for option, wanted in (("--config", True), ("--data", True), ("--output", True), ("--base", False)):
        parser.add_argument(option, type=Path, required=wanted)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args(arguments)
    config, overrides = given.config.resolve(), ["backend.kind=local", "run.root=runs", *given.overrides]
    code = Path.cwd()
    _enter(code, {"data": given.data, "runs": given.output, "base": given.base})
    try:
        name = load_config(config, overrides).run.name
        assert name is not None
        _read_hub_token()
    except TrainerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    command = [sys.executable, "-m", "trainer", "train", "--config", str(config), "--auto-resume", *overrides]
    run, first = Run(Path("runs") / name), os.environ.get("RANK", "0") == "0"
    stop = threading.Event()
    watcher = threading.Thread(target=track, args=(run, stop), daemon=True)
    if first:
        watcher.start()
    exit_code = _train(command, code)
    stop.set()
    if first:
        watcher.join(timeout=60)
        if exit_code == ExitCode.DONE:
            write_files(run)
    return exit_code


def write_files(run: Run) -> None:
    """Size and sha256 of every file of a finished run, beside its folder, so that what comes home can be verified."""
    found = {
        path.relative_to(run.path).as_posix(): _entry(path)
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and path.name not in NOT_BROUGHT_HOME and not path.name.startswith((".", "reader-"))
    }
    files.write_json(run.path.parent / FILES, {"files": found})


def _entry(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _enter(code: Path, links: dict[str, Path | None]) -> None:
    """Go to a new folder that looks like the one the config was written for."""
    folder = Path(tempfile.mkdtemp(prefix="trainer-"))
    for name, target in links.items():
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target.resolve())
    if (template := code / "chat_template.jinja").is_file():
        (folder / template.name).symlink_to(template)
    os.chdir(folder)


def _train(command: list[str], code: Path) -> int:
    """Train until it ends; a signal to this process ends it with a checkpoint."""
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(command, env=training_environment(PYTHONPATH=path))

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    exit_code = process.wait()
    return exit_code if exit_code >= 0 else 128 - exit_code


def _read_hub_token() -> None:
    """The hub token of the Key Vault that the job names; it is in no file and no setting of the job."""
    vault, name = os.environ.get("TRAINER_KEY_VAULT"), os.environ.get("TRAINER_HUB_TOKEN_SECRET")
    if not vault or not name or os.environ.get("HF_TOKEN"):
        return
    from trainer.backends.azureml.key_vault import read_secret

    os.environ["HF_TOKEN"] = read_secret(vault, name)


def track(run: Run, stop: threading.Event) -> None:
    """Write each new measurement to the workspace's MLflow until `stop` is set, and once more after it.

    Whatever goes wrong here ends no training.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    done: dict[str, int] = {}
    failures = 0
    while failures < MAX_FAILURES:
        last = stop.wait(TRACKING_SECONDS)
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


if __name__ == "__main__":
    sys.exit(main())
