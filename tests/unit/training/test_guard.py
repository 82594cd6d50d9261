"""Under fp16's loss scaling an infinite gradient is a skipped step; a loss that is not finite ends the run."""

import pytest
import torch
from peft import PeftModel

from tests.unit.training.test_engine import CPU, build, gradients, random_rows, reference
from trainer.errors import TrainingError
from trainer.model.adapter import keep_float32, trainable
from trainer.training.engine import Engine
from trainer.training.guard import FiniteGuard


class Fp16:
    """One step as on a GPU before Ampere: float16, a dense mask, scaled losses."""

    def __init__(self, scale: float) -> None:
        self.model: PeftModel = build("Llama", torch.float16)
        keep_float32(self.model)
        self.parameters = list(trainable(self.model).values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.1, fused=True)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.guard = FiniteGuard(CPU, "stop", loss_is_scaled=True)
        self.engine = Engine(self.model, CPU, kind="dense")

    def backward(self) -> None:
        packs = self.engine.packs(random_rows(), 10_000)
        total = sum(pack.num_supervised for pack in packs)
        for pack in packs:
            nll = self.engine.sums(pack).nll
            self.guard.see_loss(nll)
            self.scaler.scale(nll / total).backward()
        self.scaler.unscale_(self.optimizer)

    def update(self) -> None:
        self.guard.gate(torch.nn.utils.clip_grad_norm_(self.parameters, 1.0), self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def test_an_overflow_changes_no_weight_and_lowers_the_scale() -> None:
    step = Fp16(scale=2.0**40)
    before = [parameter.detach().clone() for parameter in step.parameters]
    step.backward()
    step.update()
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))
    assert step.scaler.get_scale() == 2.0**39
    assert step.guard.check(1) == 0


def test_scaled_gradients_are_those_of_float32() -> None:
    step = Fp16(scale=2.0**12)
    step.backward()
    found = gradients(step.model)
    model = build("Llama", torch.float32)
    _, expected = reference(model, random_rows())
    a, b = (torch.cat([tensors[name].flatten() for name in expected]) for tensors in (found, expected))
    assert (a - b).norm() <= 0.01 * b.norm()


def test_a_loss_that_is_not_finite_is_no_overflow() -> None:
    step = Fp16(scale=1.0)
    step.guard.see_loss(torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="the loss is not finite"):
        step.guard.check(1)
