"""The validation losses so far: which step is the best, when to stop early, and overfitting in words."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Curve:
    """Measurements of `valid_loss` in the order of their steps."""

    patience: int | None
    threshold: float
    points: list[tuple[int, float, float]] = field(default_factory=list)  # step, epoch, loss
    stale: int = 0  # measurements in a row without a better one
    best_step: int | None = None
    best_loss: float = float("inf")

    def add(self, step: int, epoch: float, loss: float) -> bool:
        """Record a measurement; True when it is the best so far."""
        self.points.append((step, epoch, loss))
        if loss < self.best_loss - self.threshold or self.best_step is None:
            self.best_step, self.best_loss, self.stale = step, loss, 0
            return True
        self.stale += 1
        return False

    @property
    def should_stop(self) -> bool:
        return self.patience is not None and self.stale >= self.patience

    def overfitting(self) -> str | None:
        """A sentence when the loss has risen since its best by more than a fiftieth, else None."""
        after = [point for point in self.points if point[0] > (self.best_step or 0)]
        if not after or after[-1][2] <= self.best_loss * 1.02:
            return None
        first_epoch = after[0][1]
        return (
            f"validation loss rose from epoch {first_epoch:.3g} on, from {self.best_loss:.3f} at step {self.best_step} "
            f"to {after[-1][2]:.3f} at step {after[-1][0]}"
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "points": self.points,
            "stale": self.stale,
            "best_step": self.best_step,
            "best_loss": self._finite_best(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.points = [tuple(point) for point in state["points"]]
        self.stale, self.best_step = state["stale"], state["best_step"]
        self.best_loss = float("inf") if state["best_loss"] is None else state["best_loss"]

    def _finite_best(self) -> float | None:
        return None if self.best_step is None else self.best_loss
