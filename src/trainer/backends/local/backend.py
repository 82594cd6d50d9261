"""The local backend: runs that execute in this process, or in one of their own that outlives it.

What needs torch stands in execute.py, which is imported when everything that can be refused without it has been.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.backends.contract import (
    UNCHANGED,
    Backend,
    Changes,
    Control,
    Plan,
    Preview,
    Screen,
    device_of,
    refuse_folder,
)
from trainer.backends.http import Say
from trainer.backends.local.resumable import refuse_to_resume
from trainer.child_environment import training_environment
from trainer.config.schema import RunConfig
from trainer.data.read.sources import check_data, refuse_unreadable
from trainer.errors import Attempts, ConfigError
from trainer.extras import NEEDED_BY, need
from trainer.model.lineage import refuse_model
from trainer.runs import Run, lifecycle
from trainer.runs.lock import RunInUse
from trainer.runs.run import OUTPUT, Outcome
from trainer.training.garbage import all_stays
from trainer.training.launch import first_gpus, in_processes

if TYPE_CHECKING:
    from trainer.training.prepare import Prepared


class Local(Backend["Prepared"]):
    """The GPU or CPU of this machine. `launch` and `resume` say what to train, and `follow` or `detach` trains it."""

    where = "on this machine"
    resumable = ("paused", "failed")
    consequences: ClassVar[Mapping[Control, str]] = {
        "pause": "Stops after the current step with a checkpoint. Resuming gives the result that it would have had.",
        "resume": "Trains on from the newest complete checkpoint, on this machine, in the background. Nothing bills.",
        "cancel": "Ends the run for good after the current step. Its checkpoints and files stay.",
        "delete": "Deletes the folder with adapter, checkpoints, metrics, logs and report. It cannot be brought back.",
    }
    has_preview = True
    poll_seconds = 0.5

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._train: Callable[[], Outcome] | None = None

    def refuse_at_once(self, config: RunConfig, may_exist: bool, detach: bool, changes: Changes = UNCHANGED) -> None:
        extra, modules = NEEDED_BY["local"]
        attempts = Attempts()
        if may_exist and detach:
            attempts.errors.append(
                ConfigError("--auto-resume: is given with --detach, expected one of them; remove one")
            )
        attempts.make(need, "the local backend", *modules, extra=extra)
        attempts.make(self.refuse_unfit, config)
        attempts.make(refuse_folder, config, may_exist)
        attempts.make(refuse_model, config)
        attempts.make(refuse_unreadable, config.data)
        attempts.end()

    def in_processes(self, arguments: Sequence[str], say: Say) -> int | None:
        return in_processes(arguments, say)

    def existing(self, config: RunConfig) -> Run | None:
        """None: settings and data are checked again before a run is resumed."""
        return None

    def check(self, config: RunConfig, say: Say, may_exist: bool = False) -> "Plan[Prepared]":
        with all_stays():
            checked = check_data(config.data, config.training.method)
        with self._loading():
            from trainer.backends.local import execute

        return execute.check(config, say, may_exist, checked)

    def check_waiting(
        self, config: RunConfig, say: Say, num_gpus: int | None, may_exist: bool = False
    ) -> "Plan[Prepared]":
        """The plan as if nothing else used the GPUs; the run's own is made when it starts."""
        with all_stays():
            checked = check_data(config.data, config.training.method)
        with self._loading():
            from trainer.backends.local import execute

        with first_gpus(num_gpus):
            return execute.check_waiting(config, say, checked, may_exist)

    def plan_to_keep(self, plan: "Plan[Prepared]") -> Plan[Any]:
        kept: Plan[Any] = plan
        return replace(kept, details=None)

    def preview(self, plan: "Plan[Prepared]") -> Preview:
        from trainer.data.render.rendering import Renderer

        prepared = plan.details
        renderer = Renderer(prepared.tokenizer, prepared.config.data.train_reasoning is not False)
        return Preview(prepared.data, renderer, prepared.plan.max_length)

    def create(self, plan: "Plan[Prepared]", may_exist: bool) -> Run:
        """Several processes share the folder that the first one makes."""
        if plan.details is None:  # `plan_to_keep`: no other process is at it
            return super().create(plan, may_exist)
        return plan.details.ranks.first(partial(super().create, plan, may_exist))

    def launch(self, plan: "Plan[Prepared]", run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        from trainer.backends.local import execute

        lifecycle.withdraw(run, "paused")
        self._train = partial(execute.train, plan.details, run, self._screen.console, changes.allowed)

    def resume(self, run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        refuse_to_resume(run)
        lifecycle.withdraw(run, "paused")

        def resume() -> Outcome:
            with self._loading():
                from trainer.backends.local import execute

            return execute.resume(run, self._screen.console, say, changes.overrides, changes.allowed)

        self._train = resume

    def follow(self, run: Run, say: Say) -> Outcome:
        """Train in this process, and compare the result with its base."""
        assert self._train is not None, "launch or resume comes first"
        return self._train()

    def detach(self, run: Run, say: Say) -> None:
        """Train in a process of its own."""
        pid = launch_detached(run).pid
        say(f"training in the background as process {pid}\nfollow it: trainer logs {run.path} --follow")
        say(f"stop it:   trainer pause {run.path}")

    def refuse_waiting(self, run: Run) -> None:
        refuse_to_resume(run)

    def refresh(self, run: Run, say: Say) -> None:
        """Nothing: the process that trains writes the run's files."""

    def pause(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        if lifecycle.pause(run, wait_seconds):
            say(f"{run.name} is {run.state}; resume it with: trainer resume {run.path}")
        else:
            say(f"{run.name} was asked to stop and has not finished its step yet; see: trainer runs")

    def cancel(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        if lifecycle.cancel(run, wait_seconds):
            say(f"{run.name} is {run.state}; delete its files with: trainer delete {run.path}")
        else:
            say(f"{run.name} was asked to end and has not finished its step yet; see: trainer runs")

    def delete(self, run: Run, say: Say) -> None:
        """Nothing: all that the run left is in its folder."""

    def consequence(self, run: Run, control: Control) -> str | None:
        if control == "resume" and lifecycle.lacks_comparison(run) and not lifecycle.is_worked_on(run):
            return "Makes the missing comparison with the base, on this machine. Nothing bills."
        return super().consequence(run, control)

    def facts(self, run: Run) -> Mapping[str, object]:
        return {"device": device_of(run), **super().facts(run)}

    def after_interrupt(self, run: Run) -> str:
        if lifecycle.lacks_comparison(run):
            return f"trained; its comparison with the base is missing; make it with: trainer resume {run.path}"
        if run.state == "succeeded":
            return f"trained; look at it: trainer show {run.path}"
        return f"stopped before training began; begin again: trainer resume {run.path}"

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """While torch and transformers are imported: seconds."""
        with self._screen.loading(), all_stays():
            yield


def launch_detached(
    run: Run, folder: Path | None = None, held: Sequence[int] = (), **environment: str
) -> "subprocess.Popen[bytes]":
    """Train a run that has been created, in a process that outlives this one.

    It starts in `folder`, or in this process's, and inherits the handles `held`.

    Raises: RunInUse, when another one is about to do that: it takes the lock only once its libraries are loaded.
    """
    if run.is_launched:
        raise RunInUse(run.name, "is trained in the background", f"follow it: trainer logs {run.path} --follow")
    if run.state != "succeeded":
        run.answer()  # a request to a process that is gone
        run.set_status("queued", error=None, stopped_by=None)
    command = [sys.executable, "-m", "trainer", "train", "--resume", str(run.path.absolute())]
    with (run.path / OUTPUT).open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=held,
            env=training_environment(**environment),
        )
    run.launched(process.pid)
    return process
