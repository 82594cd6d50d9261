"""What this process may use of the machine, on Linux and macOS."""

import os
import resource
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc/self")


def usable_cores() -> int:
    """The cores that this process may run on, or the time of as many that its container may take."""
    return max(1, min([len(usable_cpus()), *_quotas()]))


def usable_cpus() -> list[int]:
    """The numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def address_space_bytes() -> int:
    """What this process has of its address space; 0 where nothing tells."""
    try:
        return int((PROC / "statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _quotas() -> list[int]:
    """Whole cores of each limit on processor time above this process: `cpu.max` of cgroups holds quota and period."""
    found = []
    for folder in _cgroups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            found.append(int(quota) // int(period))
    return found


def _cgroups() -> list[Path]:
    try:
        own = (PROC / "cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        return []
    folder = CGROUPS / own
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(CGROUPS))]
