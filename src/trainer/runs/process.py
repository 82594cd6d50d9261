"""Which process a run belongs to, and whether that process still lives."""

import os
import socket
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, pid and start time: together they name a process even after its pid is used again."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": _started(os.getpid())}


def is_here(owner: dict[str, Any]) -> bool:
    """Whether the process is, or was, one of this host."""
    return owner.get("host") == socket.gethostname()


def is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process still runs. One on another host cannot be asked, and counts as alive."""
    if not is_here(owner):
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
    """The process's start in clock ticks since boot, where /proc tells; empty when it has ended and not been reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from field 3 of proc(5) on; the command name may hold spaces
    return "" if fields[0] == "Z" else fields[19]
