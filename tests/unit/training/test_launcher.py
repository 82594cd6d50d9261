"""`train` as several processes: how many, what each of them knows, and the code that they end with together.

A shell stands for Python: it runs the first argument of the command line, which here is the script of a process.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.training import launch

apart = pytest.mark.apart
UNTIL_TERM = "trap 'exit 75' TERM; : > ready-$RANK; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; : > ready-$RANK; while :; do sleep 0.02; done"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the processes run: two of them, which get half a second to end."""
    interpreter = tmp_path / "shell"
    interpreter.write_text('#!/bin/sh\n[ "$1 $2" = "-m trainer" ] || exit 99\neval "$3"\n')
    interpreter.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(launch, "_num_gpus", lambda: 2)
    for name in ("WORLD_SIZE", "RANK", launch.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(script: str, said: list[str] | None = None) -> int | None:
    return launch.in_processes([script], ([] if said is None else said).append)


def signal_when_ready(folder: Path, number: signal.Signals) -> None:
    """Send this process a signal once both processes are listening."""

    def send() -> None:
        deadline = time.monotonic() + 30
        while len(list(folder.glob("ready-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@apart
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 75", 75),
        ('[ "$RANK" = 0 ] || sleep 0.8', 0),  # longer than the others get to end: nobody had failed
        ('[ "$RANK" = 0 ] && exit 3; ' + UNTIL_TERM, 3),  # the first that failed, before those it ended
        ('[ "$RANK" = 1 ] && exit 3; ' + DEAF, 3),  # even one that does not listen is gone in bounded time
    ],
    ids=["done", "stopped", "one-is-slower", "one-failed", "one-failed-and-one-is-deaf"],
)
def test_the_code_is_that_of_the_processes(shell: Path, script: str, code: int) -> None:
    said: list[str] = []
    assert run(script, said) == code
    assert said == []


@apart
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_each_process_and_its_code_is_returned(shell: Path, number: signal.Signals, code: int) -> None:
    before = [signal.getsignal(known) for known in launch.SIGNALS]
    name = number.name.removeprefix("SIG")
    signal_when_ready(shell, number)
    told = f"trap ': > got-$RANK; exit {code}' {name}"
    # The first that ends has the other one end, too, by SIGTERM: a shell dies of it before it gets to its trap.
    assert run(f"trap '' TERM; {told}; : > ready-$RANK; while :; do sleep 0.02; done") == code
    assert sorted(path.name for path in shell.glob("got-*")) == ["got-0", "got-1"]
    assert [signal.getsignal(known) for known in launch.SIGNALS] == before


@apart
def test_a_process_that_is_killed_ends_the_others_and_is_named(shell: Path) -> None:
    said: list[str] = []
    script = "trap ': > told; exit 75' TERM; : > ready-$RANK; while :; do sleep 0.02; done"
    assert run('[ "$RANK" = 0 ] || { until [ -e ready-0 ]; do sleep 0.02; done; kill -9 $$; }; ' + script, said) == 1
    (message,) = said
    assert message.startswith("process 2 of 2 was killed by SIGKILL, ")
    assert (shell / "told").exists()


@apart
def test_each_process_knows_its_number_and_the_meeting_point_of_all(shell: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", launch.PARENT)
    values = " ".join(f"${name}" for name in names)
    assert run(f'echo "{values}" > knows-$RANK; test -p "/dev/fd/${launch.PARENT}"') == 0
    one, two = ((shell / f"knows-{rank}").read_text().split() for rank in range(2))
    assert [one[:4], two[:4]] == [[str(rank), str(rank), "2", "127.0.0.1"] for rank in range(2)]
    assert one[4:] == two[4:]
    assert len(one) == len(names)


@pytest.mark.parametrize(
    ("codes", "killed", "expected", "said"),
    [
        ([0, 0], None, 0, 0), ([75, 75], None, 75, 0), ([130, 130], None, 130, 0), ([2, 2], None, 2, 0),
        ([1, -signal.SIGKILL], 1, 1, 1), ([-signal.SIGKILL, -signal.SIGSEGV], 0, 1, 1),
        ([-signal.SIGTERM, 75], 0, 75, 0), ([-signal.SIGTERM, -signal.SIGTERM], 0, 75, 0),
        ([-signal.SIGINT, -signal.SIGKILL], 0, 130, 0), ([0, 1], None, 1, 0), ([1, -signal.SIGTERM], None, 1, 0),
    ],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_processes(codes: list[int], killed: int | None, expected: int, said: int) -> None:
    messages: list[str] = []
    assert launch._ending(codes, killed, messages.append) == expected
    assert len(messages) == said


@pytest.mark.parametrize(
    ("num_gpus", "asked", "expected"), [(0, None, 1), (1, None, 1), (8, None, 8), (8, "2", 2), (0, "3", 3)]
)
def test_there_is_one_process_for_each_gpu_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, asked: str | None, expected: int
) -> None:
    monkeypatch.setattr(launch, "_num_gpus", lambda: num_gpus)
    assert launch.num_processes({} if asked is None else {"TRAINER_PROCESSES": asked}) == expected


@pytest.mark.parametrize(("num_gpus", "asked"), [(2, "3"), (0, "0"), (0, "-1"), (0, "many"), (0, "")])
def test_a_number_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, num_gpus: int, asked: str) -> None:
    monkeypatch.setattr(launch, "_num_gpus", lambda: num_gpus)
    with pytest.raises(ConfigError, match=r"TRAINER_PROCESSES: is '.*', expected a number from 1"):
        launch.num_processes({"TRAINER_PROCESSES": asked})


def test_a_process_that_was_started_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(launch, "_num_gpus", lambda: pytest.fail("it has no GPU to itself yet"))
    assert launch.in_processes(["train"], print) is None
