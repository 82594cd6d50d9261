"""The run's files at the service: what is sent, in how many pieces, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Fault, Loopback, Request, Response, status
from tests.openai_runs import (
    Settings,
    environment,
    is_post,
    loopback,
    quiet,
    rows,
    run_to_end,
    settings,
    snapshot,
    tuning,
)
from tests.tuning import Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.errors import BackendError, DataError
from trainer.runs import Run, create_run

__all__ = ["environment", "loopback", "settings", "tuning"]


def test_rows_are_uploaded_as_they_are_without_blank_lines(settings: Settings, tuning: Tuning, tmp_path: Path) -> None:
    run_to_end(settings())
    expected = b"".join(line for line in (tmp_path / "train.jsonl").read_bytes().splitlines(True) if line.strip())
    assert tuning.contents["file-1"] == expected


def test_a_byte_order_mark_is_written_where_it_is_asked_for(settings: Settings, tuning: Tuning) -> None:
    run_to_end(settings("openai.file_bom=true"))
    assert tuning.contents["file-1"].startswith(b"\xef\xbb\xbf{")


def test_a_file_that_is_refused_names_the_row(settings: Settings, tuning: Tuning, tmp_path: Path) -> None:
    tuning.file_states = ["pending", "error"]
    with pytest.raises(BackendError, match=r"invalid schema at line 2 \(.*train\.jsonl:3\); correct the rows"):
        run_to_end(settings())
    assert Run(tmp_path / "runs" / "one").state == "failed"
    assert tuning.jobs == {}


def test_changed_rows_are_not_uploaded(settings: Settings, loopback: Loopback, tmp_path: Path) -> None:
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    rows(tmp_path / "train.jsonl", 13)
    with pytest.raises(DataError, match="has changed since the run was checked"):
        backend.launch(plan, run, quiet)


def test_a_url_is_fetched_checked_and_imported_and_never_shown(
    settings: Settings, tuning: Tuning, loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.azure = True
    content = (tmp_path / "train.jsonl").read_bytes()
    (tmp_path / "train.jsonl").unlink()
    monkeypatch.setenv("ROWS", f"{loopback.url}/blob/train.jsonl?sig=canary-secret")
    own = tuning.__call__

    def with_blob(request: Request) -> Any:
        if request.path == "/blob/train.jsonl":
            return Response(200, content)
        if request.path.endswith("/files/import"):
            made = own(request)
            tuning.files[made.body["id"]]["bytes"] = len(content)
            return made
        return own(request)

    loopback.handler = with_blob
    said: list[str] = []
    backend = OpenAIService()
    plan = backend.check(settings("openai.train_url_variable=ROWS", service="azure"), said.append)
    assert (tmp_path / "train.jsonl").read_bytes() == content
    run = create_run(plan.config)
    refusing = status(400, {"error": {"code": "BadUrl", "message": f"cannot read {os.environ['ROWS']}"}})
    loopback.faults = [Fault("echo", match=is_post("/files/import"), answer=refusing)]
    with pytest.raises(BackendError, match=r"cannot read \(the URL\)") as refused:
        backend.launch(plan, run, said.append)
    backend.resume(run, said.append)
    assert len(tuning.jobs) == 1
    told = [str(refused.value), *said, *(text.decode(errors="replace") for text in snapshot(run).values())]
    assert not [text for text in told if "canary-secret" in text]


def test_a_large_file_goes_in_parts_and_a_lost_part_is_sent_again(
    settings: Settings, tuning: Tuning, loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.backends.openai.upload.LARGE_BYTES", 100)
    monkeypatch.setattr("trainer.backends.openai.upload.PART_BYTES", 512)
    loopback.faults = [Fault("lost", match=is_post("/parts"), commits=True, broken="reset")]
    run = run_to_end(settings())
    expected = b"".join(line for line in (tmp_path / "train.jsonl").read_bytes().splitlines(True) if line.strip())
    assert tuning.contents["file-1"] == expected
    assert len(expected) > 1024
    assert run.state == "succeeded"
    assert len(tuning.files) == 2


@pytest.mark.parametrize("broken", ["reset", "truncated"])
def test_a_lost_completion_makes_no_second_file(
    broken: Any, settings: Settings, tuning: Tuning, loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.backends.openai.upload.LARGE_BYTES", 100)
    loopback.faults = [Fault("lost", match=is_post("/complete"), commits=True, broken=broken)]
    run_to_end(settings())
    assert len(tuning.files) == 2
