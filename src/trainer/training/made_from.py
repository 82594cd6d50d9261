"""What every run's manifest says of what it was made from, wherever it is trained."""

import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

from trainer.child_environment import harmless_environment
from trainer.data.conversations import Conversation
from trainer.data.read.sources import DataFile


def made_from(files: Sequence[DataFile], rows: Sequence[Conversation], packages: Iterable[str]) -> dict[str, Any]:
    """The files, what most of the training rows begin with, and the programs that read them."""
    return {
        "trainer_version": metadata.version("azure-llm-trainer"),
        "data": [
            {"path": file.path, "role": file.role, "sha256": file.sha256, "rows": file.rows, "weight": file.weight}
            for file in files
        ],
        "system_prompt": usual_prompt(rows),
        "tools": usual_tools(rows),
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        "git_revision": _git_revision(),
    }


def usual_prompt(rows: Sequence[Conversation]) -> str | None:
    """The system prompt of most training rows: what chatting with the result starts with."""
    prompts = Counter(message.content for row in rows if (message := row.messages[0]).role in ("system", "developer"))
    return prompts.most_common(1)[0][0] if prompts.total() * 2 > len(rows) else None


def usual_tools(rows: Sequence[Conversation]) -> list[dict[str, Any]]:
    """The tools of most training rows, which chatting with the result offers."""
    lists = {id(row.tools): row.tools for row in rows}  # equal ones are one
    usual, number = Counter(id(row.tools) for row in rows).most_common(1)[0]
    return [dict(tool) for tool in lists[usual]] if number * 2 > len(rows) else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env=harmless_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
