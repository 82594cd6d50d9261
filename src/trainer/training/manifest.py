"""What a run was made from: enough to make it again."""

import hashlib
import platform
import subprocess
from collections import Counter
from importlib import metadata
from typing import Any

from trainer.child_environment import harmless_environment
from trainer.model.device import describe
from trainer.training.prepare import Prepared

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")


def build_manifest(prepared: Prepared) -> dict[str, Any]:
    """The manifest of a run that is about to start."""
    import torch

    config, data = prepared.config, prepared.data
    return {
        "trainer_version": metadata.version("azure-llm-trainer"),
        "base": prepared.base.identity(),
        "parent": None if prepared.parent is None else {"run": prepared.parent.run.name, "step": prepared.parent.step},
        "template_sha256": hashlib.sha256(str(prepared.tokenizer.chat_template).encode()).hexdigest(),
        "data": [
            {"path": path, "role": role, "sha256": data.digests[path]}
            for role, paths in (
                ("train", [source.path for source in config.data.train_sources]),
                ("validation", config.data.validation_paths),
            )
            for path in paths
        ],
        "rows": {"train": len(data.train), "validation": len(data.validation)},
        "overlength": [
            {"place": note.place, "tokens": note.num_tokens, "outcome": note.outcome} for note in data.touched
        ],
        "num_tokens": data.num_tokens,
        "num_supervised_tokens": data.num_supervised,
        "system_prompt": _system_prompt(prepared),
        "tools": _tools(prepared),
        "seed": prepared.plan.seed,
        "dtype": str(prepared.dtype).removeprefix("torch."),
        "attention": prepared.base.attention,
        "device": describe(prepared.device),
        "num_threads": torch.get_num_threads(),
        "num_processes": prepared.ranks.size,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "git_revision": _git_revision(),
    }


def other_versions(manifest: dict[str, Any], prepared: Prepared) -> list[str]:
    """In which packages and devices this machine differs from the one that the run started on."""
    now = build_manifest(prepared)
    before, after = (
        {name: made.get(name) for name in ("python", "device", "num_processes")} | made["packages"]
        for made in (manifest, now)
    )
    return [f"{name} {before.get(name)} is now {after.get(name)}" for name in after if before.get(name) != after[name]]


def _system_prompt(prepared: Prepared) -> str | None:
    """The most common system prompt of the training rows: what chatting with the result starts with."""
    rows = prepared.data.train.conversations
    prompts = Counter(message.content for row in rows if (message := row.messages[0]).role in ("system", "developer"))
    return prompts.most_common(1)[0][0] if prompts.total() * 2 > len(rows) else None


def _tools(prepared: Prepared) -> list[dict[str, Any]]:
    """The tools of most training rows, which chatting with the result offers."""
    rows = prepared.data.train.conversations
    lists = {id(row.tools): row.tools for row in rows}  # equal ones are one
    usual, count = Counter(id(row.tools) for row in rows).most_common(1)[0]
    return [dict(tool) for tool in lists[usual]] if count * 2 > len(rows) else []


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
