"""A step on pairs has the loss and gradient of two plain models, one answer at a time, however it is cut."""

import copy
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from trl import DPOConfig, DPOTrainer

from tests.conftest import make_settings, make_tokenizer
from tests.unit.training.test_engine import (
    CPU,
    DOUBLE,
    VOCAB,
    assert_same,
    build,
    gradients,
    masked,
)
from tests.unit.training.test_executor import plan
from trainer.data.pack.pairs import make_pair_packs, pair_size
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.training.engine import Engine
from trainer.training.pairs import Pair, PairExecutor, longest
from trainer.training.preference import MEASURES, PreferenceLoss
from trainer.training.ranks import Ranks

pytestmark = pytest.mark.apart

LOSSES = {
    "sigmoid": PreferenceLoss(0.5, "sigmoid", 0.0, 0.0),
    "smoothed": PreferenceLoss(0.3, "sigmoid", 0.2, 0.0),
    "ipo": PreferenceLoss(0.4, "ipo", 0.0, 0.0),
    "sigmoid and sft": PreferenceLoss(0.5, "sigmoid", 0.1, 0.7),
}
LOSS = LOSSES["sigmoid and sft"]
TRL_LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.5},
    # Its sigmoid knows no smoothing; in a batch of one pair AOT, which sorts pairs, is the same loss with it.
    "smoothed": {"loss_type": ["aot"], "beta": 0.3, "label_smoothing": 0.2},
    "ipo": {"loss_type": ["ipo"], "beta": 0.4},
    "sigmoid and sft": {"loss_type": ["aot", "sft"], "loss_weights": [1.0, 0.7], "beta": 0.5, "label_smoothing": 0.1},
}
Found = tuple[float, dict[str, torch.Tensor]]


def random_pairs(seed: int = 0, prompts: Sequence[int] = (30, 30, 12, 40)) -> list[Pair]:
    """Pairs with prompts in common, of answers that begin alike, and one whose answers share their first tokens."""
    random = Random(seed)
    text = [random.randrange(5, VOCAB) for _ in range(60)]

    def answer(prompt: list[int], begins: Sequence[int] = ()) -> Example:
        ids = [*prompt, *begins, *(random.randrange(5, VOCAB) for _ in range(random.randrange(3, 20)))]
        return masked(ids, lambda t: t >= len(prompt))

    pairs = []
    for number, length in enumerate(prompts):
        prompt = text[:length]
        begins = text[40:44] if number % 2 else []
        pairs.append(Pair((answer(prompt, begins),), (answer(prompt, begins),)))
    return pairs


def with_reference(pairs: Sequence[Pair], base: torch.nn.Module) -> list[Pair]:
    """The pairs with what a second, whole model says of their answers."""
    with torch.no_grad():
        return [
            Pair(pair.preferred, pair.other, tuple(float(sum(map(plain, [base] * len(a), a))) for a in pair.answers))  # type: ignore[arg-type]
            for pair in pairs
        ]


def plain(model: torch.nn.Module, example: Example) -> torch.Tensor:
    """The log-probability of the supervised tokens of one answer alone, in float64."""
    logits = model(input_ids=torch.tensor([example.input_ids]), use_cache=False).logits[0, :-1]
    labels = torch.tensor(example.labels[1:])
    scored = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    return torch.log_softmax(logits[scored].double(), -1).gather(1, labels[scored, None]).sum()


