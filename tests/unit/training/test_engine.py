"""A step's loss and gradient are those of one conversation at a time: for any model, any sharing, any cut."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tests.mixtures import MIXTURES, mixture
from tests.traced_flex import traced_flex
from trainer.config.schema import LoraSettings
from trainer.data.conversations import Conversation
from trainer.data.read.rows import read_conversations
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.model import flex, tree_attention
from trainer.model.adapter import add_adapter
from trainer.model.tree_attention import Kind
from trainer.training.engine import Engine

pytestmark = pytest.mark.apart

CPU = torch.device("cpu")
VOCAB = 131
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 64}
LONG = {"rope_theta": 1e4, "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
RECURRENT = {
    "shared_expert_intermediate_size": 16,
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
MODELS = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Mistral": WINDOW,
    "Phi": {},
    "Phi3": {},
    "Gemma": {"head_dim": 8},
    "Gemma2": WINDOW | {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 2.0},
    "Gemma3Text": WINDOW | {"head_dim": 8, "final_logit_softcapping": 2.0},
    "SmolLM3": {},
    "Olmo": {},
    "Olmo2": {},
    "Granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "Cohere": {"logit_scale": 0.25},
    "Glm4": {"head_dim": 8},
    "Starcoder2": {},
}
UNSHARED_MODELS = {
    "GptOss": WINDOW | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Qwen3Next": EXPERTS | RECURRENT | {"head_dim": 8},
    "Falcon": {"alibi": True},
}


def build(name: str, dtype: torch.dtype = torch.float64, dropout: float = 0.0, **changes: object) -> PeftModel:
    """A random model with a random adapter: at B = 0 every gradient of A would be zero."""
    torch.manual_seed(0)
    values = SHAPE | MODELS.get(name, UNSHARED_MODELS.get(name, {})) | changes
    config: PreTrainedConfig = getattr(transformers, f"{name}Config")(**values)
    model = AutoModelForCausalLM.from_config(config)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=dropout)
    )
    for parameter_name, parameter in adapted.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted.to(dtype)


def random_rows(seed: int = 0, longest: int = 60) -> list[Example]:
    """A shared prompt, shared histories, duplicates, and rows that share nothing."""
    random = Random(seed)
    prompt = [random.randrange(5, VOCAB) for _ in range(30)]
    rows = []
    for _ in range(6):
        ids = prompt[: random.choice((30, 30, 12, 0))]
        ids += [random.randrange(5, VOCAB) for _ in range(random.randrange(4, longest - 30))]
        rows.append(masked(ids, lambda t: random.random() < 0.5 or t == 3))
    return [*rows, rows[0], masked(rows[1].input_ids, lambda t: t > 5)]


def masked(ids: Sequence[int], is_trained: Callable[[int], bool]) -> Example:
    return Example(tuple(ids), tuple(token if is_trained(t) else IGNORE_INDEX for t, token in enumerate(ids)))


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def reference(model: PeftModel, rows: Sequence[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    """Each conversation alone, unpadded, with the model's own logits; the sums divided by all supervised tokens."""
    model.zero_grad()
    targets = [torch.tensor(row.labels[1:]) for row in rows]
    total = sum(int((target != IGNORE_INDEX).sum()) for target in targets)
    loss = 0.0
    for row, target in zip(rows, targets, strict=True):
        logits = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, target, reduction="sum") / total
        nll.backward()
        loss += nll.item()
    return loss, gradients(model)


def packed(
    model: PeftModel, engine: Engine, rows: Sequence[Example], token_budget: int
) -> tuple[float, dict[str, torch.Tensor]]:
    packs = engine.packs(rows, token_budget)
    total = sum(pack.num_supervised for pack in packs)
    loss = 0.0
    for pack in packs:
        nll = engine.sums(pack).nll / total
        nll.backward()
        loss += nll.item()
    return loss, gradients(model)


def assert_same(
    found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]], bound: float
) -> None:
    assert found[0] == pytest.approx(expected[0], rel=bound)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= bound * gradient.norm(), name


# Norms, rotary angles and softmax stay float32 in a float64 model. Seen on two instruction sets: 4.1e-6 and 1.2e-6.
SINGLE, DOUBLE = 2e-5, 6e-6
BOUNDS = [(torch.float32, SINGLE), (torch.float64, DOUBLE)]


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("name", MODELS)
def test_sharing_changes_neither_loss_nor_gradient(name: str, dtype: torch.dtype, bound: float) -> None:
    model, rows = build(name, dtype), random_rows()
    expected = reference(model, rows)
    engine = Engine(model, CPU)
    assert engine.head is not None
    assert all(pack.shared for pack in engine.packs(rows, 10_000))
    for token_budget in (1, 90, 10_000):
        assert_same(packed(model, engine, rows, token_budget), expected, bound)


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_chosen_for_each_token_alone(name: str) -> None:
    """So packs change neither loss nor gradient: routing has no capacity, no loss of its own and no noise."""
    torch.manual_seed(0)
    model, rows = add_adapter(mixture(name), LoraSettings(r=4)), random_rows()
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = reference(model, rows)
    assert any(".experts." in weight for weight in expected[1])
    engine = Engine(model, CPU)
    assert any(pack.shared for pack in engine.packs(rows, 10_000)) is (name != "GptOss")
    for token_budget in (1, 90, 10_000):
        assert_same(packed(model, engine, rows, token_budget), expected, SINGLE)


