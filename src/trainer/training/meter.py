"""Loss, accuracy and speed of the steps since the last reading, and the loss of each of them."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

SPIKE = 3.0  # times the median of the steps before it
SPIKE_WINDOW = 50
MIN_WINDOW = 10


@dataclass(frozen=True, slots=True)
class MeterReading:
    """Measurements since the last reading.

    `result` are columns of results.csv; a loss is absent where none was finite. `spikes` are losses far above the
    median of the steps before them, each with how many steps before this reading it was, and that median.
    """

    result: dict[str, float]
    rest: dict[str, float]
    spikes: list[tuple[int, float, float]]


class Meter:
    """Sums over the steps since the last reading, and the time that they took.

    The device adds; only `read` and `state` wait for it.
    """

    def __init__(self, device: torch.device, measures: Sequence[str] = ()) -> None:
        """`measures`: what steps report beside loss and accuracy, as sums over what has a loss each."""
        self.names = tuple(measures)
        self.nll = torch.zeros((), dtype=torch.float64, device=device)
        self.measures = torch.zeros(len(self.names), dtype=torch.float64, device=device)
        self.num_losses = torch.zeros((), dtype=torch.int64, device=device)  # finite ones: of tokens, or of pairs
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.num_finite = torch.zeros((), dtype=torch.int64, device=device)  # supervised tokens with a finite loss
        self.losses: list[torch.Tensor] = []
        self.recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self.num_supervised = self.num_tokens = 0
        self.total_tokens = self.total_supervised = 0
        self.seconds = 0.0  # of training since the last reading, up to `since`
        self.since: float | None = None

    def start(self) -> None:
        """Let the clock run: a step begins."""
        if self.since is None:
            self.since = time.monotonic()

    def pause(self) -> None:
        """Stop the clock until the next step: what comes now is no training."""
        self.seconds, self.since = self._elapsed(), None

    def _elapsed(self) -> float:
        return self.seconds + (0.0 if self.since is None else time.monotonic() - self.since)

    def add(
        self,
        nll: torch.Tensor,
        num_correct: torch.Tensor,
        num_supervised: int,
        num_tokens: int,
        num_losses: int | None = None,
        measures: torch.Tensor | None = None,
    ) -> None:
        """Add a step: sums over its supervised tokens. One whose loss is not finite does not count.

        `nll` is a sum of `num_losses`, by default of as many as tokens, and so are the `measures` [K].
        """
        finite = torch.isfinite(nll)
        num_losses = num_supervised if num_losses is None else num_losses
        self.nll += torch.where(finite, nll, 0.0)
        self.num_correct += num_correct * finite
        self.num_finite += finite * num_supervised
        self.num_losses += finite * num_losses
        if measures is not None:
            self.measures += torch.where(finite, measures, 0.0)
        self.losses.append(nll.detach() / num_losses)
        self.num_supervised += num_supervised
        self.num_tokens += num_tokens

    def read(self) -> MeterReading:
        """Everything since the last reading; starts over."""
        num_finite, num_losses = int(self.num_finite), int(self.num_losses)  # waits, before the clock is read
        result = {
            "train_loss": float(self.nll) / num_losses,
            "train_mean_token_accuracy": int(self.num_correct) / num_finite,
        } if num_finite else {}  # fmt: skip
        self.total_tokens += self.num_tokens
        self.total_supervised += self.num_supervised
        rest: dict[str, float] = {
            "num_tokens": self.total_tokens,
            "num_supervised_tokens": self.total_supervised,
            "tokens_per_second": self.num_tokens / max(self._elapsed(), 1e-9),
        }
        if num_losses:
            means = (self.measures / num_losses).tolist()
            rest |= {f"train_{name}": value for name, value in zip(self.names, means, strict=True)}
        spikes = self._spikes()
        for tensor in (self.nll, self.measures, self.num_losses, self.num_correct, self.num_finite):
            tensor.zero_()
        self.losses.clear()
        self.num_supervised = self.num_tokens = 0
        self.seconds, self.since = 0.0, None if self.since is None else time.monotonic()
        return MeterReading(result, rest, spikes)

    def _spikes(self) -> list[tuple[int, float, float]]:
        found = []
        for age, loss in zip(range(len(self.losses) - 1, -1, -1), self._losses_read(), strict=True):
            if len(self.recent) >= MIN_WINDOW and loss > SPIKE * (middle := median(self.recent)):
                found.append((age, loss, middle))
            if loss == loss and loss != float("inf"):
                self.recent.append(loss)
        return found

    def _losses_read(self) -> list[float]:
        return [float(loss) for loss in torch.stack(self.losses).tolist()] if self.losses else []

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        names = ("num_supervised", "num_tokens", "total_tokens", "total_supervised")
        counts = {name: getattr(self, name) for name in names}
        losses = [loss if abs(loss) < float("inf") else None for loss in self._losses_read()]
        return counts | {
            "nll": float(self.nll),
            "measures": self.measures.tolist(),
            "num_losses": int(self.num_losses),
            "num_correct": int(self.num_correct),
            "num_finite": int(self.num_finite),
            "seconds": self._elapsed(),
            "losses": losses,
            "recent": list(self.recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.nll.fill_(state["nll"])
        self.num_correct.fill_(state["num_correct"])
        self.num_finite.fill_(state["num_finite"])
        self.num_losses.fill_(state.get("num_losses", state["num_finite"]))  # absent in checkpoints of before pairs
        self.measures.copy_(torch.tensor(state.get("measures", [0.0] * len(self.names)), dtype=torch.float64))
        values = [float("nan") if loss is None else loss for loss in state["losses"]]
        self.losses = [torch.tensor(value, device=self.nll.device) for value in values]
        self.recent.extend(state["recent"])
        self.seconds = state.get("seconds", 0.0)  # absent in checkpoints of before it was kept
        for name in ("num_supervised", "num_tokens", "total_tokens", "total_supervised"):
            setattr(self, name, state[name])
