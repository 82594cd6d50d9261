"""The copies of a run on a mount: whole files, in an order that never vouches for what is missing."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.azure_twin.mount import refusing
from tests.tiny_runs import train
from trainer.backends.azureml import copies
from trainer.backends.azureml.copies import FILES, Copies
from trainer.backends.azureml.node import write_files
from trainer.runs import Run, files, lock
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.lock import RunInUse
from trainer.runs.ownership import MARKER

pytestmark = pytest.mark.apart


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files in the order in which they reach the mount."""
    names: list[str] = []
    real = copies._copy

    def copy(source: Path, target: Path) -> None:
        names.append(target.name)
        real(source, target)

    monkeypatch.setattr(copies, "_copy", copy)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_mount_holds_what_the_node_holds_and_another_node_gets_it(trained: Run, tmp_path: Path) -> None:
    there = Copies(trained, tmp_path / "mount")
    assert there.finish()
    assert contents(tmp_path / "mount" / trained.name) == contents(trained.path)
    other = Run(tmp_path / "other" / trained.name)
    Copies(other, tmp_path / "mount").fetch(everything=True)
    assert contents(other.path) == contents(trained.path)


def test_files_of_a_finished_run_come_home_but_for_its_lock_and_marker(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "node" / trained.name)
    run = Run(tmp_path / "node" / trained.name)
    for name in (lock.NAME, "process.json", "request.json", "output.log", ".half.tmp", "reader-1.json"):
        (run.path / name).write_text("{}", encoding="utf-8")
    write_files(run)
    assert Copies(run, tmp_path / "mount").finish()
    listed = json.loads((tmp_path / "mount" / FILES).read_text(encoding="utf-8"))["files"]
    assert listed.keys() == contents(tmp_path / "mount" / run.name).keys() - {lock.NAME, MARKER}
    assert listed.keys() == contents(trained.path).keys() - {MARKER}


def test_a_file_that_vouches_for_others_comes_after_them(trained: Run, tmp_path: Path, written: list[str]) -> None:
    assert Copies(trained, tmp_path / "mount").update()
    first = min(number for number, name in enumerate(written) if name == "MANIFEST.json")
    assert {"MANIFEST.json", "status.json"} == set(written[first:])
    assert written[-1] == "status.json"


@pytest.mark.parametrize(
    ("act", "refused"),
    [
        ("path.write_bytes(b'x')", False),
        ("path.unlink()", False),
        ("path.rename(path.with_name('other'))", True),
        ("path.open('ab')", True),
        ("path.open('r+b')", True),
        ("__import__('os').replace(path.parent.parent / 'own', path)", True),
    ],
)
def test_the_mount_of_the_tests_takes_whole_files_only(tmp_path: Path, act: str, refused: bool) -> None:
    (tmp_path / "mount").mkdir()
    for name in ("mount/file", "own"):
        (tmp_path / name).write_text("x")
    environment = refusing([tmp_path / "mount"], tmp_path / "site", {})
    program = f"import pathlib; path = pathlib.Path({str(tmp_path / 'mount' / 'file')!r}); {act}"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ("Operation not permitted" in done.stderr, done.returncode != 0) == (refused, refused)


def test_only_changes_are_copied_and_what_is_gone_is_deleted(trained: Run, tmp_path: Path, written: list[str]) -> None:
    run = Run(tmp_path / "runs" / trained.name)
    Copies(run, trained.path.parent).fetch(everything=True)
    there = Copies(run, tmp_path / "mount")
    assert there.update()
    written.clear()
    assert there.update()
    assert written == []
    run.event("more")
    oldest = list_checkpoints(run.checkpoints)[0]
    oldest.delete()
    (run.path / "output.log").write_text("only here")
    assert there.update()
    assert written == ["events.jsonl"]
    assert list((tmp_path / "mount" / run.name / "checkpoints" / oldest.path.name).glob("*")) == []


def test_nothing_vouches_for_a_file_that_could_not_be_copied(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = copies._copy, [True]

    def copy(source: Path, target: Path) -> None:
        if broken[0] and target.name == "adapter_model.safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(copies, "_copy", copy)
    monkeypatch.setattr(copies, "WAIT_SECONDS", 0.0)
    there = Copies(trained, tmp_path / "mount")
    assert not there.finish()
    found = {path.name for path in (tmp_path / "mount").rglob("*")}
    assert {"MANIFEST.json", "status.json"} & found == set()
    broken[0] = False
    assert there.finish()
    assert contents(tmp_path / "mount" / trained.name) == contents(trained.path)


def test_another_rank_gets_the_records_and_the_newest_complete_checkpoint(trained: Run, tmp_path: Path) -> None:
    run, mount = Run(tmp_path / "runs" / trained.name), tmp_path / "mount"
    assert Copies(trained, mount).finish()
    newest = list_checkpoints(mount / trained.name / "checkpoints")[-1]
    (newest.path / "MANIFEST.json").unlink()
    complete = list_checkpoints(mount / trained.name / "checkpoints")[-2]
    Copies(run, mount).fetch(everything=False)
    assert [found.step for found in list_checkpoints(run.checkpoints)] == [complete.step]
    assert list_checkpoints(run.checkpoints)[0].problem() is None
    assert not run.adapter.exists()


def test_a_run_that_another_node_writes_is_left_to_it(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "mount"
    assert Copies(trained, mount).finish()
    other = {"host": "another", "pid": 7, "token": "x"}
    files.write_json(mount / trained.name / "lock.json", other | {"beat": 1})
    beats = iter(range(2, 99))
    real = files.read_record

    def beating(path: Path) -> dict[str, object]:
        found = real(path)
        return found | {"beat": next(beats)} if path.name == "lock.json" else found

    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1.0)
    again = Copies(Run(tmp_path / "runs" / trained.name), mount)
    again.fetch(everything=True)
    monkeypatch.setattr(files, "read_record", beating)
    with pytest.raises(RunInUse):
        again.fetch(everything=True)