@pytest.mark.parametrize(("name", "dropout"), [*((name, 0.2) for name in MODELS), *((n, 0.0) for n in UNSHARED_MODELS)])
def test_computing_layers_again_changes_no_bit(name: str, dropout: float) -> None:
    model, rows = build(name, torch.float32, dropout=dropout).train(), random_rows()
    engine, outcomes = Engine(model, CPU), []
    assert engine.num_recomputable == 2
    for num_layers in range(3):
        engine.recompute(num_layers)
        torch.manual_seed(3)
        outcomes.append(packed(model, engine, rows, 100))
    (loss, expected), *others = outcomes
    for other_loss, found in others:
        assert other_loss == loss
        assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("name", UNSHARED_MODELS)
def test_models_that_see_more_than_the_rule_are_not_shared_and_say_so(name: str) -> None:
    model, rows = build(name, torch.float32), random_rows()
    expected = reference(model, rows)
    engine = Engine(model, CPU)
    (note,) = engine.notes
    assert note.startswith("the model")
    packs = engine.packs(rows, 200)
    assert not any(pack.shared for pack in packs)
    assert_same(packed(model, engine, rows, 200), expected, SINGLE)


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
def test_an_unfit_attention_is_found_by_trying(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A mask that lets rows see each other stands for whatever no configuration tells."""
    monkeypatch.setattr(tree_attention, "dense_mask", lambda ends: torch.ones(1, 1, len(ends), len(ends)).tril().bool())
    model, rows = build(name), random_rows()
    expected = reference(model, rows)
    engine = Engine(model, CPU, kind="eager" if name == "Gemma2" else "dense")
    assert engine.notes[-1] == "rows share no tokens: this model computes something else from shared ones"
    assert_same(packed(model, engine, rows, 200), expected, DOUBLE)


@pytest.mark.parametrize("name", ["Llama", "Granite"])
@pytest.mark.parametrize("kind", ["dense", "eager"])
def test_the_dense_mask_is_exact_too(name: str, kind: Kind) -> None:
    model, rows = build(name), random_rows()
    expected = reference(model, rows)
    assert_same(packed(model, Engine(model, CPU, kind=kind), rows, 150), expected, DOUBLE)


@pytest.fixture
def flex_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    monkeypatch.setattr(tree_attention, "kind_for", lambda model, device: "flex")
    with traced_flex() as graphs:
        yield graphs


@pytest.mark.parametrize("name", ["Llama", "Gemma3Text", "Granite"])
def test_flex_attention_is_exact_too(flex_graphs: list[Any], name: str) -> None:
    model, rows = build(name), random_rows()
    expected = reference(model, rows)
    engine = Engine(model, CPU)
    assert engine.kind == "flex"
    assert engine.notes == [] or "window" in engine.notes[0]
    for token_budget in (60, 150, 10_000):  # packs of one block have a dense mask
        assert_same(packed(model, engine, rows, token_budget), expected, DOUBLE)
    assert len(flex_graphs) == 1


def test_a_machine_that_cannot_build_flex_attention_gets_the_dense_mask(
    flex_graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def attend(*arguments: Any) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(flex, "attend", attend)
    model, rows = build("Llama"), random_rows()
    engine = Engine(model, CPU)
    assert engine.kind == "dense"
    (note,) = engine.notes
    assert "FlexAttention does not run here" in note
    assert "Failed to find C compiler" in note
    assert_same(packed(model, engine, rows, 10_000), reference(model, rows), DOUBLE)


def test_a_wrong_gradient_of_flex_attention_is_found_by_trying(
    flex_graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its forward and backward kernels are not the same code; the loss alone would look right."""
    right = flex.attend

    def attend(query: torch.Tensor, *others: Any) -> torch.Tensor:
        return right(2 * query.detach() - query, *others)  # the same value

    monkeypatch.setattr(flex, "attend", attend)
    model, rows = build("Llama"), random_rows()
    engine = Engine(model, CPU)
    assert engine.kind == "dense"
    assert "another gradient" in engine.notes[0]
    assert_same(packed(model, engine, rows, 10_000), reference(model, rows), DOUBLE)


@pytest.mark.parametrize("name", ["Mistral", "Gemma2", "Gemma3Text"])
def test_rows_longer_than_a_window_are_not_shared(name: str) -> None:
    model, rows = build(name, sliding_window=40), random_rows()
    expected = reference(model, rows)
    engine = Engine(model, CPU)
    assert "rows longer than 40 tokens" in engine.notes[0]
    assert {pack.shared for pack in engine.packs(rows, 500)} == {True, False}
    assert_same(packed(model, engine, rows, 150), expected, DOUBLE)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rows_on_either_side_of_the_original_length_keep_their_frequencies(kind: str) -> None:
    rope = (
        LONG | {"original_max_position_embeddings": 40}
        if kind == "longrope"
        else {"rope_type": kind, "factor": 2.0, "rope_theta": 1e4}
    )
    changes = {} if kind == "longrope" else {"max_position_embeddings": 40}
    name = "Phi3" if kind == "longrope" else "Llama"
    model, rows = (
        build(name, rope_parameters=rope, **changes),
        sorted(random_rows(), key=lambda row: len(row.input_ids)),
    )
    assert len(rows[0].input_ids) < 40 < len(rows[-1].input_ids)
    expected = reference(model, rows)  # from short to long: transformers keeps the frequencies of the longest so far
    engine = Engine(model, CPU)
    for _ in range(2):
        assert_same(packed(model, engine, rows, 10_000), expected, DOUBLE)


@given(st.integers(0, 2**32), st.integers(1, 300))
@settings(max_examples=15, deadline=None)
def test_any_rows_under_any_budget(seed: int, token_budget: int) -> None:
    model, rows = build("Qwen3"), random_rows(seed)
    assert_same(packed(model, Engine(model, CPU), rows, token_budget), reference(model, rows), DOUBLE)


def test_one_very_long_row() -> None:
    model = build("Llama", max_position_embeddings=4096)
    random = Random(3)
    rows = [masked([random.randrange(5, VOCAB) for _ in range(length)], lambda t: t > 2) for length in (1500, 20)]
    assert_same(packed(model, Engine(model, CPU), rows, 100), reference(model, rows), DOUBLE)


def test_a_trained_head_keeps_its_own_gradient() -> None:
    torch.manual_seed(0)
    model = build("Llama")
    base = model.unload()
    targets = ["q_proj", "lm_head"]
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    )
    model, rows = model.double(), random_rows()
    engine = Engine(model, CPU)
    assert engine.head is None
    expected = reference(model, rows)
    assert any("lm_head" in name for name in expected[1])
    assert_same(packed(model, engine, rows, 150), expected, DOUBLE)


