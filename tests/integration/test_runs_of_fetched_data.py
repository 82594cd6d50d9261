"""A run whose data was fetched pins it, and resumes on the same rows or not at all, through the commands themselves."""

import gzip
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Done, performed
from tests.conftest import QUESTIONS
from tests.integration.test_fit import stop_at
from trainer.config import RunConfig
from trainer.config.load import dump_config
from trainer.errors import ExitCode
from trainer.runs import find_run
from trainer.runs.files import sha256_of

ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": said}]}) + "\n"
    for ask, said in QUESTIONS[:20]
).encode()


def command(*words: str) -> Done:
    return performed(words, lambda: 0.0)


def test_a_run_pins_what_it_fetched_and_resumes_on_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Callable[..., RunConfig]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    Path("rows.jsonl.gz").write_bytes(gzip.compress(ROWS))
    chosen = settings(data__train="rows.jsonl.gz", data__validation=None, run__name="pinned", evaluation__enabled=False)
    Path("config.yaml").write_text(dump_config(chosen))
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        assert command("train", "--config", "config.yaml").code == ExitCode.RESUMABLE
    run = find_run("pinned", tmp_path / "runs")
    (file,) = run.manifest().data
    assert file.origin is not None
    assert (file.origin.address, file.origin.sha256) == ("rows.jsonl.gz", sha256_of("rows.jsonl.gz"))
    assert Path(file.path).read_bytes() == ROWS
    assert Path(file.path).is_relative_to(tmp_path / "cache" / "sources")
    shutil.rmtree("cache")
    Path("rows.jsonl.gz").write_bytes(gzip.compress(ROWS[::-1]))
    refused = command("train", "--resume", "pinned")
    assert refused.code == ExitCode.BAD_INPUT
    assert refused.errors[0].startswith("error: rows.jsonl.gz: has changed since the run read it (sha256 ")
    Path("rows.jsonl.gz").write_bytes(gzip.compress(ROWS))
    resumed = command("train", "--resume", "pinned")
    assert resumed.code == 0, resumed.err
    assert find_run("pinned", tmp_path / "runs").state == "succeeded"
