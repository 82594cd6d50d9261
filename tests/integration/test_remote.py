"""The openai backend against a real `trainer api`: from a laptop to somebody else's machine, and the adapter home."""

import hashlib
import json
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopback import FAULTS, Kill, Request
from tests.remote import RUN, Remote, begin_again, remote
from trainer.api.results import ADAPTER_NAME
from trainer.backends.openai import adapter_home
from trainer.inference.trained import trained_adapter
from trainer.runs.ledger import Ledger

LAUNCH = ("train", "--config", "config.yaml", "--yes", "--detach")
FOLLOW = ("train", "--resume", RUN)


def wants(method: str, ending: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and request.path.endswith(ending)


def posts(request: Request) -> bool:
    return request.method == "POST"


LAUNCHING = {
    "models": wants("GET", "/models"), "a file": wants("POST", "/files"), "the job": wants("POST", "/fine_tuning/jobs"),
}  # fmt: skip
FOLLOWING = {
    "the job": lambda request: "/fine_tuning/jobs/ftjob-" in request.path and request.path.count("/") == 4,
    "events": wants("GET", "/events"), "checkpoints": wants("GET", "/checkpoints"),
    "a result": lambda request: request.path.startswith("/v1/files/file-") and not request.path.endswith("/content"),
    "content": wants("GET", "/content"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with remote(tmp_path_factory.mktemp("remote")) as found:
        yield found


@pytest.fixture(scope="module")
def done(made: Remote) -> Remote:
    """A job that has ended, of a run that does not know it yet; its folder is kept."""
    begin_again(made)
    launched = made.command(*LAUNCH)
    assert launched.code == 0, launched.err
    made.finish(made.jobs()[0])
    shutil.copytree(made.folder / "runs", made.folder / "launched")
    return made


def test_rows_go_and_the_adapter_comes_home(done: Remote) -> None:
    begin_again(done, done.folder / "launched")
    job = done.jobs()[0]
    for role, file in (("train", job.training_file), ("validation", job.validation_file)):
        assert file is not None
        assert job.data_path(file).read_bytes() == (done.folder / f"{role}.jsonl").read_bytes()
    told = done.command(*FOLLOW)
    assert told.code == 0, told.err
    theirs, ours = job.run.adapter, done.run.adapter
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == {
        path.name: path.read_bytes() for path in theirs.iterdir()
    }
    assert trained_adapter(done.run) == ours
    assert done.run.results() == job.run.results()
    assert (done.run.state, done.run.status()["fine_tuned_model"]) == ("succeeded", job.model_name)
    assert [entry.thing.kind for entry in Ledger(done.run.path).billing()] == []
    exported = done.command("export", RUN, "--output", "out")
    assert exported.code == 0, exported.err


def test_a_check_says_what_it_is_and_asks_for_no_price(made: Remote) -> None:
    begin_again(made)
    before = len(made.jobs())
    checked = made.command(*LAUNCH[:3], "--check")
    assert checked.code == 0, checked.err
    assert "the server's owner pays" in checked.err
    assert len(made.jobs()) == before
    refused = made.command(*LAUNCH[:3], "--check", "backend.spend_cap=5", "openai.training_price=1", "lora.r=8")
    assert refused.code == 2
    assert sorted(error.split(": ")[1] for error in refused.errors) == [
        "backend.spend_cap", "lora.r", "openai.training_price",
    ]  # fmt: skip
    unknown = made.command(*LAUNCH[:3], "--check", "model.base=unknown/model")
    assert (unknown.code, "is not a model of this service" in unknown.err) == (2, True), unknown.err


def test_rows_that_cannot_be_trained_fail_the_job_with_their_lines(made: Remote) -> None:
    begin_again(made)
    rows = made.folder / "train.jsonl"
    before = rows.read_bytes()
    try:
        rows.write_bytes(before * 3 + json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode() + b"\n")
        refused = made.command(*LAUNCH)
        assert (refused.code, "train.jsonl:61" in refused.err) == (2, True), refused.err
    finally:
        rows.write_bytes(before)


@pytest.mark.parametrize("change", ["cut", "another byte", "a path outside"])
def test_an_adapter_that_is_not_what_was_stored_is_no_adapter(
    change: str, done: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_again(done, done.folder / "launched")
    download = adapter_home._download  # the bytes as they arrive

    def changed(service: object, file_id: str, target: Path) -> str:
        told = download(service, file_id, target)  # type: ignore[arg-type]
        content = bytearray(target.read_bytes())
        if change == "cut":
            del content[-100:]
        elif change == "another byte":
            content[len(content) // 2] ^= 1
        else:
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr("../../escaped.json", "{}")
            return told
        target.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    monkeypatch.setattr(adapter_home, "_download", changed)
    if change == "a path outside":
        monkeypatch.setattr(adapter_home, "_hold", lambda *arguments: None)
    told = done.command(*FOLLOW)
    assert (told.code, len(told.errors), done.run.adapter.exists()) == (1, 1, False), told.err
    assert ADAPTER_NAME in told.errors[0]
    assert not list(done.folder.rglob("escaped.json"))
    assert [path.name for path in done.run.path.iterdir() if path.name.endswith(".tmp")] == []
    monkeypatch.undo()
    assert done.command(*FOLLOW).code == 0
    assert done.run.state == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("what", LAUNCHING)
def test_every_fault_of_a_launch_leaves_one_job(what: str, made: Remote) -> None:
    wrong = []
    for fault in FAULTS:
        begin_again(made)
        made.wire.faults = [fault.fresh(LAUNCHING[what])]
        first = made.command(*LAUNCH)
        problems = _told(first.code, first.errors, first.has_traceback)
        made.wire.faults = []
        if first.code and made.run.path.exists() and made.run.state != "failed":
            again = made.command("train", "--resume", RUN, "--detach")
            problems += [] if again.code == 0 else [again.err[-300:]]
        problems += [f"doubles {made.doubles()}"] if made.doubles() else []
        wrong += [(what, fault.name, problems)] if problems else []
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("what", FOLLOWING)
def test_every_fault_while_a_job_is_followed_ends_with_its_adapter(what: str, done: Remote) -> None:
    wrong = []
    for fault in FAULTS:
        begin_again(done, done.folder / "launched")
        done.wire.faults = [fault.fresh(FOLLOWING[what])]
        first = done.command(*FOLLOW)
        problems = _told(first.code, first.errors, first.has_traceback)
        done.wire.faults = []
        last = first if first.code == 0 else done.command(*FOLLOW)
        if last.code or not adapter_home.has_weights(done.run):
            problems.append(f"not mended: {last.err[-300:]}")
        wrong += [(what, fault.name, problems)] if problems else []
    assert wrong == []


def _told(code: int, errors: list[str], has_traceback: bool) -> list[str]:
    if has_traceback or (code != 0) != (len(errors) == 1):
        return [f"code {code} with {errors}"]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_launch_that_is_killed_at_any_of_its_requests_ends_with_one_job(after: bool, made: Remote) -> None:
    for number in range(1, 4):
        begin_again(made)
        seen = [0]

        def is_next(request: Request, number: int = number, seen: list[int] = seen) -> bool:
            seen[0] += posts(request)
            return posts(request) and seen[0] == number

        process = made.start(*LAUNCH)
        made.wire.kills = [Kill(is_next, after, lambda process=process: process.pid)]  # type: ignore[misc]
        assert process.wait(timeout=180) == -signal.SIGKILL
        made.wire.kills = []
        before = len(made.jobs())
        again = made.command("train", "--resume", RUN, "--detach")
        assert again.code == 0, again.err
        assert made.doubles() == {}
        assert len(made.jobs()) - before == (0 if after and number == 3 else 1)
