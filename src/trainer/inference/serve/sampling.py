"""Sampling by request within a batch: temperature, nucleus, and a seed of its own.

transformers' continuous batching has one setting for sampling or not, and one random state, for all requests. Here
nothing is sampled: the most likely token is taken after each row that samples got noise of its own. With noise from
the Gumbel distribution the most likely token is distributed as a sampled one, so that greedy and seeded requests can
share a batch.
"""

import hashlib
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
    ContinuousBatchingTemperatureLogitsWarper,
    ContinuousBatchingTopPLogitsWarper,
)
from transformers.generation.continuous_batching.requests import FutureRequestState
from transformers.generation.logits_process import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from trainer.inference.client import Sampling

GREEDY = -1


class Nucleus(ContinuousBatchingTopPLogitsWarper):  # type: ignore[misc]  # untyped
    """top_p of each request; the sorting that it takes is saved where no request asks for less than all."""

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        if bool((tensor_arg[: scores.size(0)].view(dtype=torch.float32) >= 1).all()):
            return scores
        result: torch.Tensor = super().__call__(scores, tensor_arg)
        return result


class SeededChoice(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # untyped
    """Gumbel noise for each row that samples, from its request's seed and its position in the conversation."""

    supported_kwargs = {"seed": int}  # noqa: RUF012  # as the base class declares it
    ignored_kwargs = ()

    def __init__(self, device: torch.device) -> None:
        self.generator = torch.Generator(device)

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.fill_(GREEDY)

    def prepare_tensor_args(self, requests_with_new_token: list[FutureRequestState]) -> torch.Tensor:
        states = [request.state for request in requests_with_new_token]
        seeds = [_seed_at(state.logit_processor_kwargs["seed"], state.position_offset) for state in states]
        return torch.tensor(seeds, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """`scores`: float32 [B, V]."""
        for row, seed in enumerate(tensor_arg[: scores.size(0)].tolist()):
            if seed != GREEDY:
                noise = torch.empty_like(scores[row]).exponential_(generator=self.generator.manual_seed(seed))
                scores[row] -= noise.log_()  # -log of an exponential variable is Gumbel's
        return scores


def _seed_at(seed: int, position: int) -> int:
    """31 bits for one token: the argument travels as int32, and -1 means none."""
    if seed == GREEDY:
        return GREEDY
    return int.from_bytes(hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=4).digest(), "big") >> 1


def processors(device: torch.device) -> ContinuousBatchingLogitsProcessorList:
    """Processors of every row, each with its own request's values."""
    temperature = ContinuousBatchingTemperatureLogitsWarper(TemperatureLogitsWarper(1.0))
    chain = ContinuousBatchingLogitsProcessorList(
        LogitsProcessorList([temperature, Nucleus(TopPLogitsWarper(1.0)), SeededChoice(device)])
    )
    chain.tensors_required = len(chain.logits_processor)  # it counts only those that it converted itself
    return chain


def arguments(sampling: Sampling) -> dict[str, Any]:
    """A request's values for the processors; temperature 0 always takes the most likely token."""
    if sampling.temperature == 0:
        return {"temperature": 1.0, "top_p": 1.0, "seed": GREEDY}
    return {
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "seed": abs(int(sampling.seed)),
    }
