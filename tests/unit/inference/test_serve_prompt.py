"""The call that a server prints for a run's own question."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import data_file, manifest
from trainer.inference.serve.trained_prompt import ready_call
from trainer.runs import Run
from trainer.runs.files import sha256_of

ASKED = {"role": "user", "content": "How many?"}
SYSTEM = {"role": "system", "content": "Count."}


def turn(answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [ASKED, {"role": "assistant", "content": answer, **more}]}


@pytest.mark.parametrize("rows", [[], [turn("One.", weight=0)]])
def test_without_a_trained_answer_there_is_no_call(
    rows: list[Any], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    """Such a file cannot be trained on, but it can be one's held-out rows; a server starts all the same."""
    assert call_of(rows, write_rows, tmp_path) is None


def test_the_first_row_with_a_trained_answer_and_the_trained_prompt_is_asked(
    write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    own = {"messages": [SYSTEM, {"role": "user", "content": "How much?"}, {"role": "assistant", "content": "Two."}]}
    untrained = {"messages": [SYSTEM, *turn("One.", weight=0)["messages"]]}
    assert "How much?" in str(call_of([untrained, turn("One."), own], write_rows, tmp_path))
    assert "How many?" in str(call_of([untrained, turn("One.")], write_rows, tmp_path))


def call_of(rows: list[Any], write_rows: Callable[..., Path], tmp_path: Path) -> str | None:
    path = write_rows(rows, "rows.jsonl")
    run = Run(tmp_path / "run")
    run.path.mkdir(exist_ok=True)
    data = (data_file(str(path), "validation", sha256_of(path)),)
    run.write_manifest(manifest(data=data, system_prompt=SYSTEM["content"]))
    return ready_call(run, "http://127.0.0.1:8000", "$KEY")
