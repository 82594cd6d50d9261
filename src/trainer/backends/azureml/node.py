"""What runs on a node: `train --config config.yaml --auto-resume` around which a job is started, ended and watched.

python -m trainer.backends.azureml.node --config config.yaml --data FOLDER --output FOLDER

The config's paths `data`, `base` and `runs` become links to the mounts, so that they read the same on every attempt.
The run's folder lies on the mounted output: a job that is started again, or another one for the same run, goes on from
its newest complete checkpoint. The first process writes the run's numbers to MLflow and, at the end, `files.json` with
size and sha256 of every file. Exit code 75 says that the run can be resumed.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from trainer.backends.azureml.tracking import watch
from trainer.child_environment import training_environment
from trainer.config.load import load_config
from trainer.errors import ExitCode, TrainerError
from trainer.runs import Run, files

MAX_TRIES = 5  # a step that did not fit is planned finer and tried again at once
FILES = "files.json"
NOT_BROUGHT_HOME = frozenset({"lock.json", "process.json", "request.json", "output.log"})


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
    watcher = threading.Thread(target=watch, args=(run, stop), daemon=True)
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
    """Train until it is done, has failed, or this process is told to end."""
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    environment = training_environment(PYTHONPATH=path)
    told = threading.Event()
    exit_code = int(ExitCode.RUN_FAILED)
    for _ in range(MAX_TRIES):
        process = subprocess.Popen(command, env=environment)

        def pass_on(number: int, frame: FrameType | None, process: "subprocess.Popen[bytes]" = process) -> None:
            told.set()
            process.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        exit_code = process.wait()
        if exit_code != ExitCode.RESUMABLE or told.is_set():
            break
    return exit_code if exit_code >= 0 else 128 - exit_code


def _read_hub_token() -> None:
    """The hub token of the Key Vault that the job names; it is in no file and no setting of the job."""
    vault, name = os.environ.get("TRAINER_KEY_VAULT"), os.environ.get("TRAINER_HUB_TOKEN_SECRET")
    if not vault or not name or os.environ.get("HF_TOKEN"):
        return
    from trainer.backends.azureml.key_vault import read_secret

    os.environ["HF_TOKEN"] = read_secret(vault, name)


if __name__ == "__main__":
    sys.exit(main())
