"""The processes that train one run together, one on each GPU: what each knows of the others.

Every process goes through the same steps with the same weights and computes its share of a step's rows. Gradients are
added up in one vector: for an adapter that is all that data parallelism needs. So no process depends on how many rows
or packs another has, and the update is that of a single process. transformers and accelerate each see one process.
"""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from trainer.errors import TrainerError
from trainer.runs import Run
from trainer.training.launch import PARENT

T = TypeVar("T")

ACCELERATE = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "MEGATRON_LM_")  # what accelerate's launcher sets


class OutOfMemoryElsewhere(torch.OutOfMemoryError):
    """Another process ran out of memory, and this one gives up the same work."""


class Ranks:
    """Collective operations of one process with the others; alone, each is immediate."""

    def __init__(self, rank: int = 0, size: int = 1, on_machine: int = 1) -> None:
        self.rank, self.size, self.on_machine = rank, size, on_machine

    @property
    def is_first(self) -> bool:
        """True for the process that writes the run."""
        return self.rank == 0

    def first(self, function: Callable[[], T]) -> T:
        """The function's result in the first process, for all. Raises: what it raised there."""
        if self.size == 1:
            return function()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = function()
            except TrainerError as error:
                answer[1] = error
        distributed.broadcast_object_list(answer)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    def gather(self, value: T) -> list[T]:
        """The value of each process, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Logical or over the processes."""
        return self.most(int(flag)) > 0

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)  # on the CPU, so that no GPU is waited for
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)

    def tried(self, compute: Callable[[], T]) -> T | None:
        """The result of `compute`, or None in all processes where one ran out of memory; then none of it is held.

        It waits for other processes only after `will_come`: one that ran out would not come.
        """
        try:
            result = compute()
        except OutOfMemoryElsewhere:
            return None
        except torch.OutOfMemoryError:
            self.any(True)  # the others find out where they would wait for this one
            return None
        return None if self.any(False) else result

    def will_come(self) -> None:
        """Before something that needs all processes, in `tried`. Raises: OutOfMemoryElsewhere, if one is not coming."""
        if self.any(False):
            raise OutOfMemoryElsewhere

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the processes: one exchange for all of them."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.detach().flatten().to(tensors[0].dtype) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    @contextmanager
    def own(self, run: Run) -> Iterator[Run]:
        """The run to write: the first process has the real one, the others one that is thrown away."""
        if self.is_first:
            yield run
            return
        with tempfile.TemporaryDirectory(prefix="trainer-rank-") as scratch:
            yield Run(Path(scratch))


def join() -> Ranks:
    """Join the processes that `train` itself, torchrun or accelerate started beside this one; alone without them."""
    _leave_out_accelerate()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    _end_with_parent()
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if not distributed.is_initialized():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        # Before anything asks for a GPU: each process sees its own as the only one.
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[local] if local < len(visible) and visible[0] else str(local)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    # accelerate would wrap the model and deal out rows by itself.
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    return Ranks(rank, size, on_machine)


def _leave_out_accelerate() -> None:
    """Of what its launcher asks for only the processes count: number format and sharding stand in the config alone."""
    for name in [name for name in os.environ if name.startswith(ACCELERATE)]:
        del os.environ[name]


def is_lost(error: Exception) -> bool:
    """True where the error says that another process is gone; gloo and NCCL have no kind of their own for it."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "closed by peer"))


def _end_with_parent() -> None:
    """End at a checkpoint, as with SIGTERM, once the `train` that started the processes is gone."""
    pipe = os.environ.pop(PARENT, None)
    if pipe is None:
        return

    def wait() -> None:
        os.read(int(pipe), 1)  # nothing is ever written
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
