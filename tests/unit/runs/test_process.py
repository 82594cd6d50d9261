"""What this process may use, on machines that tell it in different ways."""

import os
from pathlib import Path

import pytest

from trainer.runs import process


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of cgroups in place of the machine's, on a machine of 8 cores."""
    monkeypatch.setattr(process, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1), ("3200000 100000", 8)]
)
def test_a_container_counts_as_many_cores_as_its_quota_is_worth(limits: Path, limit: str, expected: int) -> None:
    (limits / "cpu.max").write_text(f"{limit}\n")
    assert process.usable_cores() == expected


def test_without_an_affinity_and_without_proc_all_cores_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(process, "CGROUPS", tmp_path)
    assert process.usable_cores() == 6
    monkeypatch.setattr(process, "PROC", tmp_path / "none")
    assert (process.address_space_bytes(), process.usable_cores()) == (0, 6)


def test_the_address_space_is_told() -> None:
    assert process.address_space_bytes() > 1 << 20
