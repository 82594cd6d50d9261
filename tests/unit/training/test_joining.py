"""What processes of one run know of each other, as far as one alone can show it."""

import os

import pytest
import torch

from trainer.training.ranks import OutOfMemoryElsewhere, Ranks, join

LAUNCHED = {
    "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_USE_FSDP": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "PARALLELISM_CONFIG_TP_SIZE": "2", "MEGATRON_LM_PP_DEGREE": "2",
}  # fmt: skip


def test_nothing_is_left_of_what_the_launcher_of_accelerate_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join().size == 1
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert not LAUNCHED.keys() & os.environ.keys()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, OutOfMemoryElsewhere])
def test_what_ran_out_of_memory_has_no_result(error: type[Exception]) -> None:
    def compute() -> int:
        raise error

    assert Ranks().tried(compute) is None
    assert Ranks().tried(lambda: 7) == 7
    Ranks().will_come()  # alone there is nobody to wait for


def test_other_errors_are_nobody_elses() -> None:
    with pytest.raises(RuntimeError, match="another"):
        Ranks().tried(lambda: (_ for _ in ()).throw(RuntimeError("another")))
