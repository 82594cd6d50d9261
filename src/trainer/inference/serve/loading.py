"""A service from a run, or from a folder that `trainer export` wrote."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.inference.serve.engine import ServingEngine
from trainer.inference.serve.gate import check_prompts
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.rendering import PromptRenderer
from trainer.inference.serve.service import BaseModel, Service, in_thread
from trainer.inference.serve.trained_prompt import TrainedPrompt
from trainer.inference.serve.views import views
from trainer.inference.trained import stop_ids, stored_tokenizer, template_digest
from trainer.model.adapter import load_to_answer
from trainer.model.base import find_base
from trainer.model.device import pick_device, pick_dtype
from trainer.model.loading import load_model
from trainer.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Served weights, and the folder of their tokenizer."""

    name: str
    folder: Path
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int

    @property
    def fingerprint(self) -> str:
        """Changes with the weights that were trained."""
        weights = sorted(self.folder.glob("*.safetensors"))
        digest = hashlib.sha256()
        for file in weights:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return f"fp_{digest.hexdigest()[:12]}"


async def service_of_run(run: Run, limits: Limits, report: Callable[[str], None]) -> Service:
    """The run's model, ready to answer; its prompts are compared with those of training.

    Raises: ConfigError, ParityError.
    """
    tuned = await in_thread(lambda: _tuned(run))
    renderer = PromptRenderer(run.adapter)
    await renderer.start()
    try:
        num_prompts, source = await check_prompts(run, tuned.renderer, renderer)
    except BaseException:
        await renderer.stop()
        raise
    report(f"{num_prompts} prompts of {source} are the ones that were trained")
    with_adapter, without = views(tuned.model)
    model = ServedModel(run.name, run.adapter, with_adapter, tuned.tokenizer, tuned.max_length)
    service = await _service(model, renderer, limits, report, run.manifest().system_prompt)
    base, stops = run.manifest().base, service.engine.stops
    fingerprint = f"fp_{hashlib.sha256(str(base).encode()).hexdigest()[:12]}"
    service.base = BaseModel(base.name, fingerprint, lambda: ServingEngine(without, stops, tuned.max_length, limits))
    return service


async def service_of_export(folder: Path, limits: Limits, report: Callable[[str], None]) -> Service:
    """The exported model, ready to answer. Raises: ConfigError, when the folder is not a whole export."""
    model = await in_thread(lambda: load_export(folder))
    renderer = PromptRenderer(folder)
    await renderer.start()
    return await _service(model, renderer, limits, report)


async def _service(
    model: ServedModel,
    renderer: PromptRenderer,
    limits: Limits,
    report: Callable[[str], None],
    prompt: str | None = None,
) -> Service:
    stops = stop_ids(renderer.stops, model.model.generation_config.eos_token_id)
    engine = ServingEngine(model.model, stops, model.max_length, limits)
    await in_thread(engine.start)
    if engine.max_length < model.max_length:
        report(f"memory is left for conversations of {engine.max_length:,} tokens, of {model.max_length:,}")
    return Service(
        model.name, model.fingerprint, engine, renderer, model.tokenizer, limits, TrainedPrompt(prompt, report)
    )


def _tuned(run: Run) -> Any:
    from trainer.inference.local import TunedModel

    return TunedModel(run)


def load_export(folder: Path) -> ServedModel:
    """The model of an export, in the form and number format in which it was compared with the trained one.

    Raises: ConfigError, when the folder is not an export, its template was changed, or its base is not to be had.
    """
    try:
        origin = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{folder}: has no parity.json, expected a folder written by: trainer export") from None
    tokenizer = stored_tokenizer(folder)
    if template_digest(tokenizer) != origin["template_sha256"]:
        raise ConfigError(f"{folder}: the chat template is not the trained one; export the run again")
    settings = ModelConfig(base=str(folder), dtype=origin["dtype"])
    if not origin["merged"]:
        pinned = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        source = {"base": _base_of(folder, pinned["base_model_name_or_path"]), "revision": pinned["revision"]}
        settings = settings.model_copy(update={**source, "quantization": origin["quantization"]})
    base, device = find_base(settings), pick_device()
    model = load_model(base, settings, device, pick_dtype(settings, device))
    if not origin["merged"]:
        model = load_to_answer(model, folder).get_base_model()
    return ServedModel(str(origin["run"]), folder, model.eval(), tokenizer, base.max_length)


def _base_of(folder: Path, name: str) -> str:
    """A hub's id, a folder of this machine, or the one that came along with the adapter."""
    return str(folder / name) if (folder / name).is_dir() else name
