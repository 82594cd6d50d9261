"""A loss or gradient that is not finite changes nothing and is not stored.

The flag lives on the device: it stops the optimizer from updating in the very step it is raised, without waiting for
the device. It is read when metrics are read, and before every save.
"""

import torch

from trainer.errors import TrainingError


class FiniteGuard:
    """Remembers whether a loss or gradient was ever NaN or infinite."""

    def __init__(self, device: torch.device, loss_is_scaled: bool) -> None:
        # With fp16 loss scaling an infinite gradient is routine: the scaler skips that step and lowers the scale.
        self.loss_is_scaled = loss_is_scaled
        self.loss_failed = torch.zeros((), dtype=torch.bool, device=device)
        self.gradient_failed = torch.zeros((), dtype=torch.bool, device=device)

    def see_loss(self, loss: torch.Tensor) -> None:
        self.loss_failed |= ~torch.isfinite(loss)

    def gate(self, grad_norm: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Make the coming step a no-op if anything was not finite: torch's fused optimizers read found_inf."""
        if self.loss_is_scaled:
            return
        self.gradient_failed |= ~torch.isfinite(grad_norm)
        optimizer.found_inf = (self.loss_failed | self.gradient_failed).float()  # type: ignore[attr-defined]

    def raise_if_failed(self, step: int, parameters: dict[str, torch.nn.Parameter] | None = None) -> None:
        """Raises: TrainingError, naming what was not finite. Reads the device."""
        found = [name for name, flag in (("loss", self.loss_failed), ("gradient", self.gradient_failed)) if flag.item()]
        for name, parameter in (parameters or {}).items():
            if not torch.isfinite(parameter).all():
                found.append(f"weight {name}")
                break
        if found:
            raise TrainingError(
                f"step {step}: the {' and the '.join(found)} is not finite, expected finite numbers; nothing of it was "
                "stored; lower the learning rate, or look at the rows of this step"
            )
