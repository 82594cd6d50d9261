"""Check that an arm computes what one conversation at a time does in float32."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

COSINE, NORM, LOSS = 0.999, 0.02, 2e-3  # a 16-bit arm must come this near to the reference


def agreement(
    loss: float, gradient: "dict[str, Tensor]", expected: float, reference: "dict[str, Tensor]"
) -> tuple[dict[str, float], str | None]:
    """How near both are, and what is wrong, or None."""
    import torch

    assert gradient.keys() == reference.keys(), "the arms train different weights"
    a, b = (
        torch.cat([tensors[key].flatten().double() for key in sorted(tensors)]) for tensors in (gradient, reference)
    )
    cosine, norm = float(a @ b / a.norm() / b.norm()), abs(float(a.norm() / b.norm()) - 1)
    off = abs(loss / expected - 1)
    found = {"gradient_cosine": cosine, "gradient_norm_off": norm, "loss_off": off}
    if cosine >= COSINE and norm <= NORM and off <= LOSS:
        return found, None
    return found, f"cosine {cosine:.5f}, norm off {norm:.4f}, loss off {off:.5f}"
