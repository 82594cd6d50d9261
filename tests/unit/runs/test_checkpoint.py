"""Checkpoints: what counts as whole, what is passed over, what rotation never touches."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.errors import TrainingError
from trainer.runs import checkpoint, files
from trainer.runs.checkpoint import Checkpoint, list_checkpoints, newest_complete, rotate, write

CONTENT = {"adapter.safetensors": bytes(range(256)) * 4, "optimizer.safetensors": b"\x00" * 700, "empty": b""}


def steps(folder: Path) -> list[int]:
    return [found.step for found in list_checkpoints(folder)]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    made = write(tmp_path, 7, CONTENT, {"step": 7, "rate": 0.1})
    assert made.path == tmp_path / "step-00000007"
    assert made.problem() is None
    assert {name: (made.path / name).read_bytes() for name in CONTENT} == CONTENT
    assert made.state() == {"step": 7, "rate": 0.1}
    assert newest_complete(tmp_path) == (made, [])


@pytest.mark.parametrize("name", [*CONTENT, checkpoint.STATE, checkpoint.MANIFEST])
def test_every_missing_file_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, CONTENT, {})
    newer = write(tmp_path, 2, CONTENT, {})
    (newer.path / name).unlink()
    found, passed_over = newest_complete(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(passed_over) == 1
    assert passed_over[0].startswith(f"checkpoint step-00000002 is passed over: {name} is missing")


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "optimizer.safetensors", checkpoint.STATE, checkpoint.MANIFEST]
)
def test_a_flipped_or_cut_byte_anywhere_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, CONTENT, {"earlier": True})
    newer = write(tmp_path, 2, CONTENT, {"some": "state", "rng": list(range(50))})
    file = newer.path / name
    whole, chosen = file.read_bytes(), random.Random(name)
    for _ in range(50):
        at = chosen.randrange(len(whole))
        damages = (whole[:at] + bytes([whole[at] ^ 1 << chosen.randrange(8)]) + whole[at + 1 :], whole[:at])
        for damaged in damages:
            file.write_bytes(damaged)
            found, passed_over = newest_complete(tmp_path)
            assert found is not None
            assert found.step == 1, (name, at)
            assert passed_over[0].startswith(f"checkpoint step-00000002 is passed over: {name} ")
    file.write_bytes(whole)
    assert newer.problem() is None


def test_any_order_in_which_a_mount_shows_the_files_is_no_checkpoint_until_all_are_there(tmp_path: Path) -> None:
    """Object stores behind a mount show files late and in any order, also halves of them."""
    source = write(tmp_path / "written", 3, CONTENT, {"step": 3})
    names = sorted(path.name for path in source.path.iterdir())
    for seed in range(40):
        order = random.Random(seed).sample(names, len(names))
        shown = tmp_path / f"mount-{seed}" / "step-00000003"
        shown.mkdir(parents=True)
        for name in order:
            data = (source.path / name).read_bytes()
            assert newest_complete(shown.parent)[0] is None
            (shown / name).write_bytes(data[: len(data) // 2] if data else b"another's")
            assert newest_complete(shown.parent)[0] is None
            (shown / name).write_bytes(data)
        assert newest_complete(shown.parent)[0] == Checkpoint(shown)


def test_writing_a_step_again_replaces_what_was_left_of_it(tmp_path: Path) -> None:
    torn = tmp_path / "step-00000005"
    torn.mkdir()
    (torn / "old").write_bytes(b"left over")
    made = write(tmp_path, 5, CONTENT, {})
    assert made.problem() is None
    assert not (torn / "old").exists()


def test_rotation_goes_by_step_and_not_by_clock(tmp_path: Path) -> None:
    for step in range(1, 7):
        made = write(tmp_path, step, CONTENT, {})
        hours = (2 - step) * 7200  # later steps look older, hours before and after now
        os.utime(made.path, (1_800_000_000 + hours, 1_800_000_000 + hours))
    rotate(tmp_path, newest=6, keep=2, protected={3})
    assert steps(tmp_path) == [3, 5, 6]


def test_a_folder_whose_name_is_no_step_is_no_checkpoint(tmp_path: Path) -> None:
    names = ("step-00000002", "step-\N{SUPERSCRIPT TWO}", "step-2x", "step-")
    for name in names:
        (tmp_path / name).mkdir()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [2]


def test_rotation_never_removes_the_newest_where_damaged_later_ones_lie_beside_it(tmp_path: Path) -> None:
    for step in (2, 4, 8, 9, 10):
        write(tmp_path, step, CONTENT, {})
    for step in (8, 9, 10):
        (checkpoint.folder_of(tmp_path, step) / checkpoint.MANIFEST).unlink()
    rotate(tmp_path, newest=4, keep=1, protected=())
    assert steps(tmp_path) == [4, 8, 9, 10]
    checkpoint.forget_after(tmp_path, 4)
    assert steps(tmp_path) == [4]


def test_a_checkpoint_that_is_read_is_not_rotated_away_until_its_reader_is_done_or_dead(tmp_path: Path) -> None:
    first, _, _ = (write(tmp_path, step, CONTENT, {}) for step in (1, 2, 3))
    with first.reading():
        rotate(tmp_path, newest=3, keep=1, protected=())
        assert steps(tmp_path) == [1, 3]
        assert first.problem() is None
    (first.path / "reader-dead.json").write_text(json.dumps({"host": os.uname().nodename, "pid": 2**22 + 1}))
    rotate(tmp_path, newest=3, keep=1, protected=())
    assert steps(tmp_path) == [3]


@pytest.mark.parametrize("failing", range(4))
def test_a_disk_that_fills_up_at_any_file_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    earlier = write(tmp_path, 1, CONTENT, {})
    original: Callable[[Path, bytes], None] = files.write_flushed
    calls = iter(range(100))

    def full(path: Path, data: bytes) -> None:
        if next(calls) == failing:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        original(path, data)

    monkeypatch.setattr(files, "write_flushed", full)
    with pytest.raises(TrainingError, match="cannot be written: No space left on device, expected free space"):
        write(tmp_path, 2, CONTENT, {})
    assert newest_complete(tmp_path) == (earlier, [])


def test_a_copy_under_another_steps_name_is_passed_over(tmp_path: Path) -> None:
    whole = write(tmp_path, 2, {"a.safetensors": b"a"}, {"step": 2})
    copy = checkpoint.folder_of(tmp_path, 9)
    shutil.copytree(whole.path, copy)
    found, passed_over = newest_complete(tmp_path)
    assert found == whole
    assert passed_over == [
        "checkpoint step-00000009 is passed over: it was written at step 2, and its folder has the name of another"
    ]
    content = {name: (copy / name).read_bytes() for name in ("a.safetensors", "state.json")}
    (copy / "MANIFEST.json").write_bytes(checkpoint.make_manifest(9, content))  # signed again
    assert newest_complete(tmp_path)[0] == whole
