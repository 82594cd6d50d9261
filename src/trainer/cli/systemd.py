"""A systemd user unit that works the queue of a folder of runs."""

import os
import sys
from pathlib import Path

NAME = "azure-llm-trainer-queue.service"
KEPT = ("PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "XDG_CACHE_HOME", "TRAINER_CACHE", "TRAINER_PROCESSES")  # no secrets


def unit_of(root: Path) -> str:
    """The unit for this installation and environment; keys and tokens are left out of it.

    Stopping the unit stops only the worker: started runs continue, and the next worker takes them over.
    """
    environment = [f"Environment={_quoted(f'{name}={os.environ[name]}')}" for name in KEPT if name in os.environ]
    command = " ".join(map(_argument, [sys.executable, "-m", "trainer", "queue", "work", "--root", str(root)]))
    lines = [
        "[Unit]",
        f"Description=Runs that wait in {_escaped(str(root))}",
        "",
        "[Service]",
        f"ExecStart={command}",
        *environment,
        "KillMode=process",
        "Restart=on-failure",
        "RestartSec=10",
        "RestartPreventExitStatus=2 75",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(inner)}"'


def _argument(text: str) -> str:
    """A word of a command line, where systemd also expands variables."""
    return _quoted(text.replace("$", "$$")) if set(text) & set(" \t\"'\\$%;") else text
