"""The loss of preference training: of a pair, from the log-probabilities of its two answers and of the reference's.

    delta = (log p(preferred) - log r(preferred)) - (log p(other) - log r(other)),  summed over an answer's tokens

    sigmoid   -(1 - smoothing) log sigmoid(beta delta) - smoothing log sigmoid(-beta delta)
              Rafailov et al., "Direct Preference Optimization" (2023); Mitchell, "A note on DPO with noisy preferences"
    ipo       (delta - 1 / (2 beta))^2, with means over an answer's tokens in place of sums
              Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences" (2023)

The loss of a step is the mean over its pairs, and `sft_weight` times the mean loss of the preferred answers' tokens.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

MEASURES = (
    "reward_accuracy",  # share of pairs whose preferred answer has the greater reward
    "reward_margin",
    "preferred_reward",  # beta times the log-ratio to the reference
    "other_reward",
    "preferred_logp",
    "other_logp",
    "kl_estimate",  # half the squared log-ratio of an answer: zero where the policy is the reference
)


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """The loss as `training.dpo` sets it."""

    beta: float
    kind: Literal["sigmoid", "ipo"]
    label_smoothing: float
    sft_weight: float

    def of_pairs(self, logps: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
        """Losses [P] of pairs; all arguments are [P, 2], the preferred answer first, `counts` of supervised tokens."""
        ratios = logps - reference
        if self.kind == "ipo":
            means = ratios / counts
            return (means[:, 0] - means[:, 1] - 1 / (2 * self.beta)) ** 2
        delta = self.beta * (ratios[:, 0] - ratios[:, 1])
        agreed, flipped = functional.logsigmoid(delta), functional.logsigmoid(-delta)
        return -(1 - self.label_smoothing) * agreed - self.label_smoothing * flipped

    def share(self, logps: Tensor, reference: Tensor, counts: Tensor, num_pairs: int, num_preferred: int) -> Tensor:
        """Part of these pairs in the loss of a step of so many pairs and preferred answers' tokens."""
        share = self.of_pairs(logps, reference, counts).sum() / num_pairs
        if self.sft_weight:
            share = share - self.sft_weight * logps[:, 0].sum() / num_preferred
        return share

    @torch.no_grad()
    def measures(self, logps: Tensor, reference: Tensor) -> Tensor:
        """Sums over pairs [K] of `MEASURES`."""
        ratios = logps - reference
        rewards = self.beta * ratios
        margin = rewards[:, 0] - rewards[:, 1]
        of_pairs = (margin > 0, margin, rewards[:, 0], rewards[:, 1], logps[:, 0], logps[:, 1], (ratios**2).mean(1) / 2)
        return torch.stack([values.to(logps.dtype).sum() for values in of_pairs])
