"""Generation in batches: what the model alone would say, whatever shares the batch."""

import threading
from pathlib import Path

import pytest
import torch

from tests.counting import counting_config, launch
from trainer.config import RunConfig
from trainer.errors import TrainingError
from trainer.inference.client import Sampling
from trainer.inference.generate import Continuation, generate
from trainer.inference.local import TunedModel
from trainer.runs import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generation")


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    return counting_config(folder)


@pytest.fixture(scope="module")
def run(config: RunConfig) -> Run:
    return launch(config)[0]


@pytest.fixture(scope="module")
def model(run: Run) -> TunedModel:
    return TunedModel(run)


def prompts(model: TunedModel) -> list[list[int]]:
    texts = ["Hi", "What is number 3?", "What is number 21? " * 5, "Who? " * 60, "What is a wheel?", ""]
    return [model.renderer.prompt_ids([{"role": "user", "content": text}]) for text in texts]


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.slow
def test_what_shares_a_batch_changes_no_answer(model: TunedModel, adapter: bool) -> None:
    """As one by one without any padding, by the model's own forward pass and no cache."""
    expected = [plain_greedy(model, prompt, adapter, 24) for prompt in prompts(model)]
    assert {reply.ended for reply in expected} == {True, False}
    for token_budget in (1, 300, 100_000):
        found = generate(model, prompts(model), adapter=adapter, max_new_tokens=24, token_budget=token_budget)
        assert found == expected


def plain_greedy(model: TunedModel, prompt: list[int], adapter: bool, limit: int) -> Continuation:
    ids = list(prompt)
    (model.model.base_model.enable_adapter_layers if adapter else model.model.base_model.disable_adapter_layers)()
    try:
        for _ in range(limit):
            with torch.no_grad():
                token = int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in model.end_ids:
                return Continuation(tuple(ids[len(prompt) :]), ended=True)
            ids.append(token)
    finally:
        model.model.base_model.enable_adapter_layers()
    return Continuation(tuple(ids[len(prompt) :]), ended=False)


def test_the_sampling_settings_of_the_base_do_not_count(model: TunedModel) -> None:
    before = generate(model, prompts(model), adapter=True, max_new_tokens=24, token_budget=1000)
    own = model.model.get_base_model().generation_config
    own.update(repetition_penalty=5.0, do_sample=True, temperature=2.0, no_repeat_ngram_size=1)
    try:
        assert generate(model, prompts(model), adapter=True, max_new_tokens=24, token_budget=1000) == before
        assert own.repetition_penalty == 5.0
    finally:
        own.update(repetition_penalty=1.0, do_sample=False, temperature=1.0, no_repeat_ngram_size=0)


def test_the_context_is_never_left(model: TunedModel) -> None:
    length = model.max_length
    long, longer = [7] * (length - 3), [7] * length
    (reply, other) = generate(model, [long, [7] * 5], adapter=True, max_new_tokens=8, token_budget=100_000)
    assert len(reply.ids) <= 3
    assert other == generate(model, [[7] * 5], adapter=True, max_new_tokens=8, token_budget=1)[0]
    with pytest.raises(TrainingError, match=f"a prompt has {length:,} tokens, and the model reads {length:,}"):
        generate(model, [longer], adapter=True, max_new_tokens=8, token_budget=1)


def test_chat_and_evaluation_answer_alike(model: TunedModel) -> None:
    text = "What is number 21?"
    (reply,) = generate(model, [model.renderer.prompt_ids([{"role": "user", "content": text}])], adapter=True,
                        max_new_tokens=40, token_budget=1)  # fmt: skip
    chat = model.tuned.answer([{"role": "user", "content": text}], Sampling(max_tokens=40))
    assert model.tokenizer.decode(reply.ids).strip() == chat


def test_whoever_stops_reading_stops_the_model(model: TunedModel) -> None:
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    threads = threading.active_count()
    hook = model.model.get_base_model().register_forward_hook(count)
    model.end_ids, ends = frozenset(), model.end_ids  # it would go on for 1,500 tokens
    try:
        stream = model.tuned.stream([{"role": "user", "content": "Hi"}], Sampling(max_tokens=1500))
        next(stream)
        stream.close()
    finally:
        model.end_ids = ends
        hook.remove()
    assert threading.active_count() == threads
    assert passes < 200


def test_a_conversation_that_the_model_cannot_read_is_told(model: TunedModel) -> None:
    with pytest.raises(TrainingError, match=r"the conversation has [0-9,]+ tokens, and the model reads 2,048"):
        model.tuned.answer([{"role": "user", "content": "word " * 3000}], Sampling())
    with pytest.raises(TrainingError, match="this model's chat template refuses the conversation"):
        model.tuned.answer([{"role": "user", "content": 5}], Sampling())
