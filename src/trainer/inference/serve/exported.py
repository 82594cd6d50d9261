"""The model of a folder that `trainer export` wrote."""

import json
from pathlib import Path

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.loading import Report, ServedModel, engine_of
from trainer.inference.serve.models import Models
from trainer.inference.serve.rendering import PromptRenderer
from trainer.inference.serve.service import Service, in_thread
from trainer.inference.serve.trained_prompt import TrainedPrompt
from trainer.inference.trained import stored_tokenizer, template_digest
from trainer.model.adapter import load_to_answer
from trainer.model.base import find_base
from trainer.model.device import pick_device, pick_dtype
from trainer.model.loading import load_model


async def models_of_export(folder: Path, limits: Limits, report: Report) -> Models:
    """The exported model, ready to answer. Raises: ConfigError, when the folder is not a whole export."""
    model = await in_thread(lambda: load_export(folder))
    models, renderer = Models(limits), PromptRenderer(folder)

    async def start() -> Service:
        await renderer.start()
        engine = await engine_of(model, renderer, limits, report)
        return Service(
            model.name, model.fingerprint, engine, renderer, model.tokenizer, models.places, TrainedPrompt(None)
        )

    models.offer(model.name, start)
    await models.start(model.name)
    return models


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