def test_rows_without_a_supervised_token_change_nothing() -> None:
    model, rows = build("Llama"), random_rows()
    engine = Engine(model, CPU)
    untrained = masked(rows[0].input_ids, lambda t: False)
    assert_same(packed(model, engine, [*rows, untrained], 150), packed(model, engine, rows, 150), 0.0)


def test_accuracy_counts_the_supervised_tokens_that_are_predicted() -> None:
    model, rows = build("Llama"), random_rows()
    correct = 0
    for row in rows:
        predicted = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].argmax(-1)
        correct += int((predicted == torch.tensor(row.labels[1:])).sum())
    engine = Engine(model, CPU)
    assert sum(int(engine.sums(pack).num_correct) for pack in engine.packs(rows, 100)) == correct


SAMPLES = os.environ.get("TRAINER_SAMPLE_DATA")
FILES = ["tool_calls/stock_toolcall_training.jsonl", "gsm8k/chat_train.jsonl", "clippy/training_set.jsonl"]


@pytest.mark.skipif(SAMPLES is None, reason="TRAINER_SAMPLE_DATA is not set")
@pytest.mark.parametrize("file", FILES)
def test_real_rows_are_shared_without_a_change(file: str) -> None:
    conversations = read_conversations(Path(SAMPLES or "") / file).conversations[:5]
    rows = [as_bytes(conversation) for conversation in conversations]
    model = build("Llama", vocab_size=256, max_position_embeddings=32_768)
    engine = Engine(model, CPU)
    packs = engine.packs(rows, 100_000)
    assert sum(len(pack.input_ids) for pack in packs) < 0.9 * sum(len(row.input_ids) for row in rows)
    assert_same(packed(model, engine, rows, 3000), reference(model, rows), DOUBLE)


def as_bytes(conversation: Conversation) -> Example:
    """A stand-in for a tokenizer: the bytes of the row; the assistant's are trained."""
    ids, labels = list(json.dumps(conversation.tools).encode()[:300]), [IGNORE_INDEX] * 300
    del labels[len(ids) :]
    for message in conversation.messages:
        text = f"<{message.role}>{message.content or message.tool_calls}".encode()[:400]
        ids += text
        labels += text if message.trained else [IGNORE_INDEX] * len(text)
    return Example(tuple(ids), tuple(labels))
