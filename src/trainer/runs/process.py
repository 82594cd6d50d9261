"""Processes: which one a run belongs to, whether it still lives, and what this one may use of the machine."""

import os
import resource
from itertools import takewhile
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """An identity of this process that holds after its pid is reused, and on a folder that machines share."""
    return process_of(os.getpid())


def process_of(pid: int) -> dict[str, Any]:
    """Host, pid and start time of a process of ours; boot and pid namespace, without which a pid means nothing."""
    named = {"host": os.uname().nodename, "pid": pid, "pid_started": _started(pid)} | _surroundings()
    return {key: value for key, value in named.items() if value is not None}


def is_here(owner: dict[str, Any]) -> bool:
    """True of a process that its pid identifies here: of this host, boot and pid namespace.

    Containers may share a host's name and a folder, and see none of each other's processes.
    """
    return owner.get("host") == os.uname().nodename and all(
        owner.get(key, value) == value for key, value in _surroundings().items()
    )


def is_alive(owner: dict[str, Any]) -> bool:
    """True while the process runs, and of one that cannot be looked up from here unless its boot is over."""
    if not is_here(owner):
        boot = _surroundings()["boot_id"]
        return owner.get("host") != os.uname().nodename or owner.get("boot_id", boot) == boot
    pid = number_of(owner.get("pid"))
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return owner.get("pid_started") in (None, _started(pid))


def _started(pid: int) -> str | None:
    """The process's start in clock ticks since boot, where /proc tells; empty when it has ended and not been reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from field 3 of proc(5) on; the command name may hold spaces
    return "" if fields[0] == "Z" else fields[19]


def number_of(value: object) -> int:
    """A pid of a file that a person or a fault may have changed; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0


def _surroundings() -> dict[str, str | None]:
    return {"boot_id": _read("/proc/sys/kernel/random/boot_id"), "pid_namespace": _pid_namespace()}


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc/self")
DEVICES = Path("/dev")


def usable_cores() -> int:
    """The cores that this process may run on, or the time of as many that its container may take."""
    return max(1, min([len(usable_cpus()), *_quotas()]))


def usable_cpus() -> list[int]:
    """The numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, in the words of CUDA_VISIBLE_DEVICES; loads no library."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number, _ in enumerate(DEVICES.glob("nvidia[0-9]*"))]
    words = [word.strip() for word in named.split(",")]
    return list(takewhile(lambda word: word and not word.startswith("-"), words))  # as CUDA reads it


def address_space_bytes() -> int:
    """Mapped address space of this process; 0 where the system does not say."""
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
