"""The worker of a machine's queue: starts its runs in their order, each in a process of its own that outlives it.

A started run's process inherits a lock. While it is held the run continues, even after the worker was
killed between starting the process and noting it: so no run is started twice, and none is lost.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from trainer.backends.http import Say
from trainer.backends.local.backend import launch_detached
from trainer.errors import ConfigError, ExitCode, TrainerError, file_error
from trainer.kinds import executes_here
from trainer.runs import Run, list_runs
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import is_worked_on, lacks_comparison
from trainer.runs.lock import RunInUse
from trainer.runs.process import visible_gpus
from trainer.runs.queue import LOG, STARTED_BY_QUEUE, Queue, QueuedRun
from trainer.runs.run import CONFIG, now
from trainer.training.launch import VARIABLE as PROCESSES

POLL_SECONDS = 0.5
LOOK_SECONDS = 2.0  # between two looks at all runs
ENDED = (ExitCode.DONE, ExitCode.GATE_FAILED)  # nothing is left to do
MOST_STARTS = 2  # of one entry: a run whose process is gone is resumed once


def work(root: Path, say: Say) -> None:
    """Start the runs of the queue until it is empty.

    Raises: QueueInUse, when another process does; ConfigError, for a damaged queue.
    """
    queue = Queue(root)
    with queue.working():
        worker, trouble = Worker(queue, say), ""
        while True:
            try:
                if not worker.advance():
                    return
                trouble = ""
            except ConfigError:
                raise
            except (TrainerError, OSError) as error:  # such as a full disk
                words = str(error if isinstance(error, TrainerError) else file_error(error, queue.folder))
                if words != trouble:
                    say(f"{words}\nthe queue waits until that is put right")
                trouble = words
            time.sleep(POLL_SECONDS)


class Worker:
    """Moves the entries of a queue on."""

    def __init__(self, queue: Queue, say: Say) -> None:
        self._queue, self._say = queue, say
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._blocked, self._look_again = False, 0.0
        self._behind_model: str | None = None  # the run that was last said to wait for one

    def advance(self) -> bool:
        """Note what has ended, and start what can start; False once nothing is left and the office is given up."""
        with self._queue.changing() as entries:
            if not entries:
                self._queue.resign()  # before anybody can add a run, who then starts another worker
                return False
            entries[:] = [kept for entry in entries if (kept := self._settled(self._adopted(entry))) is not None]
            for number, entry in enumerate(entries):
                if entry.waits:
                    gpus = self._room_for(entry, entries)
                    if gpus is None:
                        break  # nothing overtakes it
                    entries[number] = self._started(entry, gpus)
        return True

    def _run(self, entry: QueuedRun) -> Run:
        return Run(self._queue.root / entry.run)

    def _adopted(self, entry: QueuedRun) -> QueuedRun:
        """The entry, noted as started where a worker was killed before it could note that."""
        if entry.waits and self._queue.is_started(entry.run):
            return replace(entry, gpus=self._queue.gpus_of(entry.run), starts=entry.starts + 1)
        return entry

    def _settled(self, entry: QueuedRun) -> QueuedRun | None:
        """The entry as it stays in the queue; None where it leaves it."""
        run = self._run(entry)
        if not entry.waits and self._queue.is_started(entry.run):
            return entry
        if not (run.path / CONFIG).is_file():
            return self._without(entry, "its folder is gone")
        process = self._processes.pop(entry.run, None)
        status = run.status()
        state = status["state"]
        is_done = not lacks_comparison(run) or (process is not None and process.wait() in ENDED)
        if state in ("failed", "cancelled") or (state == "succeeded" and is_done):
            return self._without(entry, state)
        if entry.waits:
            return entry
        if _computes(run):
            return self._without(entry, "was resumed by hand")
        if status.get("stopped_by") or run.asked():
            self._stop(run)
            return self._without(entry, run.state)
        if entry.starts < MOST_STARTS:
            self._say(f"{entry.run}: its process is gone; it is resumed")
            if executes_here(run.backend) and state != "succeeded":
                run.set_status("queued")
            return replace(entry, gpus=None)
        self._give_up(run)
        return self._without(
            entry, f"its process has ended {entry.starts} times; resume it with: trainer resume {run.path}"
        )

    def _without(self, entry: QueuedRun, words: str) -> QueuedRun | None:
        """None, for an entry that leaves the queue."""
        self._queue.forget(entry.run)
        self._say(f"{entry.run}: {words}")
        return None

    def _stop(self, run: Run) -> None:
        """Answer a request that the run's process did not live to answer."""
        if request := run.asked():
            run.answer()
            if request == "cancel":
                run.set_status("cancelled", finished_at=now())
            else:
                run.set_status("paused", stopped_by=request)

    def _give_up(self, run: Run) -> None:
        """Such a run must not look as if it were still to start; a job at a service stays as it is."""
        words = "its process has ended twice, and the queue went on without it"
        run.event(words, level="warning", kind="queue")
        if executes_here(run.backend) and run.state != "succeeded":
            run.set_status("paused", error=words)
        elif not executes_here(run.backend) and not Ledger(run.path).entries():
            run.set_status("failed", error=f"{words}; see {self._queue.folder / LOG}")

    def _room_for(self, entry: QueuedRun, entries: list[QueuedRun]) -> tuple[str, ...] | None:
        """The GPUs for an entry, none on a CPU or at a service; None while it has to wait."""
        if not executes_here(self._run(entry).backend):
            return ()
        if self._queue.holds_model():
            if self._behind_model != entry.run:
                self._say(f"{entry.run}: waits until the playground's model is unloaded")
            self._behind_model = entry.run
            return None
        started = [other for other in entries if not other.waits and executes_here(self._run(other).backend)]
        gpus, taken = visible_gpus(), {gpu for other in started for gpu in other.gpus or ()}
        free = [gpu for gpu in gpus if gpu not in taken]
        wanted = len(gpus) if entry.num_gpus is None else entry.num_gpus
        if (not gpus and started) or wanted > len(free) < len(gpus) or self._others_work(started):
            return None
        return tuple(free[:wanted])

    def _others_work(self, started: list[QueuedRun]) -> bool:
        """True while a run that somebody started by hand computes on this machine."""
        if time.monotonic() >= self._look_again:
            names = {entry.run for entry in started}
            self._blocked = any(run.name not in names and _computes(run) for run in list_runs(self._queue.root))
            self._look_again = time.monotonic() + LOOK_SECONDS if self._blocked else 0.0
        return self._blocked

    def _started(self, entry: QueuedRun, gpus: tuple[str, ...]) -> QueuedRun:
        """Start the run's process; a run with a mistake in it is noted as failed, and leaves the queue next.

        Raises: TrainingError, for the machine's own trouble such as a full disk: the run still waits.
        """
        run = self._run(entry)
        if len(gpus) < (entry.num_gpus or 0):
            return self._failed(
                entry,
                f"run {run.name!r}: asks for {entry.num_gpus} GPUs and the queue's worker sees {len(gpus)}, "
                f"expected as many; start another worker, or: trainer resume {run.path} --queue",
            )
        held = self._queue.begin(entry.run, gpus)
        if held is None:  # it has begun already
            return self._adopted(entry)
        try:
            self._processes[entry.run] = self._launch(run, entry, gpus, held)
        except RunInUse:  # somebody starts it by hand, which takes it out of the queue
            return entry
        except (TrainerError, OSError) as error:
            told = error if isinstance(error, TrainerError) else file_error(error, run.path)
            if isinstance(told, ConfigError):
                return self._failed(entry, str(told))
            raise told from error
        finally:
            os.close(held)
        self._say(f"{entry.run}: started{' on GPU ' + ', '.join(gpus) if gpus else ''}")
        return replace(entry, gpus=gpus, starts=entry.starts + 1)

    def _failed(self, entry: QueuedRun, words: str) -> QueuedRun:
        run = self._run(entry)
        run.set_status("failed", error=words)
        run.event(words, level="error")
        return entry

    def _launch(self, run: Run, entry: QueuedRun, gpus: tuple[str, ...], held: int) -> "subprocess.Popen[bytes]":
        folder, environment = Path(entry.folder), {STARTED_BY_QUEUE: "1"}
        if executes_here(run.backend):
            environment |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
            environment |= {PROCESSES: str(len(gpus))} if entry.num_gpus and PROCESSES in os.environ else {}
            return launch_detached(run, folder, [held], **environment)
        command = [sys.executable, "-m", "trainer", "train", "--resume", str(run.path.absolute())]
        with (self._queue.folder / LOG).open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[held],
                env=os.environ | environment,
            )


def _computes(run: Run) -> bool:
    """True while a process of this machine trains the run."""
    return executes_here(run.backend) and is_worked_on(run)
