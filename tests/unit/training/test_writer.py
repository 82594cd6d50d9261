"""What the writer stores is what was there when it got it, and what it stored is put back as it was."""

import json
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.errors import TrainingError
from trainer.runs.checkpoint import Checkpoint, folder_of, list_checkpoints, newest_complete
from trainer.training.writer import (
    CheckpointWriter,
    HostCopy,
    Snapshot,
    optimizer_tensors,
    restore_optimizer,
    restore_rng,
    rng_state,
)


def stepped(shape: tuple[int, ...]) -> tuple[torch.optim.Optimizer, dict[int, str]]:
    parameter = torch.nn.Parameter(torch.zeros(shape))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(shape)
    optimizer.step()
    return optimizer, {id(parameter): "a"}


def test_what_was_stored_is_put_back(tmp_path: Path) -> None:
    optimizer, names = stepped((2, 3))
    save_file(optimizer_tensors(optimizer, names), tmp_path / "optimizer.safetensors")
    other, its_names = stepped((2, 3))
    other.state.clear()
    restore_optimizer(other, its_names, tmp_path / "optimizer.safetensors")
    found, expected = optimizer_tensors(other, its_names), optimizer_tensors(optimizer, names)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in found)


def test_tensors_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_file(optimizer_tensors(*stepped((2, 4))), tmp_path / "optimizer.safetensors")
    with pytest.raises(TrainingError, match=r"a/exp_avg has the shape \(2, 4\), expected \(2, 3\); delete this"):
        restore_optimizer(*stepped((2, 3)), tmp_path / "optimizer.safetensors")


def test_tensors_of_a_parameter_that_is_not_trained_are_refused(tmp_path: Path) -> None:
    optimizer, names = stepped((2, 3))
    save_file(optimizer_tensors(optimizer, dict.fromkeys(names, "b")), tmp_path / "optimizer.safetensors")
    with pytest.raises(TrainingError, match=r"holds state of 'b/\w+', which this run does not train"):
        restore_optimizer(*stepped((2, 3)), tmp_path / "optimizer.safetensors")


def test_random_numbers_go_on_as_they_would_have() -> None:
    def draw() -> list[object]:
        normal = numpy.random.standard_normal(3).tolist()  # an odd number leaves one in the generator's hand
        return [random.random(), random.gauss(0, 1), normal, torch.rand(3).tolist()]

    draw()
    state = json.loads(json.dumps(rng_state(), allow_nan=False))
    expected = [draw(), draw()]
    restore_rng(state)
    assert [draw(), draw()] == expected


def test_a_host_copy_is_of_its_moment_and_uses_the_same_memory_again() -> None:
    weight, copy = torch.nn.Parameter(torch.zeros(3)), HostCopy()
    first = copy.take({"a": weight})["a"]
    with torch.no_grad():
        weight.add_(1)
    assert first.tolist() == [0, 0, 0]
    assert copy.take({"a": weight})["a"] is first
    assert (first.tolist(), first.requires_grad) == ([1, 1, 1], False)


def snapshot(step: int, weight: torch.Tensor, logs: Mapping[Path, int] | None = None) -> Snapshot:
    return Snapshot(step, {"a.safetensors": {"w": weight}}, {"text.json": b"{}"}, logs or {}, {"step": step})


def test_a_checkpoint_holds_what_was_there_when_it_was_submitted(tmp_path: Path) -> None:
    weight, log = torch.ones(2), tmp_path / "results.csv"
    log.write_bytes(b"step\n1\n")
    with CheckpointWriter(tmp_path / "checkpoints", lambda written: None) as writer:
        submitted = snapshot(4, weight, {log: log.stat().st_size})
        with log.open("ab") as file:
            file.write(b"2\n")
        writer.submit(submitted)
        weight.zero_()
    checkpoint = Checkpoint(folder_of(tmp_path / "checkpoints", 4))
    assert checkpoint.problem() is None
    assert load_file(checkpoint.path / "a.safetensors")["w"].tolist() == [1, 1]
    assert (checkpoint.path / "results.csv").read_bytes() == b"step\n1\n"
    assert (checkpoint.path / "text.json").read_bytes() == b"{}"
    assert checkpoint.state() == {"step": 4}


def test_checkpoints_are_written_one_after_the_other_and_told_when_they_are_whole(tmp_path: Path) -> None:
    told: list[tuple[int, str | None]] = []
    may_end = threading.Event()

    def written(snapshot: Snapshot) -> None:
        told.append((snapshot.step, Checkpoint(folder_of(tmp_path, snapshot.step)).problem()))
        assert may_end.wait(30)

    with CheckpointWriter(tmp_path, written) as writer:
        writer.submit(snapshot(1, torch.ones(2)))
        later = threading.Thread(target=lambda: [writer.submit(snapshot(step, torch.ones(2))) for step in (2, 3)])
        later.start()
        later.join(0.1)
        assert (later.is_alive(), [step for step, _ in told]) == (True, [1])
        may_end.set()
        later.join(30)
    assert told == [(1, None), (2, None), (3, None)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("file", "what"), [("adapter.safetensors", "weight"), ("optimizer.safetensors", "optimizer state")]
)
def test_what_is_not_finite_is_refused_by_the_next_call_and_earlier_checkpoints_stay(
    tmp_path: Path, file: str, what: str, value: float
) -> None:
    told: list[int] = []
    writer = CheckpointWriter(tmp_path, lambda written: told.append(written.step))
    writer.submit(snapshot(1, torch.ones(2)))
    writer.submit(Snapshot(2, {file: {"w": torch.tensor([1.0, value])}}, {}, {}, {}))
    with pytest.raises(TrainingError, match=f"step 2: the {what} w is not finite"):
        writer.submit(snapshot(3, torch.ones(2)))
    writer.wait()  # told once
    assert (told, [found.step for found in list_checkpoints(tmp_path)]) == ([1], [1])
    assert newest_complete(tmp_path) == (Checkpoint(folder_of(tmp_path, 1)), [])


def test_an_error_of_training_comes_before_one_of_the_writer(tmp_path: Path) -> None:
    def write(then: Callable[[], object]) -> None:
        with CheckpointWriter(tmp_path, lambda written: None) as writer:
            writer.submit(snapshot(1, torch.tensor(float("nan"))))
            then()

    with pytest.raises(TrainingError, match="not finite"):
        write(lambda: None)
    with pytest.raises(KeyError):
        write(lambda: {}["absent"])
