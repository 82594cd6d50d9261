"""A loss or gradient that is not finite changes no weight, and what it would have changed is not stored.

The flag lives on the device: it stops the optimizer from updating in the very step it is raised, without waiting for
the device. It is read when metrics are read, and before every save.
"""

from typing import Any, Literal

import torch

from trainer.errors import TrainingError

MAX_SKIPPED_IN_A_ROW = 5


class FiniteGuard:
    """Leaves out updates whose loss or gradient is NaN or infinite; under the policy `stop` all after the first too."""

    def __init__(self, device: torch.device, policy: Literal["stop", "skip"], loss_is_scaled: bool) -> None:
        self.policy = policy
        # With fp16 loss scaling an infinite gradient is routine: the scaler skips that step and lowers the scale.
        self.loss_is_scaled = loss_is_scaled
        self._loss_failed = torch.zeros((), dtype=torch.bool, device=device)  # in this step
        # Steps with a bad loss and with a bad gradient since the last reading; bad steps in a row, now and most.
        self._counts = torch.zeros(4, dtype=torch.int64, device=device)

    def see_loss(self, loss: torch.Tensor) -> None:
        self._loss_failed = ~torch.isfinite(loss)
        if self.loss_is_scaled:
            self._count(torch.zeros_like(self._loss_failed))

    def gate(self, grad_norm: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Make the coming step a no-op if it is not finite: torch's fused optimizers read found_inf."""
        if self.loss_is_scaled:
            return
        self._count(~torch.isfinite(grad_norm))
        left_out = self._counts[2] > 0 if self.policy == "skip" else self._counts[3] > 0
        optimizer.found_inf = left_out.float()  # type: ignore[attr-defined]

    def _count(self, gradient_failed: torch.Tensor) -> None:
        self._counts[0] += self._loss_failed
        self._counts[1] += gradient_failed
        self._counts[2] = (self._counts[2] + 1) * (self._loss_failed | gradient_failed)
        self._counts[3] = torch.maximum(self._counts[2], self._counts[3])

    def check(self, step: int) -> int:
        """Count the updates left out since the last check. Reads the device.

        Raises: TrainingError, naming what was not finite: at once, or where the policy is `skip` after five in a row.
        """
        losses, gradients, in_a_row, most_in_a_row = self._counts.tolist()
        if most_in_a_row > (0 if self.policy == "stop" else MAX_SKIPPED_IN_A_ROW - 1):
            found = " and the ".join(name for name, count in (("loss", losses), ("gradient", gradients)) if count)
            often = f" in {most_in_a_row} steps in a row" if self.policy == "skip" else ""
            raise TrainingError(
                f"step {step}: the {found} is not finite{often}, expected finite numbers; nothing of it was stored; "
                "lower the learning rate, or look at the rows of this step"
            )
        self._counts[:2] = 0
        self._counts[3] = in_a_row
        return int(max(losses, gradients))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"in_a_row": int(self._counts[2])}

    def restore(self, state: dict[str, Any]) -> None:
        self._counts[2:] = state["in_a_row"]
