"""Manifests of runs that are not trained for a test."""

from dataclasses import replace
from typing import Any

from trainer.runs import Run
from trainer.runs.manifest import DataFile, Launch, Manifest, PinnedBase, RowCounts

LAUNCH = Launch(token="abc", family="gpt-4.1-mini", uploads=(), tokens_counted="exactly")


def manifest(**changes: Any) -> Manifest:
    """A whole manifest; `changes` are its fields."""
    whole = Manifest(
        trainer_version="0.1.0",
        data=(),
        system_prompt=None,
        tools=(),
        python="3.11.7",
        packages={"torch": "2.13.0"},
        git_revision=None,
        base=PinnedBase("builtin:tiny", None, "x" * 64),
        parent=None,
        template_sha256="5" * 64,
        rows=RowCounts(20, 8),
        num_tokens=1000,
        num_supervised_tokens=300,
        seed=1,
        dtype="bfloat16",
        device="CPU (x86_64, 1 threads)",
    )
    return replace(whole, **changes)


def rewrite(run: Run, **changes: Any) -> Manifest:
    """Write the run's manifest with other fields; returns the one before."""
    before = run.manifest()
    run.write_manifest(replace(before, **changes))
    return before


def data_file(path: str, role: Any = "validation", sha256: str = "9" * 64, rows: int = 8) -> DataFile:
    """An entry of a manifest's data."""
    return DataFile(path, role, sha256, rows)
