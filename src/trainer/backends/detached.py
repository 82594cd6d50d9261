"""Training in a process of its own."""

import subprocess
import sys

from trainer.child_environment import training_environment
from trainer.runs import Run


def launch_detached(run: Run) -> int:
    """Train a run that has been created, in a process of its own that outlives this one; returns its pid."""
    if run.state != "succeeded":
        run.answer()  # a request to a process that is gone
        run.set_status("queued", error=None)
    command = [sys.executable, "-m", "trainer", "train", "--resume", str(run.path)]
    with (run.path / "output.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=training_environment(),
        )
    run.launched(process.pid)
    return process.pid
