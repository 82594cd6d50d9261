"""`trainer export`: a run's model in a folder of its own, after it was shown to be the model that was trained."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.errors import ParityError
from trainer.inference.local import TunedModel
from trainer.inference.model_card import model_card
from trainer.inference.output_folder import built_beside, refuse_output
from trainer.inference.parity import EXACT, ROUNDED, Bounds, Drift, Observation, drift, observe
from trainer.inference.probes import Probe, probes_of, rows_of
from trainer.inference.recorded_loss import LossPair, recorded_and_measured
from trainer.inference.trained import ADAPTER_FILES, stop_ids, trained_adapter, trained_base, with_stops
from trainer.model.adapter import load_adapter
from trainer.model.base import Base, find_base
from trainer.model.device import free_memory_bytes, pick_device
from trainer.model.loading import load_model
from trainer.model.merging import merged_model
from trainer.runs import Run, files

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

FREE_SHARE = 0.8  # of a GPU's free memory that a merged model may take


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported and how close it is to the trained model."""

    folder: Path
    rows: str
    drift: Drift
    change: Drift  # of the base without adapter: what the fine-tuning did
    bounds: Bounds
    loss: LossPair | None


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the trained model says, and how far its base is from it."""

    probes: list[Probe]
    rows: str
    stops: list[int]
    generation: "GenerationConfig"
    said: Observation
    change: Drift


def export_run(
    run: Run,
    output: Path,
    merge: bool,
    dtype: str | None = None,
    max_drift: float | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Export:
    """Write the run's adapter, or with `merge` the merged model, to the new folder `output`.

    `dtype` is the number format of a merged model, by default the one that was trained in. `report` is told what
    takes long. Raises: ConfigError, when something is missing or in the way; ParityError, when the result is not the
    model that was trained.
    """
    trained_adapter(run)
    base = trained_base(run)
    dtype = dtype or run.config().model.dtype
    refuse_output(output, _num_bytes(run, base, dtype) if merge else _folder_bytes(run.adapter))
    report("reading what the trained model says")
    trained = _observe_trained(run)
    with built_beside(output) as folder:
        report("merging" if merge else "copying the adapter")
        _write_model(run, base, folder, merge, dtype, trained)
        report("comparing with the trained model")
        result = _compare(run, base, folder, merge, dtype, max_drift, trained)
        parity = _as_json(result, run, merge, dtype)
        files.write_json(folder / "parity.json", parity)
        card = model_card(run, base, output.name, merge, dtype, parity)
        files.write_whole(folder / "README.md", card)
    run.event(f"exported to {output}", kind="export", **parity)
    return replace(result, folder=output)


def _num_bytes(run: Run, base: Base, dtype: str) -> int:
    import torch

    num_weights: int = sum(parameter.numel() for parameter in base.skeleton.parameters())
    item: torch.dtype = getattr(torch, dtype)
    return num_weights * item.itemsize + _folder_bytes(run.adapter)


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _observe_trained(run: Run) -> _Trained:
    """The model in the form in which it was trained: the base, quantized where it was, with the adapter on."""
    tuned = TunedModel(run)
    rows = rows_of(run)
    probes = probes_of(rows, tuned.renderer)
    generation = tuned.model.generation_config
    stops = stop_ids(tuned.renderer.end_markers, tuned.tokenizer.eos_token_id, generation.eos_token_id)
    said = observe(tuned.model, probes, stops)
    with tuned.model.disable_adapter():
        before = observe(tuned.model, probes, stops)
    generation = with_stops(generation, stops, tuned.tokenizer.pad_token_id)
    return _Trained(probes, rows.source, stops, generation, said, drift(said, before))


def _write_model(run: Run, base: Base, folder: Path, merge: bool, dtype: str, trained: _Trained) -> None:
    import torch

    for file in sorted(run.adapter.iterdir()):
        if not (merge and file.name in ADAPTER_FILES):
            shutil.copyfile(file, folder / file.name)
    if merge:
        model = merged_model(base, run.config().model, run.adapter, getattr(torch, dtype))
        model.generation_config = trained.generation
        model.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # safetensors makes them readable by the owner alone
            shutil.copymode(folder / "config.json", weights)
    else:
        trained.generation.save_pretrained(folder)
        _pin_base(folder / "adapter_config.json", base)


def _pin_base(config: Path, base: Base) -> None:
    """Name the base so that it is found from anywhere, at the commit that was trained on."""
    source = base.source if base.from_hub else str(Path(base.source).resolve())
    pinned = {"base_model_name_or_path": source, "revision": base.revision if base.from_hub else None}
    files.write_json(config, json.loads(config.read_text(encoding="utf-8")) | pinned)


def _compare(
    run: Run, base: Base, folder: Path, merge: bool, dtype: str, max_drift: float | None, trained: _Trained
) -> Export:
    """Read the folder back from the disk. Raises: ParityError, with the numbers, when it is not what was trained."""
    model = _load_merged(folder, dtype) if merge else _load_adapter(run, base, folder)
    found = drift(trained.said, observe(model, trained.probes, trained.stops))
    exact = dtype == "float32" and run.config().model.quantization == "none"
    bounds = EXACT if exact and run.config().model.dtype == "float32" else ROUNDED
    if max_drift is not None:
        bounds = Bounds(max_drift, bounds.greedy_gap)
    loss = recorded_and_measured(run, model, exact)
    problems = [*found.problems(bounds, trained.change), *(loss.problems() if loss else ())]
    if problems:
        raise ParityError(*(f"run {run.name!r}: {problem}; nothing was exported" for problem in problems))
    return Export(folder, trained.rows, found, trained.change, bounds, loss)


def _load_merged(folder: Path, dtype: str) -> "PreTrainedModel":
    """As anyone loads it, on the GPU where it fits."""
    import torch

    device, settings = pick_device(), ModelConfig(base=str(folder))
    if device.type == "cuda" and _folder_bytes(folder) > FREE_SHARE * free_memory_bytes(device):
        device = torch.device("cpu")
    return load_model(find_base(settings), settings, device, getattr(torch, dtype)).to(device).eval()


def _load_adapter(run: Run, base: Base, folder: Path) -> "PreTrainedModel":
    from trainer.model.device import pick_dtype

    settings, device = run.config().model, pick_device()
    return load_adapter(load_model(base, settings, device, pick_dtype(settings, device)), folder).eval()


def _as_json(result: Export, run: Run, merge: bool, dtype: str) -> dict[str, Any]:
    return {
        "run": run.name,
        "merged": merge,
        "quantization": run.config().model.quantization,
        "template_sha256": run.manifest()["template_sha256"],
        "dtype": dtype,
        "rows": result.rows,
        "bounds": asdict(result.bounds),
        "drift": result.drift.as_json(),
        "fine_tuning_change": result.change.as_json(),
        "valid_loss": None if result.loss is None else asdict(result.loss),
    }
