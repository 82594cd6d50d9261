"""Which process a run belongs to, and whether that process still lives."""

import os
import socket
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, pid and start time: together they name a process even after its pid is used again."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": _started(os.getpid())}


def is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process still runs. One on another host cannot be asked, and counts as alive."""
    if owner.get("host") != socket.gethostname():
        return True
    pid = int(owner.get("pid") or 0)
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return owner.get("pid_started") in (None, _started(pid))


def _started(pid: int) -> str | None:
    """The process's start in clock ticks since boot, where /proc tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5); the command name may hold spaces
