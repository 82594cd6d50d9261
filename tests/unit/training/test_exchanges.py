"""The exchanges of ranks: alone each is the identity, and two gloo processes come to the same."""

import os
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from trainer.errors import ConfigError
from trainer.runs import Run
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


def test_alone_every_exchange_is_the_identity(tmp_path: Path) -> None:
    ranks, run = Ranks(), Run(tmp_path)
    tensors = [torch.tensor([1.5, -2.0]), torch.tensor(7)]
    ranks.add_up(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[1.5, -2.0], 7]
    assert (ranks.gather("a"), ranks.most(-3), ranks.any(True), ranks.any(False)) == (["a"], -3, True, False)
    assert (ranks.is_first, ranks.first(lambda: "b")) == (True, "b")
    with ranks.own(run) as own:
        assert own is run


def in_two_processes(exchange: Callable[[Ranks], Any], folder: Path) -> list[Any]:
    """What `exchange` returns in each. They are forked: importing torch once more would take most of the time."""
    context = get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]

    def work(rank: int) -> None:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
        pipes[rank][1].send(exchange(Ranks(rank, 2)))
        distributed.barrier()  # neither leaves while the other still talks to it
        distributed.destroy_process_group()

    processes = [context.Process(target=work, args=(rank,), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        assert all(reading.poll(60) for reading, _ in pipes), "a process hangs, or failed"
        return [reading.recv() for reading, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


@pytest.mark.apart
def test_two_ranks_have_the_same_sums_and_the_values_of_both(tmp_path: Path) -> None:
    def exchange(ranks: Ranks) -> Any:
        tensors = [torch.full((2, 3), ranks.rank + 0.25), torch.tensor(ranks.rank + 2), torch.zeros(0)]
        ranks.add_up(tensors)
        flags = [ranks.any(flag) for flag in (False, ranks.rank == 1, True)]
        dtypes = [str(tensor.dtype) for tensor in tensors]
        return [tensor.tolist() for tensor in tensors], dtypes, flags, ranks.most(-ranks.rank), ranks.gather(ranks.rank)

    sums = [[[1.5] * 3] * 2, 5, []]
    dtypes = ["torch.float32", "torch.int64", "torch.float32"]
    assert in_two_processes(exchange, tmp_path) == [(sums, dtypes, [False, True, True], 0, [0, 1])] * 2


@pytest.mark.apart
def test_only_the_first_rank_acts_and_its_mistakes_are_those_of_both(tmp_path: Path) -> None:
    def act() -> str:
        with (tmp_path / "acted").open("a") as file:
            file.write("x")
        return "result"

    def fail() -> None:
        raise ConfigError("data.train: is missing")

    def exchange(ranks: Ranks) -> Any:
        result = ranks.first(act)
        with ranks.own(Run(tmp_path)) as run:
            is_real = run.path == tmp_path
        try:
            ranks.first(fail)
        except ConfigError as error:
            return result, is_real, str(error)
        return None

    told = "data.train: is missing"
    assert in_two_processes(exchange, tmp_path) == [("result", True, told), ("result", False, told)]
    assert (tmp_path / "acted").read_text() == "x"


@pytest.mark.apart
@pytest.mark.parametrize("waits", [False, True])
def test_out_of_memory_in_one_rank_takes_the_result_of_both(tmp_path: Path, waits: bool) -> None:
    """`waits`: the other rank stands where it needs the one that ran out."""

    def exchange(ranks: Ranks) -> Any:
        def compute(failing: int) -> str:
            if failing == ranks.rank:
                raise torch.OutOfMemoryError
            if waits:
                ranks.will_come()
            return "result"

        return [ranks.tried(partial(compute, failing)) for failing in (0, 1, 2)]

    assert in_two_processes(exchange, tmp_path) == [[None, None, "result"]] * 2
