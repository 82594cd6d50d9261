"""The validation loss: as training recorded it for the adapter, and of other forms of the model on the same rows."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.read.rows import read_conversations
from trainer.data.render.overlength import apply_policy
from trainer.data.render.rendering import Example, Renderer
from trainer.inference.parity import Bounds
from trainer.inference.trained import trained_tokenizer
from trainer.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Losses:
    """The same rows' loss, in nats a token."""

    recorded: float  # as training wrote it into results.csv, in the number format that was trained in
    run: float  # of the trained model, computed in the number format that the export is compared in
    export: float

    @property
    def change(self) -> float:
        """What the export loses against the trained model."""
        return self.export - self.run

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def problems(self, bounds: Bounds) -> list[str]:
        """What exceeds the bounds."""
        found = []
        if not self.change <= bounds.loss:  # also where it is NaN
            found.append(
                f"the validation loss rises by {self.change:.4f}, from {self.run:.4f} to {self.export:.4f}, expected "
                f"by at most {bounds.loss:g}"
            )
        if not abs(self.run - self.recorded) <= bounds.recorded_loss:
            found.append(
                f"the validation loss of the trained model is {self.run:.4f} and was {self.recorded:.4f} when it was "
                f"trained, expected at most {bounds.recorded_loss:g} between them"
            )
        return found


@dataclass(frozen=True, slots=True)
class Recorded:
    """A loss of training and the examples that it was measured on."""

    loss: float
    examples: tuple[Example, ...]

    def measured(self, model: "PreTrainedModel") -> float:
        """The loss of `model` on the same examples."""
        import torch

        from trainer.training.loss import plain_sums

        with torch.inference_mode():
            nll = sum(float(plain_sums(model, example).nll) for example in self.examples)
        return nll / sum(example.num_supervised for example in self.examples)


def recorded_loss(run: Run) -> Recorded | None:
    """The adapter's own, or None where training recorded none or its validation data is gone."""
    step = run.status().get("adapter_step")
    recorded = next((row["valid_loss"] for row in run.results() if row["step"] == step and "valid_loss" in row), None)
    if recorded is None or not all(file.is_unchanged for file in run.manifest().files("validation")):
        return None
    return Recorded(recorded, tuple(_examples(run)))


def _examples(run: Run) -> Iterator[Example]:
    """The examples of the rows that `valid_loss` is measured on: the first `eval_rows` of the validation data."""
    config, renderer = run.config(), Renderer(trained_tokenizer(run))
    assert config.data.max_length != "auto"
    num_rows = 0
    for path in config.data.validation_paths:
        for conversation in read_conversations(Path(path)).conversations:
            if num_rows == config.training.eval_rows:
                return
            rendered = renderer.render(conversation)
            kept, _ = apply_policy(conversation, rendered, renderer, config.data.max_length, config.data.on_overlength)
            num_rows += bool(kept)
            yield from kept
