"""The validation loss that training recorded for the adapter, measured once more on another form of the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.conversations import read_conversations
from trainer.data.overlength import apply_policy
from trainer.data.rendering import Example, Renderer
from trainer.data.sources import sha256_of
from trainer.inference.trained import trained_tokenizer
from trainer.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXACT, ROUNDED = 1e-4, 0.02  # accepted difference in nats: float32; 16 bits and quantized


@dataclass(frozen=True, slots=True)
class LossPair:
    """The same rows' loss, in nats a token: as training wrote it into results.csv, and measured now."""

    recorded: float
    measured: float
    accepted: float

    def problems(self) -> list[str]:
        """The difference, where it is more than accepted."""
        if abs(self.measured - self.recorded) <= self.accepted:
            return []
        found = f"the validation loss is {self.measured:.4f} and was {self.recorded:.4f} when the adapter was trained"
        return [f"{found}, expected at most {self.accepted:g} between them"]


def recorded_and_measured(run: Run, model: "PreTrainedModel", exact: bool) -> LossPair | None:
    """Both losses, or None where training recorded none or its validation data is gone."""
    step = run.status().get("adapter_step")
    recorded = next((row["valid_loss"] for row in run.results() if row["step"] == step and "valid_loss" in row), None)
    files = [entry for entry in run.manifest()["data"] if entry["role"] == "validation"]
    if recorded is None or not all(_unchanged(entry["path"], entry["sha256"]) for entry in files):
        return None
    measured = _loss(model, list(_examples(run)))
    return LossPair(recorded, measured, EXACT if exact else ROUNDED)


def _unchanged(path: str, digest: str) -> bool:
    try:
        return sha256_of(path) == digest
    except OSError:
        return False


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


def _loss(model: "PreTrainedModel", examples: list[Example]) -> float:
    import torch

    from trainer.training.loss import plain_sums

    with torch.inference_mode():
        nll = sum(float(plain_sums(model, example).nll) for example in examples)
    return nll / sum(example.num_supervised for example in examples)
