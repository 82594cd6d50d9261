"""Kills a training process at file-system events, lets it go on, and compares the result with one that never stopped.

    python -m tests.chaos --trainer ours --points 330 --output kills.json

torch is imported once, and every case is a fork of this process: about two seconds each. The process must have been
started with the library preloaded: `run_harness` compiles it and does so.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
MODES = {"before": 0, "after": 1, "one byte": 2, "half": 3, "last byte": 4}
FAILURE = 99


class Subject(Protocol):
    """A trainer under test. Each method runs in a fork."""

    def start(self, folder: Path) -> None:
        """Train in an empty folder to the end."""

    def go_on(self, folder: Path) -> None:
        """What a user would do after a crash, to the end."""

    def result(self, folder: Path) -> Any:
        """Everything that must be the same: the losses of all steps, and the digest of the final weights."""


@dataclass(frozen=True)
class Event:
    """A file-system event: its number in the process, what it is and on which file below the run."""

    number: int
    kind: str
    path: str

    @property
    def modes(self) -> list[str]:
        return list(MODES) if self.kind == "write" else ["before", "after"]


@dataclass(frozen=True)
class Case:
    """Where a process is killed; `resume` says where the process that goes on is killed too, by event number."""

    event: Event
    mode: str
    resume: int | None = None


@dataclass
class Verdict:
    """`same`, `different` results without a word, or `stuck`: it did not go on by itself."""

    case: Case
    outcome: str
    detail: str = ""


def compiled(folder: Path) -> Path:
    """interpose.c as a library. Raises: FileNotFoundError, without a C compiler."""
    library = folder / "interpose.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "interpose.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def run_harness(*arguments: str, timeout: float) -> dict[str, Any]:
    """Run this file as a program with the library preloaded; returns what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.json"
        environment = os.environ | {
            "LD_PRELOAD": str(compiled(Path(folder))),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-m", "tests.chaos.harness", "--output", str(output), *arguments]
        subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, timeout=timeout)
        found: dict[str, Any] = json.loads(output.read_text())
        return found


class Chaos:
    """Runs cases against one subject below one folder."""

    def __init__(self, subject: Subject, root: Path) -> None:
        self.subject, self.root = subject, root
        self.library = ctypes.CDLL(None)
        self.library.chaos_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
        self.expected, self.events = self._undisturbed()

    def _undisturbed(self) -> tuple[Any, list[Event]]:
        folder, log = self.root / "undisturbed", self.root / "events.txt"
        status = self._fork(self.subject.start, folder, -1, "before", log)
        assert status == 0, "the undisturbed run failed"
        lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
        return self.subject.result(folder), [Event(int(number), kind, path) for number, kind, path in lines]

    def cases(self, points: int) -> list[Case]:
        """`points` of all kill points, evenly over the events; every tenth process is killed again as it goes on."""
        every = [Case(event, mode) for event in self.events for mode in event.modes]
        step = max(1.0, len(every) / points)
        chosen = [every[int(number * step)] for number in range(min(points, len(every)))]
        return [
            Case(case.event, case.mode, resume=number * 7 % 60) if number % 10 == 9 else case
            for number, case in enumerate(chosen)
        ]

    def judge(self, case: Case) -> Verdict:
        folder = self.root / "case"
        shutil.rmtree(folder, ignore_errors=True)
        status = self._fork(self.subject.start, folder, case.event.number, case.mode)
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL and case.resume is not None:
            self._fork(self.subject.go_on, folder, case.resume, "before")
        log = self.root / "errors.txt"
        status = self._fork(self.subject.go_on, folder, errors=log)
        if status != 0:
            return Verdict(case, "stuck", log.read_text().strip().rpartition("\n")[2])
        same = self.subject.result(folder) == self.expected
        return Verdict(case, "same" if same else "different")

    def _fork(
        self,
        work: Callable[[Path], None],
        folder: Path,
        number: int | None = None,
        mode: str = "before",
        log: Path | None = None,
        errors: Path | None = None,
    ) -> int:
        """Run `work` in a child that dies at event `number`; its wait status."""
        pid = os.fork()
        if pid:
            return os.waitpid(pid, 0)[1]
        code = FAILURE
        try:
            sink = os.open(errors or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            if log is not None:
                self.library.chaos_log(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            if number is not None:
                self.library.chaos_arm(str(folder).encode(), number, MODES[mode])
            work(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)


def progress(verdicts: Iterator[Verdict], total: int) -> Iterator[Verdict]:
    """Pass verdicts on, with a line now and then."""
    shown = time.monotonic()
    for number, verdict in enumerate(verdicts, 1):
        if verdict.outcome != "same" or time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{number}/{total} {verdict.outcome} {verdict.case} {verdict.detail}", file=sys.stderr)
        yield verdict


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainer", choices=["ours", "stock", "queue"], default="ours")
    parser.add_argument("--variant", choices=["shared", "unshared", "cut", "pairs"], default="shared", help="of ours")
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--events", action="store_true", help="only tell the file-system events of a run, in order")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)

    from tests.chaos.subjects import OurTrainer, QueuedRuns, StockTrainer

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subjects = {"ours": lambda: OurTrainer(root, options.variant), "stock": lambda: StockTrainer(root)}
        subject = (subjects | {"queue": lambda: QueuedRuns(root)})[options.trainer]()
        chaos = Chaos(subject, root)
        if options.events:
            options.output.write_text(json.dumps({"events": [(event.kind, event.path) for event in chaos.events]}))
            return
        cases = chaos.cases(options.points)
        verdicts = list(progress(map(chaos.judge, cases), len(cases)))
    summary = {
        "trainer": options.trainer,
        "variant": options.variant,
        "events": len(chaos.events),
        "cases": len(verdicts),
        "outcomes": dict(Counter(verdict.outcome for verdict in verdicts)),
        "kinds": dict(Counter(verdict.case.event.kind for verdict in verdicts)),
        "killed_twice": sum(verdict.case.resume is not None for verdict in verdicts),
        "seconds": round(time.monotonic() - started),
        "failures": [asdict(verdict) for verdict in verdicts if verdict.outcome != "same"],
    }
    options.output.write_text(json.dumps(summary, indent=2) + "\n")
    print({key: value for key, value in summary.items() if key != "failures"})


if __name__ == "__main__":
    main()
