"""The validation losses so far: which step is the best, when to stop early, overfitting and underfitting in words."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from trainer.runs import Run

NOTABLE = 0.02  # of a loss: a rise or fall worth a word
SLIGHT = 0.02  # nats a token: too little for a word, whatever share of a small loss it is
LATE = 2 / 3  # of the steps, after which a fall shows that there was more to learn


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
        """A sentence when the loss has risen notably since its best, else None."""
        after = [point for point in self.points if point[0] > (self.best_step or 0)]
        if not after or not _is_notable(self.best_loss, after[-1][2]):
            return None
        first_epoch = after[0][1]
        return (
            f"validation loss rose from epoch {first_epoch:.3g} on, from {self.best_loss:.3f} at step {self.best_step} "
            f"to {after[-1][2]:.3f} at step {after[-1][0]}"
        )

    def still_falling(self, n_epochs: int) -> str | None:
        """A sentence when the loss fell notably in the last third of the steps, to its best, else None.

        `n_epochs` were trained.
        """
        if not self.points or self.points[-1][0] != self.best_step:
            return None
        last_step, _, last = self.points[-1]
        before = [point for point in self.points if point[0] <= LATE * last_step]
        if not before or last >= before[-1][2] or not _is_notable(before[-1][2], last):
            return None
        return (
            f"validation loss was still falling at the end, from {before[-1][2]:.3f} at step {before[-1][0]} to "
            f"{last:.3f} at step {last_step}: train longer, such as training.n_epochs={2 * n_epochs}"
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "points": list(self.points),  # the checkpoint writer turns it into JSON later
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


def _is_notable(before: float, after: float) -> bool:
    return abs(after - before) > max(NOTABLE * before, SLIGHT)


def curve_of(losses: Iterable[tuple[float, float]], config: "RunConfig", total_steps: int | None) -> tuple[Curve, int]:
    """The curve of (step, valid_loss) pairs of a run, and how many epochs it was to train."""
    n_epochs = config.training.n_epochs if isinstance(config.training.n_epochs, int) else 1
    curve = Curve(None, config.training.early_stopping_threshold)
    for step, loss in losses:
        curve.add(int(step), n_epochs * step / (total_steps or step or 1), loss)
    return curve, n_epochs


def recorded_curve(run: "Run") -> tuple[Curve, int]:
    """The curve that a run's files hold, and how many epochs it was to train."""
    losses = [(row["step"], row["valid_loss"]) for row in run.results() if "valid_loss" in row]
    return curve_of(losses, run.config(), run.status().get("total_steps"))
