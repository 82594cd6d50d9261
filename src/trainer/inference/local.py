"""The model of a run on this machine: its base with its adapter, or the base alone."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.render.chat_template import Rendered
from trainer.data.render.rendering import Renderer, RenderingError
from trainer.errors import ConfigError, TrainingError
from trainer.inference.client import ChatMessage, Piece, Sampling, Tool
from trainer.inference.replies import ReplyReader, split_stream
from trainer.inference.trained import trained_adapter, trained_base, trained_tokenizer
from trainer.model.adapter import ADAPTER, adapter_tensors, load_to_answer, overwrite, tensors_problem
from trainer.model.device import pick_device, pick_dtype
from trainer.model.loading import load_model
from trainer.model.sharding import shard_base
from trainer.model.threads import choose_threads
from trainer.model.weight_files import read_header
from trainer.runs import Run
from trainer.training.ranks import Ranks

if TYPE_CHECKING:
    from peft import PeftModel


class TunedModel:
    """A run's model, loaded once; `base` and `tuned` answer from the same weights with the adapter off and on.

    With several `ranks`, a base that was sharded in training is sharded here: all must then do the same with it.

    Raises: ConfigError, when the run has no adapter yet or its base has changed.
    """

    def __init__(self, run: Run, ranks: Ranks | None = None) -> None:
        import torch

        trained_adapter(run)
        config, base = run.config(), trained_base(run)
        settings, device = config.model, pick_device()
        choose_threads()
        self.ranks = ranks if ranks and config.memory.shard_base is True else Ranks()
        self.tokenizer = trained_tokenizer(run)
        self.renderer = Renderer(self.tokenizer, config.data.train_reasoning is not False)
        self.reader = ReplyReader(self.renderer)
        place = torch.device("cpu") if self.is_sharded else device
        model = load_model(base, settings, place, pick_dtype(settings, device))
        self.model: PeftModel = load_to_answer(model, run.adapter, whole=not self.is_sharded)
        if self.is_sharded:
            shard_base(self.model, device, self.ranks.will_come)
        self.max_length = base.max_length
        self.end_ids = self._end_ids()
        self.tuned = LocalClient(self, run.name, adapter=True)
        self.base = LocalClient(self, base.name, adapter=False)

    @contextmanager
    def wearing(self, folder: Path) -> Iterator[None]:
        """With the adapter of `folder`, of the same shape, in place of the run's own.

        Raises: ConfigError, when it has another shape.
        """
        from safetensors.torch import load_file

        file = folder / ADAPTER
        if problem := tensors_problem(self.model, read_header(file)):
            raise ConfigError(f"adapter {str(folder)!r}: {problem}; compare with another one")
        own = adapter_tensors(self.model)
        before = {name: tensor.detach().clone() for name, tensor in own.items()}
        try:
            overwrite(own, load_file(file))
            yield
        finally:
            overwrite(own, before)

    @property
    def is_sharded(self) -> bool:
        """True where other processes hold a shard of it."""
        return self.ranks.size > 1

    def _end_ids(self) -> frozenset[int]:
        """Ids at which an answer ends: in the template, and by the settings of the base's authors."""
        own = self.model.get_base_model().generation_config.eos_token_id
        named = [*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id]
        return self.renderer.end_markers | {token for token in named if token is not None}


class LocalClient:
    """Answers from a TunedModel, with or without its adapter."""

    def __init__(self, owner: TunedModel, name: str, adapter: bool) -> None:
        self.owner, self.name, self.adapter = owner, name, adapter

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[Piece]:
        """The answer in pieces, then its tool calls. Whoever stops reading stops the model.

        Raises: TrainingError, when the prompt is longer than the model can read.
        """
        prompt = self._prompt(messages, tools)
        yield from split_stream(self._generate(prompt.ids, sampling), self.owner.reader, prompt.text, tools or None)

    def answer(self, messages: Sequence[ChatMessage], sampling: Sampling) -> str:
        """The whole answer, as text without its thought."""
        return "".join(piece for piece in self.stream(messages, sampling) if isinstance(piece, str)).strip()

    def _prompt(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> Rendered:
        try:
            prompt = self.owner.renderer.prompt(messages, [dict(tool) for tool in tools] or None)
        except RenderingError as error:
            raise TrainingError(str(error)) from None
        if len(prompt.ids) >= self.owner.max_length:
            raise TrainingError(
                f"the conversation has {len(prompt.ids):,} tokens, and the model reads {self.owner.max_length:,}"
            )
        return prompt

    def _generate(self, ids: Sequence[int], sampling: Sampling) -> Iterator[str]:
        """Text with its control tokens, as a thread of its own generates it."""
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.owner.tokenizer, skip_prompt=True, skip_special_tokens=False)
        unwanted = threading.Event()
        arguments = self._arguments(ids, sampling) | {"stopping_criteria": [lambda *_, **__: unwanted.is_set()]}
        failed: list[BaseException] = []

        def generate() -> None:
            try:
                with nullcontext() if self.adapter else self.owner.model.disable_adapter():
                    self.owner.model.generate(streamer=streamer, **arguments)
            except BaseException as error:  # handed to the thread that reads
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            yield from streamer
        finally:
            unwanted.set()
            thread.join()
        if failed:
            raise TrainingError(f"the model could not answer: {failed[0]}") from failed[0]

    def _arguments(self, ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        import torch

        input_ids = torch.tensor([ids], device=self.owner.model.device)
        torch.manual_seed(sampling.seed)
        chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "max_new_tokens": min(sampling.max_tokens, self.owner.max_length - len(ids)),
            "eos_token_id": sorted(self.owner.end_ids),
            "pad_token_id": self.owner.tokenizer.pad_token_id,
        } | (
            chosen
            if sampling.temperature > 0
            else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        )
