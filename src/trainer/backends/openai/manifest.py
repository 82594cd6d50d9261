"""What a run was made from, in the words of every run's manifest, and what its launch needs to be taken up again."""

from dataclasses import asdict
from typing import Any

from trainer.backends.openai.bases import Base
from trainer.backends.openai.client import Service
from trainer.backends.openai.data import Checked, Upload
from trainer.backends.openai.limits import seed_of
from trainer.backends.openai.names import new_token
from trainer.config.schema import RunConfig
from trainer.runs import Run
from trainer.training.made_from import made_from

PACKAGES = ("openai", "azure-identity", "azure-mgmt-cognitiveservices", "tiktoken")


def build_manifest(config: RunConfig, base: Base, checked: Checked, service: Service) -> dict[str, Any]:
    """The manifest of a run that is about to start; its token is new."""
    rows, settings = checked.report, config.openai
    return made_from(checked.files, rows.conversations, PACKAGES) | {
        "token": new_token(),
        "base": {"name": base.model, "revision": None, "weights_sha256": None},
        "family": base.family,
        "parent": None if base.parent is None else {"run": base.parent[0], "step": base.parent[1]},
        "template_sha256": None,
        "uploads": [asdict(upload) for upload in checked.uploads],
        "rows": {"train": len(rows.conversations), "validation": len(rows.validation)},
        "overlength": [],
        "num_tokens": checked.train.num_tokens,
        "num_supervised_tokens": checked.train.num_supervised,
        "tokens_counted": checked.train.how,
        "seed": seed_of(config),
        "dtype": "the service's own numbers",
        "device": f"{service.place}, {settings.training_type or settings.service}",
        "num_processes": 1,
    }


def uploads_in(run: Run) -> list[Upload]:
    """The files that the run was checked with."""
    return [Upload(**entry | {"paths": tuple(entry["paths"])}) for entry in run.manifest()["uploads"]]
