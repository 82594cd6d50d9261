"""A step sends work to the device and reads nothing back: what is queued there runs while the host prepares more.

The device is torch's meta device, which holds shapes and no numbers: whatever asks for a number, or makes a tensor as
long as its numbers say, fails. On a GPU the same would wait for everything that is queued.
"""

from pathlib import Path

import pytest
import torch

from tests.traced_flex import traced_flex
from tests.unit.training.test_engine import CPU, build, random_rows
from tests.unit.training.test_pair_steps import LOSS, budgets, executor_of, random_pairs
from trainer.model.adapter import trainable
from trainer.model.tree_attention import Kind
from trainer.training import loss
from trainer.training.engine import Engine
from trainer.training.guard import FiniteGuard
from trainer.training.loss import find_head
from trainer.training.meter import Meter
from trainer.training.preference import MEASURES

META = torch.device("meta")


def on_meta(name: str, kind: Kind) -> Engine:
    """An engine that was tried out on the CPU and then moved."""
    model = build(name, torch.float32)
    engine = Engine(model, CPU, kind=kind)
    model.to(META)
    engine.device = META
    engine.head = engine.head and find_head(engine.model)
    return engine


@pytest.mark.parametrize(
    ("name", "kind"), [("Llama", "dense"), ("Gemma2", "eager"), ("Llama", "flex"), ("Gemma3Text", "flex")]
)
@pytest.mark.apart
def test_a_step_reads_nothing_back(monkeypatch: pytest.MonkeyPatch, name: str, kind: Kind) -> None:
    monkeypatch.setitem(loss.LOGIT_BYTES, "meta", 10_000)
    monkeypatch.setitem(loss.SOFTMAX_BYTES, "meta", 5_000)
    with traced_flex():
        engine = on_meta(name, kind)
        packs = engine.packs(random_rows(), 10_000)
        total = sum(pack.num_supervised for pack in packs)
        parameters = list(trainable(engine.model).values())
        guard, meter = FiniteGuard(META, "stop", loss_is_scaled=False), Meter(META)
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        nll, correct = torch.zeros((), device=META), torch.zeros((), dtype=torch.int64, device=META)
        for pack in packs:
            sums = engine.sums(pack)
            (sums.nll / total).backward()
            nll += sums.nll.detach()
            correct += sums.num_correct
        guard.see_loss(nll)
        meter.add(nll, correct, total, 1)
        guard.gate(torch.nn.utils.clip_grad_norm_(parameters, 1.0), optimizer)
        assert all(parameter.grad is not None for parameter in parameters)


@pytest.mark.apart
def test_a_step_on_pairs_reads_nothing_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(loss.LOGIT_BYTES, "meta", 10_000)
    monkeypatch.setitem(loss.SOFTMAX_BYTES, "meta", 5_000)
    engine, pairs = on_meta("Llama", "dense"), random_pairs()
    for token_budget in budgets(pairs):  # also one that cuts them
        executor = executor_of(None, token_budget, tmp_path)  # type: ignore[arg-type]  # the engine has it
        executor.__dict__["engine"], executor.device = engine, META
        guard, meter = FiniteGuard(META, "stop", loss_is_scaled=False), Meter(META, MEASURES)
        sums = executor._compute(pairs, LOSS)
        guard.see_loss(sums.loss)
        meter.add(sums.loss * len(pairs), sums.num_correct, 7, 1, len(pairs), sums.measures)
    assert all(parameter.grad is not None for parameter in trainable(engine.model).values())


def test_the_meta_device_tells_what_would_wait() -> None:
    tensor = torch.ones(3, device=META)
    with pytest.raises(RuntimeError):
        tensor.sum().item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        tensor[tensor > 0]
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(tensor.any())
