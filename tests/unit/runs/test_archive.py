"""An archive is exactly the checkpoint's files, of the size that was announced; a damaged file never arrives whole."""

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from trainer.errors import ConfigError, TrainingError
from trainer.runs.archive import archive_of
from trainer.runs.checkpoint import MANIFEST, Checkpoint, make_manifest, write

WEIGHTS = bytes(range(256)) * 9_000  # more than two blocks
CONTENT = {
    "adapter_model.safetensors": WEIGHTS,
    "adapter_config.json": b"{}",
    "optimizer.safetensors": b"\1" * 512,
    "results.csv": b"",
}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoint:
    return write(tmp_path, 12, CONTENT, {"step": 12})


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: (archive.extractfile(entry) or io.BytesIO()).read() for entry in archive}


def test_an_archive_holds_the_checkpoint_and_can_be_used_as_one(saved: Checkpoint, tmp_path: Path) -> None:
    archive = archive_of(saved, "my-run")
    data = b"".join(archive.blocks())
    assert len(data) == archive.num_bytes
    found = unpacked(data)
    assert found == {
        f"my-run-step-12-checkpoint/{path.name}": path.read_bytes() for path in saved.path.iterdir() if path.is_file()
    }
    copy = tmp_path / "copy" / "step-00000012"
    copy.mkdir(parents=True)
    for name, content in found.items():
        (copy / Path(name).name).write_bytes(content)
    assert Checkpoint(copy).problem() is None


def test_the_adapter_alone_is_what_peft_loads(saved: Checkpoint) -> None:
    archive = archive_of(saved, "my-run", adapter_only=True)
    assert archive.name == "my-run-step-12.tar"
    data = b"".join(archive.blocks())
    assert len(data) == archive.num_bytes
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert unpacked(data) == {f"my-run-step-12/{name}": CONTENT[name] for name in names}


@pytest.mark.parametrize("at", [0, len(WEIGHTS) // 2, len(WEIGHTS) - 1])
def test_a_damaged_file_ends_the_archive_before_its_last_block(saved: Checkpoint, at: int) -> None:
    file = saved.path / "adapter_model.safetensors"
    archive = archive_of(saved, "r", adapter_only=True)
    file.write_bytes(WEIGHTS[:at] + bytes([WEIGHTS[at] ^ 1]) + WEIGHTS[at + 1 :])
    sent = list[bytes]()
    with pytest.raises(TrainingError, match="differs from what was written"):
        sent.extend(archive.blocks())
    assert sum(map(len, sent)) < len(WEIGHTS)


def test_a_file_that_was_cut_short_ends_it_too(saved: Checkpoint) -> None:
    archive = archive_of(saved, "r")
    (saved.path / "adapter_model.safetensors").write_bytes(WEIGHTS[:-1])
    with pytest.raises(TrainingError, match="differs"):
        b"".join(archive.blocks())


def test_the_checkpoint_stays_while_it_is_sent_and_no_longer(saved: Checkpoint) -> None:
    blocks = archive_of(saved, "r").blocks()
    next(blocks)
    assert saved.is_read
    blocks.close()  # the client went away
    assert not saved.is_read
    b"".join(archive_of(saved, "r").blocks())
    assert not saved.is_read


def test_no_more_than_a_few_blocks_are_in_memory(tmp_path: Path) -> None:
    large = write(tmp_path, 1, CONTENT | {"adapter_model.safetensors": b"\2" * 40_000_000}, {})
    tracemalloc.start()
    for _ in archive_of(large, "r").blocks():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("name", ["weights.pkl", "../adapter.json", "folder/x.json", "code.py"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    saved = write(tmp_path, 1, CONTENT, {})
    (saved.path / MANIFEST).unlink()
    if "/" in name:
        (saved.path / name).parent.mkdir(exist_ok=True)
    (saved.path / name).write_bytes(b"x")
    (saved.path / MANIFEST).write_bytes(make_manifest(1, CONTENT | {name: b"x"}))
    with pytest.raises(ConfigError, match="expected files that end in"):
        archive_of(saved, "r")


def test_what_is_not_whole_or_holds_no_adapter_is_refused(saved: Checkpoint, tmp_path: Path) -> None:
    (saved.path / "optimizer.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"optimizer\.safetensors is missing, expected a complete checkpoint"):
        archive_of(saved, "r")
    of_a_service = write(tmp_path / "other", 3, {}, {"step": 3})
    with pytest.raises(ConfigError, match="holds no adapter"):
        archive_of(of_a_service, "r")


def test_a_list_compares_sizes_and_reads_no_file(saved: Checkpoint) -> None:
    (saved.path / "optimizer.safetensors").write_bytes(b"\3" * 512)
    assert saved.problem(reads=False) is None
    assert saved.problem() == "optimizer.safetensors differs from what was written"
    (saved.path / "optimizer.safetensors").write_bytes(b"\3" * 511)
    assert saved.problem(reads=False) == "optimizer.safetensors differs from what was written"
