"""What a run was made from, in the words of every run's manifest, and what its launch needs to be taken up again."""

import platform
from collections import Counter
from dataclasses import asdict
from importlib import metadata
from typing import Any

from trainer.backends.openai.bases import Base
from trainer.backends.openai.client import Service
from trainer.backends.openai.data import Checked, Upload
from trainer.backends.openai.limits import seed_of
from trainer.backends.openai.names import new_token
from trainer.config.schema import RunConfig
from trainer.data.conversations import Conversation
from trainer.data.sources import sha256_of
from trainer.runs import Run

PACKAGES = ("openai", "azure-identity", "azure-mgmt-cognitiveservices", "tiktoken")


def build_manifest(config: RunConfig, base: Base, checked: Checked, service: Service) -> dict[str, Any]:
    """The manifest of a run that is about to start; its token is new."""
    rows, settings = checked.report, config.openai
    return {
        "trainer_version": metadata.version("azure-llm-trainer"),
        "token": new_token(),
        "base": {"name": base.model, "revision": None, "weights_sha256": None},
        "family": base.family,
        "parent": None if base.parent is None else {"run": base.parent[0], "step": base.parent[1]},
        "template_sha256": None,
        "data": [
            {"path": path, "role": upload.role, "sha256": sha256_of(path)}
            for upload in checked.uploads
            for path in upload.paths
        ],
        "uploads": [asdict(upload) for upload in checked.uploads],
        "rows": {"train": len(rows.conversations), "validation": len(rows.validation)},
        "overlength": [],
        "num_tokens": checked.train.num_tokens,
        "num_supervised_tokens": checked.train.num_supervised,
        "tokens_counted": checked.train.how,
        "system_prompt": _system_prompt(rows.conversations),
        "tools": _tools(rows.conversations),
        "seed": seed_of(config),
        "dtype": "the service's own numbers",
        "device": f"{service.place}, {settings.training_type or settings.service}",
        "num_processes": 1,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "git_revision": None,
    }


def uploads_in(run: Run) -> list[Upload]:
    """The files that the run was checked with."""
    return [Upload(**entry | {"paths": tuple(entry["paths"])}) for entry in run.manifest()["uploads"]]


def _system_prompt(rows: list[Conversation]) -> str | None:
    """The most common system prompt of the training rows: what chatting with the result starts with."""
    firsts = [row.messages[0] for row in rows]
    prompts = [message.content for message in firsts if message.role in ("system", "developer")]
    return max(prompts, key=prompts.count) if len(prompts) * 2 > len(rows) else None


def _tools(rows: list[Conversation]) -> list[dict[str, Any]]:
    """The tools of most training rows, which chatting with the result offers."""
    lists = {id(row.tools): row.tools for row in rows}  # equal ones are one
    usual, number = Counter(id(row.tools) for row in rows).most_common(1)[0]
    return [dict(tool) for tool in lists[usual]] if number * 2 > len(rows) else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
