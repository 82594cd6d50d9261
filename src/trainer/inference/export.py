"""`trainer export`: a run's model in a folder of its own, after it was shown to be the model that was trained."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.errors import ParityError
from trainer.inference.model_card import model_card
from trainer.inference.output_folder import built_beside, refuse_output
from trainer.inference.parity import EXACT, KEPT_CHANGE, QUANTIZED, ROUNDED, Bounds, Drift
from trainer.inference.reference import (
    Baseline,
    Losses,
    is_quantized,
    place_for,
    reference,
    trained_dtype,
    trained_form,
    weight_bytes,
)
from trainer.inference.trained import ADAPTER_FILES, copy_adapter, trained_adapter, trained_base
from trainer.model.adapter import load_to_answer, seal_adapter
from trainer.model.base import Base, find_base
from trainer.model.loading import load_model
from trainer.model.merging import merged_model
from trainer.runs import Run, files

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Export:
    """Exported files, and their distance from the trained model."""

    folder: Path
    num_bytes: int  # of its weights
    dtype: str
    compared_in: str  # the number format of the trained model that it was compared with
    rows: str
    drift: Drift
    change: Drift  # of the base without adapter: what the fine-tuning did
    bounds: Bounds
    losses: Losses | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Bounds of the user instead of ours, in nats a token."""

    drift: float | None = None
    loss: float | None = None


def export_run(
    run: Run,
    output: Path,
    merge: bool,
    dtype: str | None = None,
    accepted: Accepted = Accepted(),
    report: Callable[[str], None] = lambda message: None,
) -> Export:
    """Write the run's adapter, or with `merge` the merged model, to the new folder `output`.

    `dtype` is the number format of a merged model, by default that of training. `report` receives what
    takes long. Raises: ConfigError, when something is missing or in the way; ParityError, when the result is not the
    model that was trained.
    """
    trained_adapter(run)
    base = trained_base(run)
    dtype = dtype or trained_dtype(run)
    size = _folder_bytes(run.adapter)
    refuse_output(output, size + weight_bytes(base, dtype) if merge else size)
    report("reading what the trained model says")
    trained = reference(run, base, dtype)
    with built_beside(output) as folder:
        report("merging" if merge else "copying the adapter")
        _write_model(run, base, folder, merge, dtype, trained.generation)
        report("comparing with the trained model")
        result = _compare(run, base, folder, merge, dtype, accepted, trained)
        parity = _as_json(result, run, merge)
        files.write_json(folder / "parity.json", parity)
        card = model_card(run, base, output.name, merge, dtype, parity)
        files.write_whole(folder / "README.md", card)
    run.event(f"exported to {output}", kind="export", **parity)
    return replace(result, folder=output)


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*"))


def _write_model(run: Run, base: Base, folder: Path, merge: bool, dtype: str, generation: "GenerationConfig") -> None:
    import torch

    copy_adapter(run.adapter, folder, without=ADAPTER_FILES if merge else ())
    if merge:
        model = merged_model(base, run.config().model, run.adapter, getattr(torch, dtype))
        model.generation_config = generation
        model.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # safetensors makes them readable by the owner alone
            shutil.copymode(folder / "config.json", weights)
    else:
        generation.save_pretrained(folder)
        _pin_base(folder / "adapter_config.json", base)
        seal_adapter(folder, run.status().get("adapter_step"))


def _pin_base(config: Path, base: Base) -> None:
    """Name the base so that it is found from anywhere, at the commit that was trained on."""
    source = base.source if base.from_hub else str(Path(base.source).resolve())
    pinned = {"base_model_name_or_path": source, "revision": base.revision if base.from_hub else None}
    files.write_json(config, json.loads(config.read_text(encoding="utf-8")) | pinned)


def _compare(
    run: Run, base: Base, folder: Path, merge: bool, dtype: str, accepted: Accepted, trained: Baseline
) -> Export:
    """Read the folder back from the disk. Raises: ParityError, with the numbers, when it is not what was trained."""
    model = _load_merged(folder, dtype) if merge else load_to_answer(trained_form(run, base, dtype), folder)
    found, losses = trained.held_against(model)
    bounds = _bounds(run, base, dtype).accepting(accepted.drift, accepted.loss)
    problems = [*found.problems(bounds, trained.change), *(losses.problems(bounds) if losses else ())]
    if problems:
        lines = [f"run {run.name!r}: {problem}; nothing was exported" for problem in problems]
        raise ParityError(*lines, *_remedies(found, trained.change, losses, merge, dtype))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Export(folder, size, dtype, trained.dtype, trained.rows, found, trained.change, bounds, losses)


def _bounds(run: Run, base: Base, dtype: str) -> Bounds:
    if dtype != "float32":
        return ROUNDED
    if is_quantized(run, base):
        return QUANTIZED
    same_format = run.config().model.dtype == dtype
    return EXACT if same_format else replace(EXACT, recorded_loss=ROUNDED.recorded_loss)


def _remedies(found: Drift, change: Drift, losses: Losses | None, merge: bool, dtype: str) -> Iterator[str]:
    """Remedies for a merge that was refused, the best way first."""
    if not merge:
        return
    ways = ["export it without --merge: the adapter apart is the trained model"]
    if dtype != "float32":
        ways.insert(0, "merge it with --dtype float32: nothing is lost, in twice the size")
    loss = max(found.mean_kl, *((losses.change, abs(losses.run - losses.recorded)) if losses else ()))
    if found.mean_kl <= KEPT_CHANGE * change.mean_kl and math.isfinite(loss):
        ways.append(f"accept what is lost with --accept-loss {math.ceil(loss * 1000) / 1000:g}")
    yield f"--merge: {'; or '.join(ways)}"


def _load_merged(folder: Path, dtype: str) -> "PreTrainedModel":
    """As anyone loads it, on the GPU where it fits."""
    import torch

    device, settings = place_for(_folder_bytes(folder)), ModelConfig(base=str(folder))
    return load_model(find_base(settings), settings, device, getattr(torch, dtype)).to(device).eval()


def _as_json(result: Export, run: Run, merge: bool) -> dict[str, Any]:
    return {
        "run": run.name,
        "merged": merge,
        "quantization": run.config().model.quantization,
        "template_sha256": run.manifest().template_sha256,
        "dtype": result.dtype,
        "compared_in": result.compared_in,
        "rows": result.rows,
        "bounds": asdict(result.bounds),
        "drift": result.drift.as_json(),
        "fine_tuning_change": result.change.as_json(),
        "valid_loss": None if result.losses is None else result.losses.as_json(),
    }
