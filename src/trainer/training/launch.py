"""One process for each GPU of this machine, started by the command itself and ending together.

torch's and accelerate's launchers turn every exit code into 1 and print a traceback for it. Here a signal goes to all
processes, which end at a checkpoint; the exit code is theirs; and when one dies, so do the others, in bounded time.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from trainer.child_environment import training_environment
from trainer.errors import ConfigError, ExitCode
from trainer.runs.process import usable_cores, visible_gpus

VARIABLE = "TRAINER_PROCESSES"
PARENT = "TRAINER_PARENT_PIPE"  # its reading end: when the launching process is gone, it has ended
GRACE_SECONDS = 15.0  # for the others to end by themselves after one has; and again after a signal to end
POLL_SECONDS = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL = {-number: ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.RESUMABLE for number in SIGNALS}


def in_processes(arguments: Sequence[str], say: Callable[[str], None]) -> int | None:
    """Run `trainer` with these arguments in several processes; its exit code, or None where one is enough.

    Raises: ConfigError, when more processes are asked for than there are GPUs.
    """
    if "WORLD_SIZE" in os.environ:  # this is one of them; and torch must not count GPUs before it has one to itself
        return None
    size = num_processes(os.environ)
    return None if size == 1 else _run(arguments, size, say)


def num_processes(environment: Mapping[str, str]) -> int:
    """One for each GPU, or what TRAINER_PROCESSES says."""
    num_gpus, asked = _num_gpus(), environment.get(VARIABLE)
    if asked is None:
        return max(1, num_gpus)
    if not asked.isdecimal() or int(asked) < 1 or (num_gpus and int(asked) > num_gpus):
        accepted = f"a number from 1 to {num_gpus}, the GPUs of this machine" if num_gpus else "a number from 1 on"
        raise ConfigError(f"{VARIABLE}: is {asked!r}, expected {accepted}")
    return int(asked)


@contextmanager
def first_gpus(number: int | None) -> Iterator[None]:
    """Let this process see only the first GPUs while the block runs: those of a later process. All where it is None."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if number is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible_gpus()[:number])
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.update({} if before is None else {"CUDA_VISIBLE_DEVICES": before})


def _num_gpus() -> int:
    """Asks torch, which takes seconds to load, only where there may be several."""
    if (num_devices := len(list(Path("/dev").glob("nvidia[0-9]*")))) < 2:
        return num_devices
    import torch

    return torch.cuda.device_count()


def _run(arguments: Sequence[str], size: int, say: Callable[[str], None]) -> int:
    reading, writing = os.pipe()
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None = None) -> None:
        for process in processes:
            process.send_signal(number)

    try:
        with _signals_to(pass_on):
            environment = _environment(size, reading)
            for rank in range(size):
                processes.append(_start(arguments, environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, reading))
            codes, killed = _wait(processes, pass_on)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        os.close(reading)
        os.close(writing)
    return _ending(codes, killed, say)


def _environment(size: int, pipe: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), PARENT: str(pipe)}
    threads = {"OMP_NUM_THREADS": str(max(1, usable_cores() // size))}
    return threads | training_environment() | meeting


def _start(arguments: Sequence[str], environment: dict[str, str], pipe: int) -> subprocess.Popen[bytes]:
    """In a process group of its own: a terminal's Ctrl-C reaches it once, passed on, and not a second time."""
    command = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.Popen(command, env=environment, pass_fds=[pipe], process_group=0)


def _wait(processes: Sequence[subprocess.Popen[bytes]], tell: Callable[[int], None]) -> tuple[list[int], int | None]:
    """Wait for all; after one has failed the others get a signal to end, and then are killed.

    Returns their codes, and the process that was killed before that, if one was.
    """
    pressing = [signal.SIGTERM, signal.SIGKILL]
    deadline, killed = 0.0, None
    while True:
        codes = [process.poll() for process in processes]
        if len(pressing) == 2 and killed is None:
            killed = next((rank for rank, code in enumerate(codes) if code is not None and code < 0), None)
        if None not in codes:
            return [code for code in codes if code is not None], killed
        if not deadline and any(codes):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline and time.monotonic() > deadline and pressing:
            deadline = time.monotonic() + GRACE_SECONDS
            tell(pressing.pop(0))
        time.sleep(POLL_SECONDS)


def _ending(codes: Sequence[int], killed: int | None, say: Callable[[str], None]) -> int:
    """The code of the processes that ended by themselves, or what the signal means that ended them."""
    own = next((code for code in codes if code > 0), None)
    if killed is None:
        return ExitCode.DONE if own is None else own
    if (meaning := BY_SIGNAL.get(codes[killed])) is not None:  # it had not begun to listen to it
        return meaning if own is None else own
    which = f"process {killed + 1} of {len(codes)} was killed by {signal.Signals(-codes[killed]).name}"
    say(f"{which}, and so the others ended too; resume with: train --resume RUN")
    return ExitCode.RUN_FAILED


@contextmanager
def _signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
