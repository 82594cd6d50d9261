"""The state of an optimizer is put back into the parameters that it is of, and into no others."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.errors import TrainingError
from trainer.training.writer import optimizer_tensors, restore_optimizer


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
