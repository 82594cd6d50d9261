"""The manifest of a run that is about to start: what every backend's says, and what training here adds."""

import hashlib
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypedDict

from trainer import __version__
from trainer.child_environment import harmless_environment
from trainer.data.conversations import Conversation
from trainer.runs.manifest import DataFile, LongRow, Manifest, ParentRun, RowCounts

if TYPE_CHECKING:
    from trainer.training.fingerprint import Fingerprint
    from trainer.training.prepare import Prepared

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")


class Shared(TypedDict):
    """The part of a manifest that is the same wherever a run is trained."""

    trainer_version: str
    data: tuple[DataFile, ...]
    rows: RowCounts
    system_prompt: str | None
    tools: tuple[dict[str, Any], ...]
    python: str
    packages: dict[str, str]
    git_revision: str | None


def shared(
    files: Sequence[DataFile], train: Sequence[Conversation], num_held_out: int, packages: Iterable[str]
) -> Shared:
    """The files, what most of the training rows begin with, and the programs that read them."""
    return Shared(
        trainer_version=__version__,
        data=tuple(files),
        rows=RowCounts(len(train), num_held_out),
        system_prompt=usual_prompt(train),
        tools=usual_tools(train),
        python=platform.python_version(),
        packages={name: version for name in packages if (version := _version(name))},
        git_revision=_git_revision(),
    )


def build_manifest(prepared: "Prepared", fingerprint: "Fingerprint") -> Manifest:
    """The manifest of a run that is trained here."""
    import torch

    from trainer.model.device import describe

    data, parent = prepared.data, prepared.parent
    return Manifest(
        **shared(data.files, data.train.conversations, len(data.validation), PACKAGES),
        base=prepared.base.pinned(),
        parent=None if parent is None else ParentRun(parent.run.name, parent.step),
        template_sha256=hashlib.sha256(str(prepared.tokenizer.chat_template).encode()).hexdigest(),
        overlength=tuple(LongRow(note.place, note.num_tokens, note.outcome) for note in data.touched),
        num_tokens=data.num_tokens,
        num_supervised_tokens=data.num_supervised,
        seed=prepared.plan.seed,
        dtype=str(prepared.dtype).removeprefix("torch."),
        device=describe(prepared.device),
        num_processes=prepared.ranks.size,
        attention=prepared.base.attention,
        weights=prepared.shares,
        num_threads=torch.get_num_threads(),
        fingerprint=fingerprint,
    )


def other_versions(manifest: Manifest, now: Manifest) -> list[str]:
    """Packages and devices in which this machine differs from the one that started the run."""
    before, after = (
        {"python": made.python, "device": made.device, "num_processes": made.num_processes} | dict(made.packages)
        for made in (manifest, now)
    )
    return [f"{name} {before.get(name)} is now {after[name]}" for name in after if before.get(name) != after[name]]


def usual_prompt(rows: Sequence[Conversation]) -> str | None:
    """The system prompt of most training rows: what chatting with the result starts with."""
    prompts = Counter(message.content for row in rows if (message := row.messages[0]).role in ("system", "developer"))
    return prompts.most_common(1)[0][0] if prompts.total() * 2 > len(rows) else None


def usual_tools(rows: Sequence[Conversation]) -> tuple[dict[str, Any], ...]:
    """The tools of most training rows, which chatting with the result offers."""
    lists = {id(row.tools): row.tools for row in rows}  # equal ones are one
    usual, number = Counter(id(row.tools) for row in rows).most_common(1)[0]
    return tuple(dict(tool) for tool in lists[usual]) if number * 2 > len(rows) else ()


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
