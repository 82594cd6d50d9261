"""FlexAttention on a machine without a GPU: everything but its kernels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from trainer.model import flex


@contextmanager
def traced_flex() -> Iterator[list[Any]]:
    """torch traces it as on a GPU, and computes what it traced in both directions; yields the graphs as they come.

    torch has no backward kernel for a CPU, and refuses gradients there, though it can compute them without one.
    """
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(flex._attend, fullgraph=True, backend=backend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_flex, "_validate_device", lambda *tensors: None)
        patch.setattr(flex, "_compiled", lambda: compiled)
        yield graphs
    torch._dynamo.reset()
