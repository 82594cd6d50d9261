"""Number of threads that compute on a CPU: as many as there are cores with nothing else to do.

Threads wait for one another at every layer, and keep their core busy while they wait. So one thread more than there are
free cores makes all of them wait for the one that shares its core, at several times the processor time.
"""

import os

from trainer.runs.process import usable_cores, usable_cpus

VARIABLE = "OMP_NUM_THREADS"
SAMPLE_SECONDS = 0.2

_chosen: list[int] = []  # once in a process: what follows a training computes with as many


def choose_threads(sharing: int = 1) -> None:
    """Set torch's threads; `sharing` processes of a run share the cores. OMP_NUM_THREADS is obeyed instead."""
    import torch

    if not _chosen and VARIABLE not in os.environ and torch.get_num_threads() > 1:
        _set(min(torch.get_num_threads(), max(1, _free_cores() // sharing)))


def use_threads(number: int) -> None:
    """As many as a run began with, since its last bits depend on it; fewer where the machine has not as many cores."""
    if VARIABLE not in os.environ:
        _set(min(number, usable_cores()))


def _set(number: int) -> None:
    import torch

    torch.set_num_threads(number)
    _chosen[:] = [number]


def _free_cores() -> int:
    """Measured while this process does nothing."""
    import psutil

    shares = psutil.cpu_times_percent(SAMPLE_SECONDS, percpu=True)
    idle = sum(shares[number].idle for number in usable_cpus() if number < len(shares)) / 100
    return min(usable_cores(), round(idle))
