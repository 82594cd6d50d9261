"""`trainer export` as a user runs it: what it prints, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trainer.runs import Run


def export(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "export", *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.long
def test_an_export_prints_its_folder_and_says_how_close_it_is(tuned: Run, tmp_path: Path) -> None:
    done = export(tuned.path, "--output", tmp_path / "out", "--merge")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}\n")
    said = [line for line in done.stderr.splitlines() if line.partition(" ")[0] in ("rows", "drift", "answers", "loss")]
    assert [line.split()[0] for line in said] == ["rows", "drift", "answers", "loss"]
    assert said[0] == "rows     4 of validation.jsonl"


@pytest.mark.long
def test_drift_beyond_the_bound_exits_with_1(tuned: Run, tmp_path: Path) -> None:
    words = ("--output", tmp_path / "out", "--merge", "--dtype", "bfloat16", "--max-drift", "1e-9")
    done = export(tuned.path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: run {tuned.name!r}: drift is " in done.stderr
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "no such run": (["nowhere", "--output", "{out}"], "error: run 'nowhere': not found in 'runs'"),
    "a folder that exists": (
        ["{run}", "--output", "{run}"],
        "exists, expected a new folder; choose another or remove it",
    ),
    "a format for an adapter": (
        ["{run}", "--output", "{out}", "--dtype", "float16"],
        "error: --dtype: given without --merge, expected with it; an adapter keeps its number format",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_exits_with_2_and_is_told_in_words(tuned: Run, tmp_path: Path, name: str) -> None:
    words, reason = MISTAKES[name]
    done = export(*(word.format(run=tuned.path, out=tmp_path / "out") for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []
