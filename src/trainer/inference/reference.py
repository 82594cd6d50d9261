"""Reference of a run's export: the trained model, in the number format that it was trained in.

Like is compared with like. In another format the export is compared with the run in float32: a layer rounds its output
to 16 bits before the adapter's product is added, and of a run that was not trained so, which never made up for it, the
sum loses what is less than half a step (0.2 nats a token, after six steps on SmolLM2). A merged model has no such sum.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.read.rows import read_conversations
from trainer.data.render.overlength import apply_policy
from trainer.data.render.rendering import Example, Renderer
from trainer.inference.parity import Bounds, Drift, Observation, drift, observe
from trainer.inference.probes import Probe, probes_of, rows_of
from trainer.inference.trained import stop_ids, trained_tokenizer, with_stops
from trainer.model.adapter import load_to_answer
from trainer.model.base import Base
from trainer.model.device import free_memory_bytes, pick_device, pick_dtype
from trainer.model.loading import load_model
from trainer.model.quantization import adopted
from trainer.runs import Run
from trainer.training.fingerprint import THOUGHTS

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel

FREE_SHARE = 0.8  # of a GPU's free memory that a model's weights may take


@dataclass(frozen=True, slots=True)
class Losses:
    """The same rows' loss, in nats a token."""

    recorded: float  # as training wrote it into results.csv, in the number format that was trained in
    run: float  # of the trained model, computed in the number format that the export is compared in
    export: float

    @property
    def change(self) -> float:
        """Rise of the validation loss from the trained model to the export."""
        return self.export - self.run

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def problems(self, bounds: Bounds) -> list[str]:
        """Differences beyond the bounds."""
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


@dataclass(frozen=True, slots=True)
class Baseline:
    """Output of the trained model, computed in `dtype`, and the distance of its base."""

    dtype: str
    probes: list[Probe]
    rows: str
    stops: list[int]
    generation: "GenerationConfig"
    said: Observation
    change: Drift
    recorded: Recorded | None
    loss: float | None  # on the examples of `recorded`

    def held_against(self, model: "PreTrainedModel") -> tuple[Drift, Losses | None]:
        """Distance of `model` from the trained one."""
        found = drift(self.said, observe(model, self.probes, self.stops))
        if self.recorded is None or self.loss is None:
            return found, None
        return found, Losses(self.recorded.loss, self.loss, self.recorded.measured(model))


def reference(run: Run, base: Base, dtype: str) -> Baseline:
    """Ask the base in the form in which it was trained, quantized where it was, with the adapter on.

    `dtype` is the number format of the export.
    """
    dtype = dtype if dtype == trained_dtype(run) else "float32"
    tokenizer, rows, recorded = trained_tokenizer(run), rows_of(run), recorded_loss(run)
    renderer = Renderer(tokenizer)
    probes = probes_of(rows, renderer)
    model = load_to_answer(trained_form(run, base, dtype), run.adapter)
    generation = model.generation_config
    stops = stop_ids(renderer.end_markers, tokenizer.eos_token_id, generation.eos_token_id)
    said = observe(model, probes, stops)
    loss = recorded.measured(model) if recorded else None
    with model.disable_adapter():
        before = observe(model, probes, stops)
    generation = with_stops(generation, stops, tokenizer.pad_token_id)
    return Baseline(dtype, probes, rows.source, stops, generation, said, drift(said, before), recorded, loss)


def trained_dtype(run: Run) -> str:
    """The number format of training; of a run that a server has trained, the one that this machine would choose."""
    settings = run.config().model
    if settings.dtype != "auto":
        return settings.dtype
    return str(pick_dtype(settings, pick_device())).removeprefix("torch.")


def trained_form(run: Run, base: Base, dtype: str) -> "PreTrainedModel":
    """The base as the run loaded it, computing in `dtype`."""
    import torch

    settings = run.config().model
    device = pick_device() if is_quantized(run, base) else place_for(weight_bytes(base, dtype))
    return load_model(base, settings, device, getattr(torch, dtype))


def is_quantized(run: Run, base: Base) -> bool:
    """True if the run, or the base itself, stores weights in fewer bits than it computes with."""
    return adopted(run.config().model, base.config).quantization != "none"


def weight_bytes(base: Base, dtype: str) -> int:
    """The size of the unquantized model."""
    import torch

    item: torch.dtype = getattr(torch, dtype)
    num_weights: int = sum(parameter.numel() for parameter in base.skeleton.parameters())
    return num_weights * item.itemsize


def place_for(num_bytes: int) -> "torch.device":
    """The GPU where weights of this size fit, else the CPU."""
    import torch

    device = pick_device()
    if device.type == "cuda" and num_bytes > FREE_SHARE * free_memory_bytes(device):
        return torch.device("cpu")
    return device


def recorded_loss(run: Run) -> Recorded | None:
    """The adapter's own, or None where training recorded none, on other labels, or its validation data is gone."""
    step = run.status().get("adapter_step")
    recorded = next((row["valid_loss"] for row in run.results() if row["step"] == step and "valid_loss" in row), None)
    if recorded is None or not all(file.is_unchanged for file in run.manifest().files("validation")):
        return None
    if _trained_empty_thoughts(run):
        return None
    return Recorded(recorded, tuple(_examples(run)))


def _trained_empty_thoughts(run: Run) -> bool:
    """True of a run begun before those that a template writes were left out of the labels."""
    form = Renderer(trained_tokenizer(run)).template.thoughts
    return THOUGHTS not in (run.manifest().fingerprint or {}) and form is not None and form.empty is not None


def _examples(run: Run) -> Iterator[Example]:
    """The examples of the rows that `valid_loss` is measured on: the first `eval_rows` of the validation data."""
    config = run.config()
    renderer = Renderer(trained_tokenizer(run), config.data.train_reasoning is not False)
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
