"""transformers' continuous batching answers like plain generate: for every kind of attention, however full it is."""

import asyncio
import tempfile
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.serve.engine import PAGE_TOKENS, ServingEngine
from trainer.inference.serve.limits import Limits
from trainer.model.base import find_base
from trainer.model.loading import load_model

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
}
STOP = 127
KINDS: dict[str, Any] = {
    "full attention": LlamaConfig(**SHAPE),
    "queries and keys normalized": Qwen3Config(**SHAPE),
    "a window of 16 tokens": MistralConfig(**SHAPE, sliding_window=16),
    "both": Gemma3TextConfig(**SHAPE, sliding_window=16),
    "capped scores": Gemma2Config(**SHAPE, sliding_window=16),
    "sinks": GptOssConfig(**SHAPE, sliding_window=16, num_local_experts=4, num_experts_per_tok=2),
}


def random_model(config: Any) -> Any:
    """Weights large enough that the next token depends on all that is seen, loaded as a run loads them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        settings = ModelConfig(base=folder)
        return load_model(find_base(settings), settings, torch.device("cpu"), torch.float32).eval()


def prompt(num_tokens: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, STOP, (num_tokens,), generator=generator).tolist()


def generated(model: Any, ids: list[int], num_tokens: int) -> list[int]:
    output = model.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=num_tokens, eos_token_id=STOP, pad_token_id=0
    )
    tokens: list[int] = output[0, len(ids) :].tolist()
    return tokens


def served(model: Any, prompts: list[list[int]], num_tokens: int, num_pages: int | None = None) -> list[list[int]]:
    """All prompts at once."""

    async def answer_all() -> list[list[int]]:
        engine = ServingEngine(model, [STOP], 1024, Limits(max_requests=len(prompts)))
        engine.num_pages = num_pages or engine.num_pages
        engine.start()
        try:
            return await asyncio.gather(*(answer(engine, ids) for ids in prompts))
        finally:
            engine.stop()

    async def answer(engine: ServingEngine, ids: list[int]) -> list[int]:
        return [token async for tokens in engine.tokens(ids, Sampling(max_tokens=num_tokens)) for token in tokens]

    return asyncio.run(answer_all())


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.long) if kind in list(KINDS)[1:3] else kind for kind in KINDS],
)
def test_answers_are_those_of_generate(kind: str) -> None:
    model = random_model(KINDS[kind])
    prompts = [prompt(length, seed) for seed, length in enumerate((1, 5, 63, 64, 65, 200, 700))]
    expected = [generated(model, ids, 20) for ids in prompts]
    assert served(model, prompts, 20) == expected


def test_a_shared_beginning_changes_nothing() -> None:
    model, shared = random_model(KINDS["full attention"]), prompt(3 * PAGE_TOKENS, seed=1)
    prompts = [shared + prompt(10, seed) for seed in range(6)] + [shared]
    assert served(model, prompts, 10) == [generated(model, ids, 10) for ids in prompts]


def test_a_cache_that_is_too_small_for_all_at_once_changes_nothing() -> None:
    """Some are put back and read again."""
    model = random_model(KINDS["full attention"])
    prompts = [prompt(100, seed) for seed in range(8)]
    assert served(model, prompts, 60, num_pages=6) == [generated(model, ids, 60) for ids in prompts]


def test_an_architecture_that_cannot_be_batched_is_told_with_the_way_out() -> None:
    model = random_model(Lfm2Config(**SHAPE, full_attn_idxs=[1, 3]))
    with pytest.raises(
        ConfigError, match="cannot be served by transformers' continuous batching: Invalid layer type: conv"
    ):
        ServingEngine(model, [STOP], 256, Limits()).start()


def test_without_memory_for_conversations_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.inference.serve import engine

    monkeypatch.setattr(engine, "free_memory_bytes", lambda device: 1000)
    with pytest.raises(ConfigError, match="cpu has no memory left for conversations beside the model; free some"):
        ServingEngine(random_model(KINDS["full attention"]), [STOP], 256, Limits())


def test_with_little_memory_conversations_are_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.inference.serve import engine

    model = random_model(KINDS["full attention"])
    monkeypatch.setattr(engine, "free_memory_bytes", lambda device: 5_000_000)
    small = ServingEngine(model, [STOP], 1024, Limits())
    assert small.max_length < 1024
    assert small.max_length == small.num_pages * PAGE_TOKENS


def test_a_model_that_fails_says_so_to_those_who_wait_and_to_the_health_check() -> None:
    from trainer.inference.serve.refusals import Refusal

    model = random_model(KINDS["full attention"])

    async def fail() -> None:
        engine = ServingEngine(model, [STOP], 256, Limits())
        engine.start()
        assert engine.problem is None
        model.model.layers[0].forward = lambda *arguments, **options: 1 / 0
        try:
            with pytest.raises(Refusal, match="the model failed: division by zero") as caught:
                async for _ in engine.tokens([1, 2, 3], Sampling()):
                    pass
            assert caught.value.status == 500
            while engine.problem is None:  # told a moment after those who wait
                await asyncio.sleep(0.01)
            assert engine.problem == "ZeroDivisionError: division by zero"
            with pytest.raises(Refusal, match="the model has stopped: ZeroDivisionError"):
                async for _ in engine.tokens([1, 2, 3], Sampling()):
                    pass
        finally:
            engine.stop()

    asyncio.run(fail())
