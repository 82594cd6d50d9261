"""A sharded base: each process holds a shard of every layer, and all gather a layer to compute with it.

torch's FSDP2 shards it. The base is frozen, so weights travel and no gradients. Each process holds the adapter, the
embeddings and the head unsharded; the adapter is therefore trained, reduced and stored as ever. Of the layers, only the
one at work and the prefetched next one are gathered. Every process must take part in an all-gather: all run the same
layers in the same order, and ask each other first whether all will come.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.model.checkpointing import recomputable

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


def shard_base(model: "PeftModel", device: "torch.device", will_come: Callable[[], None]) -> "PeftModel":
    """Keep this process's shard of each layer on `device`, and all else unsharded; the model's own weights are freed.

    `will_come` returns when all processes are about to compute with a layer, and raises when one of them is not.
    """
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    base = model.get_base_model()
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    adapter = {weight for name, weight in model.named_parameters() if model.base_model.prefix in name}
    layers = recomputable(base)
    for layer in layers:  # one after the other, so that the device never holds more than one of them
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapter)
        layer.set_custom_all_gather(_AllGather(will_come))
    sharded = {weight for layer in layers for weight in layer.parameters()} - adapter
    whole = set(base.base_model.parameters()) - sharded
    fully_shard(base.base_model, mesh=mesh, ignored_params=whole)  # with no weights of its own: it goes through them
    model.to(device)
    return model


def is_sharded(model: "PreTrainedModel") -> bool:
    """True where this process holds only a shard of each layer."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model.base_model, FSDPModule)


def can_start_over() -> bool:
    """True where torch can drop a pass that ended halfway, as one that ran out of memory does: from 2.13."""
    from torch.distributed.fsdp import FSDPModule

    return hasattr(FSDPModule, "reset_iter_state")


def start_over(model: "PreTrainedModel") -> None:
    """Drop a pass that ended halfway: no layer stays gathered, and the next pass begins anew."""
    if is_sharded(model):
        model.base_model.reset_iter_state()


class _AllGather:
    """The all-gather that FSDP2 calls for a layer, once all processes have said that they will come.

    Its form is `AllGather` in torch.distributed.fsdp._fully_shard._fsdp_api. Without the question a process that ran
    out of memory, or died, would be waited for on the device, from where no error can be raised.
    """

    def __init__(self, will_come: Callable[[], None]) -> None:
        self.will_come = will_come

    def allocate(self, size: Any, *, dtype: "torch.dtype", device: "torch.device") -> "Tensor":
        import torch

        return torch.empty(size, dtype=dtype, device=device)

    def __call__(self, output_tensor: "Tensor", input_tensor: "Tensor", group: Any, async_op: bool = False) -> Any:
        from torch import distributed

        self.will_come()
        # torch calls it by the first name since 2.13, and deprecates the other.
        gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
        return gather(output_tensor, input_tensor, group=group, async_op=async_op)
