"""Answers many requests at a time with transformers' continuous batching, the adapter on."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.refusals import failed
from trainer.model.device import free_memory_bytes
from trainer.runs.process import usable_cores

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

PAGE_TOKENS = 64  # the cache is handed out in pages; whole pages of a shared system prompt are computed once
BATCH_TOKENS = {"cpu": 512, "cuda": 2048}  # that go through the model at a time
MEMORY_SHARE = {"cpu": 0.3, "cuda": 0.8}  # of the free memory, for the cache
STOP_SECONDS = 10.0


class ServingEngine:
    """A loaded model that answers requests side by side; use it from one event loop."""

    def __init__(
        self,
        model: "PreTrainedModel",
        stops: Sequence[int],
        max_length: int,
        limits: Limits,
        cache_bytes: int | None = None,
    ) -> None:
        """`cache_bytes` is the most that its conversations may take; without it, a share of the free memory."""
        self.model, self.stops, self.limits = model, list(stops), limits
        room = memory_for_caches(model.device) if cache_bytes is None else cache_bytes
        self.num_pages = _num_pages(model, max_length, limits, room)
        self.max_length = min(max_length, self.num_pages * PAGE_TOKENS)
        self.manager: ContinuousBatchingManager | None = None

    def start(self) -> None:
        """Begin to answer. Raises: ConfigError, when transformers cannot batch this architecture."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        from trainer.inference.serve.sampling import processors

        _leave_a_core(self.model)
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
        settings = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=self.num_pages,
            max_batch_tokens=BATCH_TOKENS[self.model.device.type],
            max_requests_per_batch=self.limits.max_requests,
            max_memory_percent=0.95,  # num_pages has left more than that
            per_request_processors=True,
            auto_switch_to_flash=False,  # it could fetch kernels, which are code, from the hub
            use_cuda_graph=False,
            use_async_batching=False,
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=self.stops, pad_token_id=self.stops[0])
        try:
            manager = self.model.init_continuous_batching(greedy, settings)
            manager.logit_processor = processors(self.model.device)
            manager.warmup()  # makes the cache, here and not in the thread, where nobody would hear of a failure
        except (ValueError, AttributeError, MemoryError, NotImplementedError) as error:
            raise ConfigError(
                f"this model cannot be served by transformers' continuous batching: {error}; "
                "export it with: trainer export, and serve it with vLLM"
            ) from error
        manager.start()
        self.manager = manager

    @property
    def problem(self) -> str | None:
        """Error that ended all answering, or None."""
        error = self.manager.background_thread_status.fatal_error if self.manager else None
        return None if error is None else f"{type(error).__name__}: {error}"

    async def tokens(self, prompt: Sequence[int], sampling: Sampling, whole: bool = False) -> AsyncGenerator[list[int]]:
        """New tokens as they come, or with `whole` all at the end; leaving the loop early ends the generation.

        Raises: Refusal, when the model fails.
        """
        from trainer.inference.serve.sampling import arguments

        assert self.manager is not None
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        name, num_seen, is_over = secrets.token_hex(8), 0, False
        self.manager.register_result_handler(name, outputs.put_nowait)
        try:
            if not self.manager.add_request(
                list(prompt), name, sampling.max_tokens, streaming=not whole, **arguments(sampling)
            ):
                raise failed(f"the model has stopped: {self.problem or 'it takes no more requests'}")
            while not is_over:
                output = await outputs.get()
                while not outputs.empty():  # a later one has the tokens of the earlier ones too
                    output = outputs.get_nowait()
                is_over = output.is_finished()
                if output.error is not None:
                    raise failed(f"the model failed: {output.error}")
                yield output.generated_tokens[num_seen:]
                num_seen = len(output.generated_tokens)
        finally:
            if not is_over:
                self._cancel(name)

    def _cancel(self, name: str) -> None:
        """End a generation. A cancelled request never finishes, so that nobody else would forget it."""
        assert self.manager is not None
        self.manager.cancel_request(name)
        router = self.manager.output_router
        router.result_handlers.pop(name, None)
        with suppress(Empty):  # what came after the handler was gone
            while True:
                router.output_queue.get_nowait()

    def stop(self) -> None:
        """End the thread that generates and let go of its cache; requests in progress fail."""
        if self.manager is not None:
            self.manager._original_attn_impl = None  # it would set it for the other models of these weights too
            self.manager.stop(block=True, timeout=STOP_SECONDS, hard_stop=True)


def _leave_a_core(model: "PreTrainedModel") -> None:
    """On a CPU: torch's threads wait for each other at every layer, and all of them for one that shares its core.

    The event loop needs a core too. On two cores, small models answer several times faster this way.
    """
    import torch

    if model.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() - 1)))


def memory_for_caches(device: "torch.device") -> int:
    """Bytes that conversations may take of what is free now: of all engines that are about to start."""
    return int(MEMORY_SHARE[device.type] * free_memory_bytes(device))


def _num_pages(model: "PreTrainedModel", max_length: int, limits: Limits, room: int) -> int:
    """Pages for as many whole conversations as there may be at a time, as far as `room` bytes go.

    Raises: ConfigError, when they go nowhere.
    """
    wanted = limits.max_requests * -(-max_length // PAGE_TOKENS)
    affordable = room // (PAGE_TOKENS * _bytes_per_token(model))
    if affordable < 2:
        raise ConfigError(f"{model.device} has no memory left for conversations beside the model; free some")
    return min(wanted, affordable)


def _bytes_per_token(model: "PreTrainedModel") -> int:
    """Of a token in the cache: its keys and values in every layer, a copy of one layer's, its column of the mask."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head_size
    return int(model.dtype.itemsize * (kept + 3 * heads * head_size + 2 * BATCH_TOKENS[model.device.type]))