def expected_loss(
    loss: PreferenceLoss, pairs: Sequence[Pair], logps: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> Any:
    """The formulas as their papers have them, pair by pair."""
    total: Any = 0.0
    num_preferred = sum(pair.counts[0] for pair in pairs)
    for pair, (preferred, other) in zip(pairs, logps, strict=True):
        chosen, rejected = preferred - pair.reference[0], other - pair.reference[1]
        if loss.kind == "ipo":
            gap = chosen / pair.counts[0] - rejected / pair.counts[1]
            value = (gap - 1 / (2 * loss.beta)) ** 2
        else:
            likely = torch.sigmoid(loss.beta * (chosen - rejected))
            value = -(1 - loss.label_smoothing) * likely.log() - loss.label_smoothing * (1 - likely).log()
        total = total + value / len(pairs) - loss.sft_weight * preferred / num_preferred
    return total


def expected(model: PeftModel, pairs: Sequence[Pair], loss: PreferenceLoss) -> Found:
    model.zero_grad()
    logps = [tuple(sum(plain(model, row) for row in answer) for answer in pair.answers) for pair in pairs]
    value = expected_loss(loss, pairs, logps)  # type: ignore[arg-type]
    value.backward()
    return value.item(), gradients(model)


def executor_of(
    model: PeftModel, token_budget: int, folder: Path, dropout: float = 0.0, ranks: Ranks | None = None
) -> PairExecutor:
    config = make_settings(folder)(memory__shard_base=False, lora__lora_dropout=dropout)
    return PairExecutor(
        model, CPU, config, plan(token_budget), ranks or Ranks(), torch.Tensor.backward, lambda *_, **__: None
    )


def computed(executor: PairExecutor, pairs: Sequence[Pair], loss: PreferenceLoss = LOSS) -> Found:
    sums = executor.add_pair_gradients(pairs, loss, 1)
    return sums.loss.item(), gradients(executor.model)


def budgets(pairs: Sequence[Pair]) -> dict[int, str]:
    """Of which one cuts every pair, one some of them, and one none."""
    sizes = sorted(pair_size(pair.answers) for pair in pairs)
    return {1: "every row alone", sizes[0]: "some pairs cut", sizes[-1]: "no pair cut", 10_000: "one pack"}


def num_cut(pairs: Sequence[Pair], token_budget: int) -> int:
    return len(make_pair_packs([pair.answers for pair in pairs], token_budget).cut)


def test_the_budgets_cut_as_they_say() -> None:
    pairs = random_pairs()
    cut = [num_cut(pairs, token_budget) for token_budget in budgets(pairs)]
    assert cut[0] == 2 * len(pairs)
    assert 0 < cut[1] < cut[0]
    assert cut[2:] == [0, 0]


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_is_that_of_two_plain_models(name: str, tmp_path: Path) -> None:
    model = build("Llama")
    pairs = with_reference(random_pairs(), copy.deepcopy(model).unload())  # type: ignore[operator]
    found = expected(model, pairs, LOSSES[name])
    for token_budget in budgets(pairs):
        executor = executor_of(model, token_budget, tmp_path)
        assert_same(computed(executor, pairs, LOSSES[name]), found, 1e-6)


@pytest.mark.parametrize("model_name", ["Qwen3", "Gemma2", "Mistral", "Falcon"])
def test_any_model_sharing_or_not(model_name: str, tmp_path: Path) -> None:
    """Rows longer than a window go through Mistral and Gemma unshared, and all rows through Falcon."""
    model = build(model_name)
    pairs = random_pairs(prompts=(30, 55, 55, 12))
    pairs = with_reference(pairs, copy.deepcopy(model).unload())  # type: ignore[operator]
    found = expected(model, pairs, LOSS)
    for token_budget in (1, 75, 10_000):
        assert_same(computed(executor_of(model, token_budget, tmp_path), pairs), found, DOUBLE)


class TokenDPOTrainer(DPOTrainer):  # type: ignore[misc]  # TRL is not typed
    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # of token ids already


def trl_step(model: PeftModel, base: torch.nn.Module, pairs: Sequence[Pair], folder: Path, **settings: Any) -> Found:
    """Loss and gradient of TRL's trainer on the same tokens."""

    def split(pair: Pair) -> dict[str, list[int]]:
        (chosen,), (rejected,) = pair.answers
        prompt = len(chosen.input_ids) - chosen.num_supervised
        return {
            "prompt_ids": list(chosen.input_ids[:prompt]),
            "chosen_ids": list(chosen.input_ids[prompt:]),
            "rejected_ids": list(rejected.input_ids[prompt:]),
        }

    rows = [split(pair) for pair in pairs]
    arguments = DPOConfig(
        output_dir=str(folder), bf16=False, use_cpu=True, gradient_checkpointing=False, report_to=[], **settings
    )
    trainer = TokenDPOTrainer(
        model=model, ref_model=base, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=make_tokenizer(None, ["<pad>", "<eos>"], pad_token="<pad>", eos_token="<eos>"),
    )  # fmt: skip
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    loss.backward()
    return loss.item(), gradients(model)


@pytest.mark.parametrize("name", TRL_LOSSES)
def test_a_step_is_that_of_trl(name: str, tmp_path: Path) -> None:
    """In float32, on rows that both read from the same tokens."""
    model = build("Llama", torch.float32)
    base = copy.deepcopy(model).unload()  # type: ignore[operator]
    pairs = with_reference(random_pairs()[: 1 if "aot" in TRL_LOSSES[name]["loss_type"] else None], base)
    theirs = trl_step(copy.deepcopy(model), base, pairs, tmp_path / "trl", **TRL_LOSSES[name])
    for token_budget in budgets(pairs):
        executor = executor_of(model, token_budget, tmp_path)
        assert_same(computed(executor, pairs, LOSSES[name]), theirs, 1e-5)


def test_answers_that_are_only_read_have_their_log_probabilities(tmp_path: Path) -> None:
    model, pairs = build("Llama"), random_pairs()
    plain_ones = [answer for pair in with_reference(pairs, model) for answer in pair.reference]
    for token_budget in budgets(pairs):
        logps, _ = executor_of(model, token_budget, tmp_path).logps(pairs, 1)
        assert logps.flatten().tolist() == pytest.approx(plain_ones, rel=1e-7)
        assert not logps.requires_grad


def test_what_is_measured_is_that_of_the_pairs(tmp_path: Path) -> None:
    model = build("Llama")
    pairs = with_reference(random_pairs(), copy.deepcopy(model).unload())  # type: ignore[operator]
    executor = executor_of(model, 10_000, tmp_path)
    ratios = [
        [now - before for now, before in zip(policy.reference, pair.reference, strict=True)]
        for policy, pair in zip(with_reference(pairs, model), pairs, strict=True)
    ]
    margins = [LOSS.beta * (preferred - other) for preferred, other in ratios]
    for token_budget in budgets(pairs):
        executor = executor_of(model, token_budget, tmp_path)
        sums = executor.add_pair_gradients(pairs, LOSS, 1)
        found = dict(zip(MEASURES, sums.measures.tolist(), strict=True))
        assert found["reward_accuracy"] == sum(margin > 0 for margin in margins)
        assert found["reward_margin"] == pytest.approx(sum(margins))
        assert found["preferred_reward"] == pytest.approx(LOSS.beta * sum(preferred for preferred, _ in ratios))
        assert found["other_reward"] == pytest.approx(LOSS.beta * sum(other for _, other in ratios))
        assert found["kl_estimate"] == pytest.approx(sum(a * a + b * b for a, b in ratios) / 4)
        assert int(sums.num_correct) == int(executor.logps(pairs, 1)[1])


def test_an_answer_in_several_examples_is_the_sum_of_them(tmp_path: Path) -> None:
    """Templates that rewrite history make an example of each message of an answer."""
    model = build("Llama")
    (first, second) = random_pairs(prompts=(20, 20))
    pairs = with_reference(
        [Pair((*first.preferred, *second.preferred), first.other)], copy.deepcopy(model).unload()  # type: ignore[operator]
    )  # fmt: skip
    found = expected(model, pairs, LOSS)
    for token_budget in (1, 10_000):
        assert_same(computed(executor_of(model, token_budget, tmp_path), pairs), found, 1e-6)


def test_dropout_leaves_out_the_same_in_both_passes_of_a_cut_pair(tmp_path: Path) -> None:
    """Then a cut step is that of the weighted sum of what its first pass has seen."""
    model, pairs = build("Llama", dropout=0.3).train(), random_pairs(prompts=(30, 30))
    executor = executor_of(model, 1, tmp_path, dropout=0.3)
    seen: list[torch.Tensor] = []
    scores = executor.engine.scores

    def noted(pack: Any) -> Any:
        found = scores(pack)
        seen.append(found.nll.detach())
        return found

    executor.engine.scores = noted  # type: ignore[method-assign]
    executor.add_pair_gradients(pairs, LOSS, 1)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == len(second) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Small(Engine):
    """Has memory for 60 tokens at a time."""

    def scores(self, pack: Any) -> Any:
        if len(pack.input_ids) > 60:
            raise torch.OutOfMemoryError
        return super().scores(pack)


def test_a_step_out_of_memory_is_cut_finer_with_the_same_result(tmp_path: Path) -> None:
    model = build("Llama")
    pairs = with_reference(random_pairs(), copy.deepcopy(model).unload())  # type: ignore[operator]
    found = expected(model, pairs, LOSS)
    executor = executor_of(model, 10_000, tmp_path)
    executor.__dict__["engine"] = Small(model, CPU)
    assert_same(computed(executor, pairs), found, 1e-6)
    assert executor.budget.token_budget >= longest(pairs)
    assert executor.budget.token_budget <= 120
