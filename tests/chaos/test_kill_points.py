"""Killed at any file-system event, a run goes on by itself and ends with the same losses and the same adapter."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness import run_harness

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the library that kills"),
]


def check(summary: dict[str, Any], points: int) -> None:
    assert summary["failures"] == []
    assert summary["outcomes"] == {"same": points}
    assert summary["killed_twice"] == points // 10


def test_a_run_killed_at_points_all_over_its_life_ends_the_same() -> None:
    check(run_harness("--points", "10", timeout=550), 10)


@pytest.mark.parametrize("variant", ["unshared", "cut", "pairs"])
def test_also_where_rows_share_nothing_where_memory_ran_out_before_and_on_pairs(variant: str) -> None:
    check(run_harness("--variant", variant, "--points", "4", timeout=550), 4)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("variant", ["unshared", "cut", "pairs"])
def test_also_there_at_a_hundred_points(variant: str) -> None:
    check(run_harness("--variant", variant, "--points", "100", timeout=7000), 100)


def test_a_queue_whose_worker_is_killed_anywhere_starts_each_run_once() -> None:
    check(run_harness("--trainer", "queue", "--points", "20", timeout=550), 20)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_also_a_queue_killed_at_three_hundred_points() -> None:
    check(run_harness("--trainer", "queue", "--points", "300", timeout=7000), 300)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_run_killed_at_three_hundred_points_ends_the_same() -> None:
    check(run_harness("--points", "330", timeout=7000), 330)


def test_every_file_is_flushed_before_the_manifest_and_the_manifest_before_anything_is_deleted() -> None:
    events = run_harness("--events", timeout=300)["events"]
    for step in (2, 4, 6, 8):
        folder = f"/checkpoints/step-{step:08d}"
        own = [(kind, Path(path).name) for kind, path in events if path.startswith(folder)]
        written = [(kind, name) for kind, name in own if kind in ("write", "fsync")]
        until_manifest = written[: written.index(("write", "MANIFEST.json"))]
        files = {name for kind, name in until_manifest if kind == "write"}
        assert len(files) >= 7
        assert {name for kind, name in until_manifest if kind == "fsync"} == files | {Path(folder).name}
    manifest_is_safe = events.index(["fsync", "/checkpoints/step-00000006/MANIFEST.json"])
    first_deleted = next(number for number, (kind, path) in enumerate(events) if kind == "unlink" and "step-" in path)
    assert events[first_deleted] == ["unlink", "/checkpoints/step-00000002/MANIFEST.json"]
    assert first_deleted > manifest_is_safe
