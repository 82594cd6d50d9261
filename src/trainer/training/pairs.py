"""The compute of one rank on preference pairs: the gradient of a step, and the log-probabilities of answers.

The loss of a pair is no sum over tokens, but with both answers in one pack it is a function of what that pack gives. A
pair that no pack can hold is read first, without a gradient: the derivative of its loss by each answer's
log-probability is then a number, and the weight of that answer's tokens in a second, ordinary pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.pack.balancing import balanced_pairs
from trainer.data.pack.packing import Pack
from trainer.data.pack.pairs import Answers
from trainer.data.render.rendering import Example
from trainer.model.device import send
from trainer.model.sharing import UNSHARED
from trainer.training.executor import Executor
from trainer.training.loss import Scores
from trainer.training.preference import MEASURES, PreferenceLoss
from trainer.training.writer import restore_rng, rng_state


@dataclass(frozen=True, slots=True)
class Pair:
    """A rendered preference row, and the log-probabilities that the reference gives its answers."""

    preferred: tuple[Example, ...]
    other: tuple[Example, ...]
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def answers(self) -> Answers:
        return self.preferred, self.other

    @property
    def counts(self) -> tuple[int, int]:
        """Supervised tokens of each answer."""
        preferred, other = (sum(example.num_supervised for example in answer) for answer in self.answers)
        return preferred, other

    @property
    def num_tokens(self) -> int:
        return sum(len(example.input_ids) for answer in self.answers for example in answer)


@dataclass(frozen=True, slots=True)
class PairSums:
    """Of a whole step or evaluation, on the device."""

    loss: Tensor  # float64, the loss itself
    measures: Tensor  # float64 [K], sums of `MEASURES` over the pairs
    num_correct: Tensor  # int64, preferred answers' tokens whose most likely prediction was the target


class PairExecutor(Executor):
    """Computes gradients and log-probabilities of pairs on this rank, and sums both over all ranks."""

    def add_pair_gradients(self, pairs: Sequence[Pair], loss: PreferenceLoss, step: int) -> PairSums:
        """Forward and backward of a whole step. Raises: TrainingError, like `add_gradients`."""
        sums = self._within_memory(lambda: self._compute(pairs, loss), lambda: longest(pairs), step)
        if self.ranks.size > 1:
            self.ranks.add_up(self._gradients())
            self.ranks.add_up([sums.loss, sums.measures, sums.num_correct])
        return sums

    @torch.no_grad()
    def logps(self, pairs: Sequence[Pair], step: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities of all answers [P, 2], and preferred answers' tokens predicted. Raises: TrainingError."""

        def compute() -> tuple[Tensor, Tensor]:
            own = self._own_numbers(pairs)
            packs = self.engine.answer_packs([pairs[number].answers for number in own], self.budget.token_budget)
            read, num_correct = self._read(self._in_step(packs), len(own))
            found = torch.zeros(len(pairs), 2, dtype=torch.float64, device=self.device)
            found[torch.tensor(own, dtype=torch.int64, device=self.device)] = read
            return found, num_correct

        sums = self._within_memory(compute, lambda: longest(pairs), step)
        self.ranks.add_up(sums)
        return sums

    def _own_numbers(self, pairs: Sequence[Pair]) -> list[int]:
        """The pairs of this rank, of those that all ranks compute together."""
        answers = [pair.answers for pair in pairs]
        return balanced_pairs(answers, self.ranks.size, shared=self.engine.sharing != UNSHARED)[self.ranks.rank]

    def _compute(self, pairs: Sequence[Pair], loss: PreferenceLoss) -> PairSums:
        own = [pairs[number] for number in self._own_numbers(pairs)]
        step = _Step(own, loss, len(pairs), sum(pair.counts[0] for pair in pairs), self.device)
        packs = self.engine.pair_packs([pair.answers for pair in own], self.budget.token_budget)
        for pack in self._in_step(packs.whole):
            scores = self.engine.scores(pack)
            if pack is self.engine.idle:
                self._backward(scores.nll.sum() * 0)
                continue
            numbers = self._numbers([pack])
            logps, num_correct = self._of_answers(scores, pack, numbers)
            self._backward(step.add(logps, num_correct, numbers))
        if cut := self._in_step(packs.cut):
            self._add_cut(cut, step)
        return step.sums

    def _add_cut(self, packs: Sequence[Pack], step: "_Step") -> None:
        """The gradient of pairs that stand in several packs each: their derivatives first, then a weighted pass."""
        rng = rng_state() if self.has_dropout else None
        numbers = self._numbers(packs)
        with torch.no_grad():
            read, num_correct = self._read(packs, len(step.reference))
        logps = read[numbers].requires_grad_()
        weights = torch.zeros_like(read)
        if len(numbers):  # else this rank has idle packs alone
            (weights[numbers],) = torch.autograd.grad(step.add(logps, num_correct, numbers), logps)
        if rng is not None:
            restore_rng(rng)  # the second pass leaves out what the first one did
        for pack in packs:
            scores = self.engine.scores(pack)
            if pack is self.engine.idle:
                self._backward(scores.nll.sum() * 0)
                continue
            scored, answer = self._owners(pack)
            self._backward(-(scores.nll[scored] * weights.view(-1)[answer]).sum())

    def _read(self, packs: Sequence[Pack], num_pairs: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities [P, 2] of the answers in `packs`, and the preferred answers' tokens predicted."""
        found = torch.zeros(num_pairs, 2, dtype=torch.float64, device=self.device)
        num_correct = self._zero(torch.int64)
        for pack in packs:
            scores = self.engine.scores(pack)
            if pack is not self.engine.idle:
                numbers = self._numbers([pack])
                logps, correct = self._of_answers(scores, pack, numbers)
                found[numbers] += logps
                num_correct += correct
        return found, num_correct

    def _of_answers(self, scores: Scores, pack: Pack, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [N, 2] of the pairs `numbers` [N] as far as `pack` holds them, and correct tokens."""
        scored, answer = self._owners(pack)
        place = 2 * torch.searchsorted(numbers, answer // 2) + answer % 2
        logps = torch.zeros(2 * len(numbers), dtype=torch.float64, device=self.device)
        logps = logps.index_add(0, place, -scores.nll[scored].double())
        return logps.view(-1, 2), (scores.is_correct[scored] * (answer % 2 == 0)).sum()

    def _numbers(self, packs: Sequence[Pack]) -> Tensor:
        """The pairs that have an answer in the packs, each once and in order."""
        answers = [pack.answer for pack in packs if pack.answer is not None]
        numbers = torch.unique(torch.cat(answers) // 2) if answers else torch.zeros(0, dtype=torch.int64)
        return send(numbers, self.device)

    def _owners(self, pack: Pack) -> tuple[Tensor, Tensor]:
        assert pack.scored is not None
        assert pack.answer is not None
        return send(pack.scored, self.device), send(pack.answer, self.device)


class _Step:
    """The pairs of a step that one rank computes, and what has been added up of them."""

    def __init__(
        self, own: Sequence[Pair], loss: PreferenceLoss, num_pairs: int, num_preferred: int, device: torch.device
    ) -> None:
        """`num_pairs` and `num_preferred`, their preferred answers' tokens, are of all ranks."""
        self.loss, self.num_pairs, self.num_preferred = loss, num_pairs, num_preferred
        self.reference = torch.tensor([pair.reference for pair in own], dtype=torch.float64, device=device).view(-1, 2)
        self.counts = torch.tensor([pair.counts for pair in own], dtype=torch.float64, device=device).view(-1, 2)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        self.sums = PairSums(zero, zero.new_zeros(len(MEASURES)), torch.zeros((), dtype=torch.int64, device=device))

    def add(self, logps: Tensor, num_correct: Tensor, numbers: Tensor) -> Tensor:
        """Add the pairs `numbers` [N] of log-probabilities [N, 2]; returns what they add to the loss."""
        reference, counts = self.reference[numbers], self.counts[numbers]
        share = self.loss.share(logps, reference, counts, self.num_pairs, self.num_preferred)
        self.sums.loss.add_(share.detach())
        self.sums.measures.add_(self.loss.measures(logps, reference))
        self.sums.num_correct.add_(num_correct)
        return share


def longest(pairs: Sequence[Pair]) -> int:
    """Tokens of the longest example."""
    return max(len(example.input_ids) for pair in pairs for answer in pair.answers for example in answer)
