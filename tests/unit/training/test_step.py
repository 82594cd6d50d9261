"""A step's loss and gradient are those of one conversation at a time, however the step is cut."""

from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.data.packing import make_packs
from trainer.data.rendering import IGNORE_INDEX, Example
from trainer.training.loss import supervised_sums


@pytest.fixture
def model() -> PeftModel:
    """A random Llama with a random adapter: at B = 0 every gradient of A would be zero."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    adapted = get_peft_model(
        LlamaForCausalLM(shape), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted.double()


def random_examples(count: int = 7) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    examples = []
    for _ in range(count):
        length = int(torch.randint(5, 40, (1,), generator=generator))
        ids = torch.randint(0, 97, (length,), generator=generator).tolist()
        labels = [token if number % 3 else IGNORE_INDEX for number, token in enumerate(ids)]
        examples.append(Example(tuple(ids), tuple(labels)))
    return examples


def reference(model: PeftModel, examples: Sequence[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    """Each conversation alone, unpadded, with full logits; the sums divided by all supervised tokens."""
    model.zero_grad()
    total = sum(example.num_supervised for example in examples)
    loss = 0.0
    for example in examples:
        logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum") / total
        nll.backward()
        loss += nll.item()
    return loss, gradients(model)


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("token_budget", [1, 50, 100, 10_000])
def test_loss_and_gradient_do_not_depend_on_the_token_budget(model: PeftModel, token_budget: int) -> None:
    examples = random_examples()
    expected_loss, expected = reference(model, examples)
    model.zero_grad()
    total = sum(example.num_supervised for example in examples)
    loss = 0.0
    for pack in make_packs(examples, token_budget):
        nll = supervised_sums(model, pack).nll / total
        nll.backward()
        loss += nll.item()
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm(), name


def test_packs_hold_every_token_and_label_once_within_the_budget() -> None:
    examples = random_examples(20)
    packs = make_packs(examples, token_budget=80)
    rows = [
        (tuple(ids[mask.bool()].tolist()), tuple(labels[mask.bool()].tolist()))
        for pack in packs
        for ids, mask, labels in zip(pack.input_ids, pack.attention_mask, pack.labels, strict=True)
    ]
    assert sorted(rows) == sorted((example.input_ids, example.labels) for example in examples)
    assert all(pack.input_ids.numel() <= 80 for pack in packs)
    assert all((pack.labels[pack.attention_mask == 0] == IGNORE_INDEX).all() for pack in packs)


def test_accuracy_counts_the_supervised_tokens_that_are_predicted(model: PeftModel) -> None:
    (example,) = random_examples(1)
    predicted = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1].argmax(-1)
    targets = torch.tensor(example.labels[1:])
    (pack,) = make_packs([example], 1000)
    assert supervised_sums(model, pack).num_correct == (predicted == targets).sum()
