"""One base in memory as several models: each adapter on it, and none. Batches of the models go through it in turn."""

import copy
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.model.adapter import FIRST, add_to_answer, load_to_answer, remove_adapter, strip
from trainer.model.base import Base
from trainer.model.device import pick_device, pick_dtype
from trainer.model.loading import load_model
from trainer.model.quantization import adopted
from trainer.model.threads import choose_threads

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Weights:
    """A base as training loaded it, each adapter once. Raises: ConfigError, when the base cannot be loaded."""

    def __init__(self, base: Base, settings: ModelConfig) -> None:
        device, num_parameters = pick_device(), sum(parameter.numel() for parameter in base.skeleton.parameters())
        choose_threads()
        dtype = pick_dtype(settings, device, num_parameters)
        held = {"dtype": str(dtype).removeprefix("torch.")}
        self.base, self.settings = base, adopted(settings, base.config).model_copy(update=held)
        self.model: PreTrainedModel = load_model(base, settings, device, dtype).eval()
        self._adapted: PeftModel | None = None
        self._layers: list[Any] = []  # that carry an adapter
        self._worn: str | None = None
        self._num_added = 0
        self._lock = threading.Lock()

    def add(self, folder: Path) -> str:
        """Put an adapter on the base, between two batches; the name that it is worn by. Raises: ConfigError."""
        with self._lock:
            name = FIRST if self._adapted is None else f"another_{self._num_added}"
            try:
                if self._adapted is None:
                    self._adapted = load_to_answer(self.model, folder)
                else:
                    add_to_answer(self._adapted, folder, name)
            except BaseException:
                if self._adapted is None:
                    strip(self.model)
                raise
            finally:
                self._take_stock()
            self._num_added += 1
            return name

    def remove(self, name: str) -> None:
        """Take an adapter off, between two batches, once no view of it is used any more."""
        with self._lock:
            assert self._adapted is not None
            remove_adapter(self._adapted, name)
            self._take_stock()

    def view(self, adapter: str | None) -> "PreTrainedModel":
        """The base with that adapter, or with none, for a thread of its own; all views share weights and one lock."""
        seen = copy.copy(self.model)  # the same modules, and a forward pass of its own

        @functools.wraps(self.model.forward)  # its signature is inspected
        def forward(*args: Any, **kwargs: Any) -> Any:
            with self._wearing(adapter):
                return self.model(*args, **kwargs)

        seen.forward = forward
        return seen

    @contextmanager
    def _wearing(self, adapter: str | None) -> Iterator[None]:
        """The weights for one batch alone, under that adapter."""
        with self._lock:
            if adapter != self._worn:
                self._wear(adapter)
            yield

    def _wear(self, adapter: str | None) -> None:
        """Switch all layers. PEFT's own switch also sets which weights are trained, at each turn.

        A layer that the adapter does not have passes its base's product on.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in self._layers:
            layer._disable_adapters = adapter is None
            if adapter is not None and isinstance(layer, BaseTunerLayer):
                layer._active_adapter = [adapter]
        self._worn = adapter

    def _take_stock(self) -> None:
        """Find the layers again after adapters have come or gone, and take all adapters off."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        kinds = BaseTunerLayer | AuxiliaryTrainingWrapper
        self._layers = [module for module in self.model.modules() if isinstance(module, kinds)]
        self._wear(None)
