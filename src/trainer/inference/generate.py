"""Greedy answers to many prompts at a time. What shares a batch changes the speed and no answer.

Prompts are padded on the left, and the attention mask hides the padding. Prompts that padding or company could change
do not share a batch: those of models that carry a state, and those beyond the length where longrope changes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainingError
from trainer.model.sharding import start_over

if TYPE_CHECKING:
    from trainer.inference.local import TunedModel

Prompt = Sequence[int]


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens that a model generated, without the one that ends them."""

    ids: tuple[int, ...]
    ended: bool  # False where it was cut off


def generate(
    model: "TunedModel",
    prompts: Sequence[Prompt],
    *,
    adapter: bool,
    max_new_tokens: int,
    token_budget: int,
    advance: Callable[[int], None] = lambda num_answers: None,
) -> list[Continuation]:
    """The most likely continuation of each prompt, in their order; `advance` receives the number of those done since.

    At most `token_budget` tokens, padding and answers included, are held at a time.

    Raises: TrainingError, when a prompt fills the model's context, or a single one does not fit into the memory.
    """
    answered: dict[int, Continuation] = {}
    with _plain_greedy(model), nullcontext() if adapter else model.model.disable_adapter():
        for batch, limit in _batches(model, prompts, max_new_tokens, token_budget):
            found = _answer(model, [prompts[number] for number in batch], limit)
            answered |= dict(zip(batch, found, strict=True))
            advance(len(batch))
    return [answered[number] for number in range(len(prompts))]


def _batches(
    model: "TunedModel", prompts: Sequence[Prompt], max_new_tokens: int, token_budget: int
) -> Iterator[tuple[list[int], int]]:
    """Numbers of prompts that are answered together, the longest first, and how many tokens each may get."""
    kinds = [_kind(model, number, prompt, max_new_tokens) for number, prompt in enumerate(prompts)]
    order = sorted(range(len(prompts)), key=lambda number: (kinds[number], len(prompts[number])), reverse=True)
    batch: list[int] = []
    for number in order:
        size = (len(prompts[(batch or [number])[0]]) + kinds[number][0]) * (len(batch) + 1)
        if batch and (kinds[number] != kinds[batch[0]] or size > token_budget):
            yield batch, kinds[batch[0]][0]
            batch = []
        batch.append(number)
    if batch:
        yield batch, kinds[batch[0]][0]


def _kind(model: "TunedModel", number: int, prompt: Prompt, max_new_tokens: int) -> tuple[int, int, int]:
    """(room for the answer, …): only prompts of one kind share a batch."""
    limit = min(max_new_tokens, model.max_length - len(prompt))
    if limit < 1:
        raise TrainingError(f"a prompt has {len(prompt):,} tokens, and the model reads {model.max_length:,}")
    base = model.model.get_base_model()
    length = len(prompt) if base._is_stateful else 0
    beyond = _changes_with_length(base.config) < len(prompt) + limit
    return limit, length, number + 1 if beyond else 0


def _changes_with_length(config: Any) -> float:
    """The length beyond which longrope turns all positions of a batch differently."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    return float(getattr(text, "original_max_position_embeddings", "inf")) if "long_factor" in rope else float("inf")


@contextmanager
def _plain_greedy(model: "TunedModel") -> Iterator[None]:
    """Without the sampling settings of the base's authors: transformers would add their repetition penalty."""
    from transformers import GenerationConfig

    base = model.model.get_base_model()
    own = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


def _answer(model: "TunedModel", prompts: Sequence[Prompt], limit: int) -> list[Continuation]:
    """One batch; on a lack of memory, in any process that holds a part of the base, it is halved."""
    import torch

    rows = model.ranks.tried(lambda: _continue(model, prompts, limit))
    if rows is None:
        if len(prompts) == 1:
            raise TrainingError(
                f"a prompt of {len(prompts[0]):,} tokens and its answer do not fit into the memory; "
                "lower evaluation.max_new_tokens"
            )
        start_over(model.model.get_base_model())
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        return _answer(model, prompts[:half], limit) + _answer(model, prompts[half:], limit)
    ends = model.end_ids
    return [_continuation(row, ends) for row in rows]


def _continue(model: "TunedModel", prompts: Sequence[Prompt], limit: int) -> list[list[int]]:
    """Tokens generated after each prompt, as long as the longest answer."""
    import torch

    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    pad = model.tokenizer.pad_token_id
    input_ids = torch.tensor([[pad] * gap + list(prompt) for gap, prompt in zip(padding, prompts, strict=True)])
    mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in padding])
    # What FSDP2 gathers could not leave inference mode again.
    with torch.inference_mode(not model.is_sharded), _in_step(model):
        output = model.model.generate(
            input_ids=input_ids.to(model.model.device),
            attention_mask=mask.to(model.model.device),
            max_new_tokens=limit,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(model.end_ids),
            pad_token_id=pad,
            synced_gpus=model.is_sharded,
        )
    return [list(row) for row in output[:, width:].tolist()]


@contextmanager
def _in_step(model: "TunedModel") -> Iterator[None]:
    """Processes that shard the base all continue until each has finished.

    transformers would ask them on the device, where one that ran out of memory is waited for without an end.
    """
    base = model.model.get_base_model()

    def unfinished(finished: bool, *_: Any, **__: Any) -> bool:
        model.ranks.will_come()
        return model.ranks.any(not finished)

    if not model.is_sharded:
        yield
        return
    base._has_unfinished_sequences = unfinished
    try:
        yield
    finally:
        del base._has_unfinished_sequences


def _continuation(row: Sequence[int], ends: frozenset[int]) -> Continuation:
    end = next((position for position, token in enumerate(row) if token in ends), None)
    return Continuation(tuple(row[:end]), ended=end is not None)
