"""The training loop on preference pairs: that of chats, with another loss, its measures and its evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from trainer.config.schema import RunConfig
from trainer.errors import TrainingError
from trainer.runs.intervals import wilson
from trainer.training.dataset import Rows
from trainer.training.fingerprint import Fingerprint
from trainer.training.loop import Trainer
from trainer.training.meter import Meter
from trainer.training.pairs import Pair, PairExecutor
from trainer.training.preference import MEASURES, PreferenceLoss
from trainer.training.reference import READ_ROWS, Pairs, compute_reference, find_reference
from trainer.training.validation import Validation, refuse_not_finite

TOLD = 4 * READ_ROWS  # rows between two messages about the reference


class PairTrainer(Trainer):
    """Trains one run on pairs."""

    executor: PairExecutor
    validation: "PairValidation"

    def _make_parts(self, model: PeftModel, device: torch.device, validation: Rows) -> None:
        self.loss, self.pairs = loss_of(self.settings), Pairs(self.rows)
        self.executor = PairExecutor(
            model, device, self.settings, self.plan, self.ranks, self.accelerator.backward, self._say
        )
        self.meter = Meter(device, MEASURES)
        self.validation = PairValidation(self.executor, Pairs(validation), self.settings.training.eval_rows, self.loss)

    def get_ready(self, fingerprint: Fingerprint) -> bool:
        """Read the reference's log-probabilities from the run's folder, or compute them."""
        parts, kind = (self.pairs, self.validation.pairs), self.settings.training.dpo.reference
        file = find_reference(self.run.reference, parts, fingerprint, kind)
        total = sum(map(len, parts))
        logps = self.ranks.first(lambda: file.load(total))
        if logps is None:
            self._say(f"computing the reference's log-probabilities of {total:,} pairs")
            found = [compute_reference(self.executor, part, kind, self._may_go_on) for part in parts]
            if any(part is None for part in found):
                return False
            logps = np.concatenate([part for part in found if part is not None])
            if not np.isfinite(logps).all():
                raise TrainingError("the reference gives an answer no finite probability, expected numbers")
            file.store(logps)
        self.pairs.reference, self.validation.pairs.reference = logps[: len(self.pairs)], logps[len(self.pairs) :]
        return True

    def _may_go_on(self, num_rows: int) -> bool:
        """False where the run was asked to stop."""
        if num_rows and num_rows % TOLD == 0:
            self._say(f"{num_rows:,} pairs read")
        self._look_for_request()
        return not self.ranks.any(self.interrupted or self.request is not None)

    def _trained(self) -> Sequence[Any]:
        return self.pairs

    def _step(self, rows: Sequence[Pair]) -> torch.Tensor:
        sums = self.executor.add_pair_gradients(rows, self.loss, self.state.global_step + 1)
        self.guard.see_loss(sums.loss)
        self.meter.add(
            sums.loss * len(rows),
            sums.num_correct,
            sum(pair.counts[0] for pair in rows),
            sum(pair.num_tokens for pair in rows),
            len(rows),
            sums.measures,
        )
        return sums.loss.float()


@dataclass(frozen=True, slots=True)
class FirstPairs:
    """The first `count` of some pairs, which are evaluated again and again."""

    pairs: Pairs
    count: int

    def parts(self) -> Iterator[Sequence[Pair]]:
        """Some pairs at a time."""
        for start in range(0, self.count, READ_ROWS):
            yield self.pairs[start : min(start + READ_ROWS, self.count)]


class PairValidation(Validation):
    """Evaluates the first `eval_rows` of the held-out pairs, and all of them at the end of an epoch."""

    executor: PairExecutor

    def __init__(self, executor: PairExecutor, pairs: Pairs, eval_rows: int, loss: PreferenceLoss) -> None:
        self.executor, self.pairs, self.loss = executor, pairs, loss
        self.few, self.all = FirstPairs(pairs, min(eval_rows, len(pairs))), FirstPairs(pairs, len(pairs))

    @torch.no_grad()
    def _means(self, rows: FirstPairs, step: int) -> dict[str, float]:
        """Mean loss and measures of pairs, and between which shares the true accuracy of rewards lies."""
        model = self.executor.model
        model.eval()
        logps, counts, num_correct = [], list[tuple[int, int]](), 0
        for part in rows.parts():
            found, correct = self.executor.logps(part, step)
            logps.append(found)
            counts += [pair.counts for pair in part]
            num_correct += int(correct)
        model.train()
        policy = torch.cat(logps).cpu()
        reference = torch.from_numpy(rows.pairs.reference[: rows.count])
        num_preferred = sum(preferred for preferred, _ in counts)
        loss = self.loss.share(policy, reference, torch.tensor(counts).double(), rows.count, num_preferred)
        refuse_not_finite(loss, step)
        sums = dict(zip(MEASURES, self.loss.measures(policy, reference).tolist(), strict=True))
        low, high = wilson(round(sums["reward_accuracy"]), rows.count)
        means = {name: value / rows.count for name, value in sums.items()}
        accuracy = {"mean_token_accuracy": num_correct / num_preferred}
        return {"loss": float(loss)} | accuracy | means | {"reward_accuracy_low": low, "reward_accuracy_high": high}


def loss_of(config: RunConfig) -> PreferenceLoss:
    """The loss of a resolved config."""
    dpo = config.training.dpo
    assert isinstance(dpo.beta, float)  # resolved
    return PreferenceLoss(dpo.beta, dpo.loss, dpo.label_smoothing, dpo.sft_weight)
