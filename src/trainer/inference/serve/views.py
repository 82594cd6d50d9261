"""One set of weights as two models: with the adapter on, and off. Batches of the two go through them in turn."""

import copy
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def views(model: "PeftModel") -> "tuple[PreTrainedModel, PreTrainedModel]":
    """The tuned model and its base, each for a thread of its own; they share the weights and one lock."""
    switch = _Switch(model)
    return _view(model.get_base_model(), switch, on=True), _view(model.get_base_model(), switch, on=False)


class _Switch:
    """State of the adapter in all layers. PEFT's own switch also sets which weights are trained, at each turn."""

    def __init__(self, model: "PeftModel") -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        self._layers: list[Any] = [
            module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        ]
        self._lock, self._is_on = threading.Lock(), True

    @contextmanager
    def turn(self, on: bool) -> Iterator[None]:
        """The weights for one batch alone, the adapter on or off."""
        with self._lock:
            if on != self._is_on:
                for layer in self._layers:
                    layer._disable_adapters = not on
                self._is_on = on
            yield


def _view(model: "PreTrainedModel", switch: _Switch, on: bool) -> "PreTrainedModel":
    seen = copy.copy(model)  # the same modules, and a forward pass of its own

    @functools.wraps(model.forward)  # its signature is inspected
    def forward(*args: Any, **kwargs: Any) -> Any:
        with switch.turn(on):
            return model(*args, **kwargs)

    seen.forward = forward
    return seen
