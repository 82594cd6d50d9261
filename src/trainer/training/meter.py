"""Loss, accuracy and speed of the steps since the last reading."""

import time
from typing import Any

import torch


class Meter:
    """Sums over the steps since the last reading. The device adds; only `read` waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.nll = torch.zeros((), dtype=torch.float64, device=device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.num_supervised = self.num_tokens = 0
        self.total_tokens = self.total_supervised = 0
        self.since = time.monotonic()

    def add(self, nll: torch.Tensor, num_correct: torch.Tensor, num_supervised: int, num_tokens: int) -> None:
        self.nll += nll
        self.num_correct += num_correct
        self.num_supervised += num_supervised
        self.num_tokens += num_tokens

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """The columns of results.csv, and the rest; starts over."""
        result = {
            "train_loss": float(self.nll) / self.num_supervised,
            "train_mean_token_accuracy": int(self.num_correct) / self.num_supervised,
        }
        now = time.monotonic()
        self.total_tokens += self.num_tokens
        self.total_supervised += self.num_supervised
        rest: dict[str, float] = {
            "num_tokens": self.total_tokens,
            "num_supervised_tokens": self.total_supervised,
            "tokens_per_second": self.num_tokens / max(now - self.since, 1e-9),
        }
        self.nll.zero_()
        self.num_correct.zero_()
        self.num_supervised = self.num_tokens = 0
        self.since = now
        return result, rest

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        names = ("num_supervised", "num_tokens", "total_tokens", "total_supervised")
        counts = {name: getattr(self, name) for name in names}
        return counts | {"nll": float(self.nll), "num_correct": int(self.num_correct)}

    def restore(self, state: dict[str, Any]) -> None:
        self.nll.fill_(state["nll"])
        self.num_correct.fill_(state["num_correct"])
        for name in ("num_supervised", "num_tokens", "total_tokens", "total_supervised"):
            setattr(self, name, state[name])
