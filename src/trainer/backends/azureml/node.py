"""Entry point on a node: starts, ends and watches `train --config config.yaml --auto-resume` there.

python -m trainer.backends.azureml.node --config config.yaml --data FOLDER --output FOLDER

The config's paths `data` and `base` become links to the mounts, so that they read the same on every attempt. The run is
written on the node's disk, and the first process copies every file to the mounted output: a job that is started again,
or another one for the same run, resumes from its newest complete checkpoint. The first process also writes the run's
numbers to MLflow and, at the end, `files.json` with size and sha256 of every file. Exit code 75 says that the run can
be resumed.

Before all that, one process of each machine checks its GPUs; it ends where they cannot be used.
"""

import argparse
import contextlib
import hashlib
import math
import os
import shutil
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

from trainer.backends.azureml import gpu_check
from trainer.backends.azureml.copies import FILES, Copies, comes_home
from trainer.child_environment import training_environment
from trainer.config.load import load_config
from trainer.errors import ConfigError, ExitCode, TrainerError
from trainer.runs import Run, files, lock

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
    parser.add_argument("--gpus", type=int, default=None)  # of this machine; 0 trains on its processor
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args(arguments)
    output, config = given.output.resolve(), given.config.resolve()
    overrides = ["backend.kind=local", "run.root=runs", *given.overrides]
    try:
        name = load_config(config, overrides).run.name
    except TrainerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    assert name is not None
    first = os.environ.get("RANK", "0") == "0"
    if os.environ.get("LOCAL_RANK", "0") == "0" and _ends_without_gpus(given.gpus, output, name, first):
        return ExitCode.RUN_FAILED
    output.mkdir(parents=True, exist_ok=True)
    code = Path.cwd()
    folder = _enter(code, {"data": given.data, "base": given.base})
    run = Run(Path("runs") / name)
    copies = Copies(run, output)
    try:
        copies.fetch(everything=first)
        _read_hub_token()
    except TrainerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    command = [sys.executable, "-m", "trainer", "train", "--config", str(config), "--auto-resume", *overrides]
    stop = threading.Event()
    watcher = threading.Thread(target=track, args=(run, stop), daemon=True)
    if first:
        copies.start()
        watcher.start()
    exit_code = _train(command, code)
    if exit_code == ExitCode.GATE_FAILED:  # a job that ends so would look failed, and be started again
        exit_code = ExitCode.DONE
    stop.set()
    if first:
        watcher.join(timeout=60)
        if exit_code == ExitCode.DONE:
            write_files(run)
        if not copies.finish():
            sys.stderr.write(f"{output}: lacks files of the run, expected all of them; resuming trains them again\n")
            return exit_code or ExitCode.RUN_FAILED
    os.chdir(code)
    shutil.rmtree(folder, ignore_errors=True)
    return exit_code


def _ends_without_gpus(gpus: int | None, output: Path, name: str, first: bool) -> bool:
    """Check the machine's GPUs; where they cannot be used, say why at once, as it bills, and then mark the run failed.

    Only the first process marks: another machine's GPUs say nothing about the run that it may be writing.
    """
    look = None
    with contextlib.suppress(OSError):  # of a mount, which must not keep the verdict back
        look = lock.Look.now(output / name) if first else None
    reason = gpu_check.problem(gpus)
    if reason is None:
        return False
    sys.stderr.write(f"{reason}\n")
    if first:
        try:
            with tempfile.TemporaryDirectory(prefix="trainer-") as folder:
                Copies(Run(Path(folder) / name), output).mark_failed(reason, look)
        except (OSError, TrainerError) as error:
            sys.stderr.write(f"{output / name}: is not marked as failed: {error}\n")
    return True


def write_files(run: Run) -> None:
    """Size and sha256 of every file of a finished run, beside its folder, so that what comes home can be verified."""
    found = {
        path.relative_to(run.path).as_posix(): _entry(path)
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and comes_home(path)
    }
    files.write_json(run.path.parent / FILES, {"files": found})


def _entry(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _enter(code: Path, links: dict[str, Path | None]) -> Path:
    """Go to a new folder that looks like the one the config was written for."""
    folder = Path(tempfile.mkdtemp(prefix="trainer-"))
    for name, target in links.items():
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target.resolve())
    (folder / "runs").mkdir()
    if (template := code / "chat_template.jinja").is_file():
        (folder / template.name).symlink_to(template)
    os.chdir(folder)
    return folder


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
            write_measurements(run, done)
            failures = 0
        except Exception as error:  # the tracker's many ways to fail
            failures += 1
            sys.stderr.write(f"MLflow: {type(error).__name__}: {error}"[:300] + "\n")
        if last:
            return


def write_measurements(run: Run, done: dict[str, int]) -> None:
    """Log everything new. `done`: rows of each file that are logged already, and how often parameters were tried."""
    import mlflow
    from mlflow.entities import Metric

    client = mlflow.MlflowClient()
    run_id = os.environ.get("MLFLOW_RUN_ID") or mlflow.start_run().info.run_id
    for part, rows in (("results", run.results()), ("metrics", list(run.metrics()))):
        new = rows[done.get(part, 0) :]
        now = int(time.time() * 1000)
        found = [Metric(name, value, now, step) for row in new for name, value, step in measurements(row)]
        for start in range(0, len(found), BATCH):
            client.log_batch(run_id, metrics=found[start : start + BATCH])
        done[part] = len(rows)
    if done.get("parameters", 0) < MAX_FAILURES and run.find_manifest() is not None:
        done["parameters"] = done.get("parameters", 0) + 1
        if _has_written_parameters(run, client, run_id):
            done["parameters"] = MAX_FAILURES


def _has_written_parameters(run: Run, client: Any, run_id: str) -> bool:
    """Write the parameters; False where MLflow refuses, as it always does after an attempt with other values."""
    from mlflow.entities import Param

    found = [Param(name, text) for name, text in parameters(run)]
    try:
        for start in range(0, len(found), BATCH):
            client.log_batch(run_id, params=found[start : start + BATCH])
    except Exception as error:  # the tracker's many ways to fail
        sys.stderr.write(f"MLflow: parameters: {type(error).__name__}: {error}"[:300] + "\n")
        return False
    return True


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
