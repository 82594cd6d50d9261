"""Models of the hub as this machine keeps them once they were fetched: no test asks the hub."""

import shutil
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetched(model: Path, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, commit: str = COMMIT) -> None:
    """Keep a copy of the folder `model` as the newest commit of the hub's model `name`, and look for bases there."""
    kept = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, kept / "snapshots" / commit)
    (kept / "refs").mkdir(exist_ok=True)
    (kept / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
