"""Noise that makes the most likely token a sample: as often as its probability, and the same for the same seed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.inference.client import Sampling
from trainer.inference.serve.sampling import GREEDY, arguments, processors

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])
DRAWS = 4000


def choices(sampling: list[Sampling], positions: list[int], logits: torch.Tensor = LOGITS) -> list[int]:
    """The tokens chosen for requests that share a batch, one row each."""
    chain = processors(torch.device("cpu"))
    requests: list[Any] = []
    for one, position in zip(sampling, positions, strict=True):
        chain.check_kwargs(arguments(one))
        state = SimpleNamespace(logit_processor_kwargs=arguments(one), position_offset=position)
        requests.append(SimpleNamespace(state=state, has_new_token=True))
    storage = torch.empty((chain.tensors_required, len(requests)), dtype=torch.int32)
    chain.prepare_tensor_args(requests, storage)
    scores = logits.repeat(len(requests), 1)
    tokens: list[int] = chain(torch.zeros(len(requests), 1), scores, storage).argmax(dim=-1).tolist()
    return tokens


def shares(sampling: Sampling) -> torch.Tensor:
    counts = torch.bincount(torch.tensor(choices([sampling] * DRAWS, list(range(DRAWS)))), minlength=len(LOGITS))
    return counts / DRAWS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_chosen_as_often_as_they_are_likely(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, dim=-1)
    assert shares(Sampling(temperature=temperature, seed=1)) == pytest.approx(expected, abs=0.03)


def test_the_nucleus_leaves_unlikely_tokens_out() -> None:
    found = shares(Sampling(temperature=1.0, top_p=0.8, seed=1))
    expected = torch.softmax(LOGITS[:2], dim=-1)
    assert found[:2] == pytest.approx(expected, abs=0.03)
    assert found[2:].sum() == 0


def test_a_nucleus_of_nothing_takes_the_most_likely_token() -> None:
    assert set(choices([Sampling(temperature=2.0, top_p=0.0)] * 50, list(range(50)))) == {0}


def test_greedy_and_seeded_requests_share_a_batch_without_touching_each_other() -> None:
    mixed = [Sampling(temperature=0), Sampling(temperature=1, seed=5), Sampling(temperature=2, seed=6, top_p=0.9)]
    for position in range(20):
        together = choices(mixed, [position] * 3)
        assert together == [choices([one], [position])[0] for one in mixed]
        assert together[0] == 0


def test_the_same_seed_chooses_the_same_and_another_differently() -> None:
    positions = list(range(200))
    first, again, other = (choices([Sampling(temperature=2, seed=seed)] * 200, positions) for seed in (1, 1, 2))
    assert first == again != other


def test_a_seed_of_any_size_and_sign_is_taken() -> None:
    for seed in (0, -1, 2**63, -(2**70)):
        choices([Sampling(temperature=1, seed=seed)], [3])
    assert arguments(Sampling(temperature=1, seed=-1))["seed"] != GREEDY


def test_equally_likely_tokens_are_settled_the_same_way_by_greedy_choice() -> None:
    assert set(choices([Sampling(temperature=0)] * 20, list(range(20)), torch.tensor([1.0, 3.0, 3.0]))) == {1}
