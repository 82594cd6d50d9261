"""What a run was made from: enough to make it again."""

import hashlib
from typing import Any

from trainer.model.device import describe
from trainer.training.made_from import made_from
from trainer.training.prepare import Prepared

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")


def build_manifest(prepared: Prepared) -> dict[str, Any]:
    """The manifest of a run that is about to start."""
    import torch

    data = prepared.data
    return made_from(data.files, data.train.conversations, PACKAGES) | {
        "base": prepared.base.identity(),
        "parent": None if prepared.parent is None else {"run": prepared.parent.run.name, "step": prepared.parent.step},
        "template_sha256": hashlib.sha256(str(prepared.tokenizer.chat_template).encode()).hexdigest(),
        "rows": {"train": len(data.train), "validation": len(data.validation)},
        "overlength": [
            {"place": note.place, "tokens": note.num_tokens, "outcome": note.outcome} for note in data.touched
        ],
        "num_tokens": data.num_tokens,
        "num_supervised_tokens": data.num_supervised,
        "seed": prepared.plan.seed,
        "dtype": str(prepared.dtype).removeprefix("torch."),
        "attention": prepared.base.attention,
        "device": describe(prepared.device),
        "num_threads": torch.get_num_threads(),
        "num_processes": prepared.ranks.size,
    }


def other_versions(manifest: dict[str, Any], prepared: Prepared) -> list[str]:
    """In which packages and devices this machine differs from the one that the run started on."""
    now = build_manifest(prepared)
    before, after = (
        {name: made.get(name) for name in ("python", "device", "num_processes")} | made["packages"]
        for made in (manifest, now)
    )
    return [f"{name} {before.get(name)} is now {after.get(name)}" for name in after if before.get(name) != after[name]]
