"""Loss of each row before and after training, and of its answers behind other questions.

All losses are means over supervised tokens in nats, by the masks, packs and forward pass of training. An answer that
its own question makes no likelier than other questions do says nothing about it: with log-likelihoods this is the
pointwise mutual information of the two, which stays low where a wrong answer has been learned by heart.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.errors import TrainingError
from trainer.model.adapter import ADAPTER, adapter_tensors, load_adapter, overwrite
from trainer.model.device import pick_device, pick_dtype
from trainer.model.loading import load_model
from trainer.model.threads import choose_threads
from trainer.training.dataset import Row
from trainer.training.engine import Engine
from trainer.workshop.doctor.run_rows import RunRows

if TYPE_CHECKING:
    from peft import PeftModel

NUM_OTHERS = 4  # questions that an answer is put behind; docs/doctor.md compares 3 and 8


@dataclass(frozen=True, slots=True)
class RowLosses:
    """Losses of one row; `elsewhere` is None where no other row has room for its answer."""

    before: float
    after: float
    elsewhere: float | None
    num_supervised: int

    @property
    def gain(self) -> float | None:
        """Nats a token by which the row's own question makes its answer likelier than others do, after training."""
        return None if self.elsewhere is None else self.elsewhere - self.after


class RowMeter:
    """A base with a run's adapter, by which rows are measured; `start` is the adapter that training began with.

    Raises: ConfigError, when base and adapter do not fit.
    """

    def __init__(self, found: RunRows, adapter: Path, start: Path | None) -> None:
        choose_threads()
        device, self.start, self.token_budget = pick_device(), start, found.token_budget
        self.max_length = found.max_length
        settings = found.config.model
        model = load_model(found.base, settings, device, pick_dtype(settings, device))
        self.model: PeftModel = load_adapter(model, adapter).eval()
        self.engine = Engine(self.model, device)

    def measure(self, rows: Sequence[Row]) -> list[RowLosses]:
        """The losses of each row. Raises: TrainingError, where one is not finite."""
        with self._before():
            before = self._means(rows)
        after = self._means(rows)
        elsewhere = self._elsewhere(rows)
        return [
            RowLosses(*three, row.num_supervised)
            for three, row in zip(zip(before, after, elsewhere, strict=True), rows, strict=True)
        ]

    @contextmanager
    def _before(self) -> Iterator[None]:
        """Within it the model is what training began with."""
        if self.start is None:
            with self.model.disable_adapter():
                yield
            return
        own = adapter_tensors(self.model)
        kept = {name: tensor.detach().clone() for name, tensor in own.items()}
        try:
            overwrite(own, load_file(self.start / ADAPTER))
            yield
        finally:
            overwrite(own, kept)

    def _means(self, rows: Sequence[Row]) -> list[float]:
        nll = iter(self._nll([example for row in rows for example in row.examples]))
        return [self._mean(row, [next(nll) for _ in row.examples]) for row in rows]

    @torch.no_grad()
    def _nll(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """For each example the negative log-likelihood [s] of its supervised tokens, in order, on the CPU."""
        found = [torch.zeros(0) for _ in examples]
        for pack in self.engine.answer_packs([((example,), ()) for example in examples], self.token_budget):
            assert pack.scored is not None
            assert pack.answer is not None
            nll = self.engine.scores(pack).nll.cpu()[pack.scored]
            answers, counts = torch.unique_consecutive(pack.answer, return_counts=True)
            for answer, own in zip(answers.tolist(), torch.split(nll, counts.tolist()), strict=True):
                found[answer // 2] = own  # 2 * example, the first answer of a pair
        return found

    def _mean(self, row: Row, nll: Sequence[torch.Tensor]) -> float:
        tokens = torch.cat(list(nll)).double()
        mean = float(tokens.mean())
        if not len(tokens) or not torch.isfinite(tokens).all():
            raise TrainingError(
                f"{row.conversation.place}: its loss is {mean}, expected a number; choose another checkpoint"
            )
        return mean

    def _elsewhere(self, rows: Sequence[Row]) -> list[float | None]:
        """Loss of each row's last example behind the beginnings of others, in the mean over these."""
        swapped, owners = [], []
        for number, others in other_rows(rows).items():
            for other in others:
                example = behind(rows[number].examples[-1], rows[other].examples[-1])
                if len(example.input_ids) <= self.max_length:
                    swapped.append(example)
                    owners.append(number)
        sums: dict[int, list[float]] = {}
        for owner, nll in zip(owners, self._nll(swapped), strict=True):
            sums.setdefault(owner, []).append(float(nll.double().mean()))
        return [sum(sums[number]) / len(sums[number]) if number in sums else None for number in range(len(rows))]


def other_rows(rows: Sequence[Row]) -> Mapping[int, list[int]]:
    """For each row up to NUM_OTHERS rows that ask something else, with the same system prompt and tools."""
    groups: dict[object, list[int]] = {}
    for number, row in enumerate(rows):
        said = row.conversation
        system = tuple(message.content for message in said.messages if message.role in ("system", "developer"))
        groups.setdefault((system, str(said.tools)), []).append(number)
    found: dict[int, list[int]] = {}
    chance = random.Random(0)
    for group in groups.values():
        steps = chance.sample(range(1, len(group)), min(len(group) - 1, 2 * NUM_OTHERS))
        for place, number in enumerate(group):
            own = rows[number].examples[-1]
            others = (group[(place + step) % len(group)] for step in steps)
            found[number] = [o for o in others if _asked(rows[o].examples[-1]) != _asked(own)][:NUM_OTHERS]
    return found


def _asked(example: Example) -> tuple[int, ...]:
    """Tokens before the first supervised one."""
    return example.input_ids[: _first(example)]


def _first(example: Example) -> int:
    return next((place for place, label in enumerate(example.labels) if label != IGNORE_INDEX), len(example.labels))


def behind(answer: Example, question: Example) -> Example:
    """Tokens of `answer` from its first supervised token on, behind what stands in `question` before it."""
    cut, at = _first(answer), _first(question)
    return Example(question.input_ids[:at] + answer.input_ids[cut:], question.labels[:at] + answer.labels[cut:])
