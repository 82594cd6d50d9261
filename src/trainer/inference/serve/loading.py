"""The models of one base, which is loaded once: those of runs, and the base itself."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.schema import ModelConfig
from trainer.data.render.rendering import Renderer
from trainer.inference.serve.engine import ServingEngine, memory_for_caches
from trainer.inference.serve.gate import check_prompts
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.models import Models
from trainer.inference.serve.rendering import PromptRenderer
from trainer.inference.serve.service import Service, in_thread
from trainer.inference.serve.together import refuse_others
from trainer.inference.serve.trained_prompt import TrainedPrompt
from trainer.inference.serve.weights import Weights
from trainer.inference.trained import stop_ids, stored_tokenizer, trained_base, trained_tokenizer
from trainer.model.base import Base, find_base, load_tokenizer
from trainer.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Report = Callable[[str], None]
TOKENIZER_FILES = (
    "*token*.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "vocab.json",
    "merges.txt",
    "*.model",
)


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


class Loader:
    """Makes the models of one base, which is in memory: those of runs, and the base itself.

    `num_engines` share the memory for conversations; with `keep_to_it` no more of them answer at a time.
    """

    def __init__(
        self, weights: Weights, limits: Limits, report: Report, num_engines: int = 1, keep_to_it: bool = False
    ) -> None:
        self.weights, self.limits, self.report = weights, limits, report
        self.models = Models(limits, num_engines if keep_to_it else None)
        self.room = memory_for_caches(weights.model.device) // num_engines
        self._renderers: dict[str, PromptRenderer] = {}

    def offer_run(self, run: Run, name: str, adapter: Path | None = None) -> None:
        """Let the run's model, or that of another `adapter` of it, be asked by this name.

        Raises: ConfigError, for a run of another base.
        """
        refuse_others(self.weights.base.pinned(), self.weights.settings, self.weights.base.name, [run])
        self.models.offer(name, lambda: self._start_run(run, name, adapter or run.adapter))

    def offer_base(self, name: str, tokenizer_folder: Path, room: int | None) -> None:
        """Let the base be asked by this name, with the prompts that a tokenizer's folder makes.

        `room` is in bytes; None for a share of the memory that is free when the base is first asked.
        """
        self.models.offer(name, lambda: self._start_base(name, tokenizer_folder, room))

    async def stop(self) -> None:
        """End all that answers and renders."""
        await in_thread(self.models.stop)
        for renderer in self._renderers.values():
            await renderer.stop()

    async def _start_run(self, run: Run, name: str, folder: Path) -> Service:
        """The run's model; its prompts are compared with those of training. Raises: ConfigError, ParityError."""
        tokenizer = await in_thread(lambda: trained_tokenizer(run))
        renderer = await self._renderer(run.adapter)
        num_prompts, source = await check_prompts(run, Renderer(tokenizer), renderer)
        self.report(f"{num_prompts} prompts of {source} are the ones that were trained")
        adapter = await in_thread(lambda: self.weights.add(folder))
        model = ServedModel(name, folder, self.weights.view(adapter), tokenizer, self.weights.base.max_length)
        trained = TrainedPrompt(run.manifest().system_prompt, self.report)

        def release() -> None:
            self.weights.remove(adapter)

        try:
            fingerprint = await in_thread(lambda: model.fingerprint)
            engine = await engine_of(model, renderer, self.limits, self.report, self.room)
        except BaseException:
            release()
            raise
        return Service(name, fingerprint, engine, renderer, tokenizer, self.models.places, trained, release)

    async def _start_base(self, name: str, folder: Path, room: int | None) -> Service:
        renderer, tokenizer = await self._renderer(folder), await in_thread(lambda: stored_tokenizer(folder))
        base = self.weights.base
        model = ServedModel(name, folder, self.weights.view(None), tokenizer, base.max_length)
        engine = await engine_of(model, renderer, self.limits, self.report, room)
        fingerprint = f"fp_{hashlib.sha256(str(base.pinned()).encode()).hexdigest()[:12]}"
        return Service(name, fingerprint, engine, renderer, tokenizer, self.models.places, TrainedPrompt(None))

    async def _renderer(self, folder: Path) -> PromptRenderer:
        """The process that renders with the tokenizer of a folder; equal tokenizers share one."""
        digest = await in_thread(lambda: _tokenizer_digest(folder))
        if digest not in self._renderers:
            renderer = PromptRenderer(folder)
            await renderer.start()
            self._renderers[digest] = renderer
        return self._renderers[digest]


async def load_runs(runs: Sequence[Run], limits: Limits, report: Report) -> Loader:
    """The models of runs of one base, ready to answer, and the base, which answers once it is asked.

    Its prompts are those of the first run. Raises: ConfigError, ParityError.
    """
    first = runs[0]
    weights = await in_thread(lambda: Weights(trained_base(first), first.config().model))
    loader = Loader(weights, limits, report, num_engines=len(runs))
    try:
        for run in runs:
            loader.offer_run(run, run.name)
            await loader.models.start(run.name)
    except BaseException:
        await loader.stop()
        raise
    loader.offer_base(first.manifest().base.name, first.adapter, room=None)
    return loader


async def load_base(
    name: str, settings: ModelConfig, folder: Path, num_engines: int, limits: Limits, report: Report
) -> Loader:
    """A base that answers once it is asked, as runs' models do that are offered later. Raises: ConfigError."""
    base = await in_thread(lambda: find_base(settings))
    tokenizer = await in_thread(lambda: _kept_tokenizer(base, settings, folder))
    weights = await in_thread(lambda: Weights(base, settings))
    loader = Loader(weights, limits, report, num_engines, keep_to_it=True)
    loader.offer_base(name, tokenizer, loader.room)
    return loader


def _kept_tokenizer(base: Base, settings: ModelConfig, folder: Path) -> Path:
    """A folder with the base's tokenizer as training reads it. One that is there is whole: it got its name last."""
    tokenizer = load_tokenizer(base, settings)
    content = f"{version('transformers')}\n{base.pinned()}\n{tokenizer.chat_template}"
    kept = folder / hashlib.sha256(content.encode()).hexdigest()
    if not kept.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as written:
            tokenizer.save_pretrained(Path(written) / "tokenizer")
            with suppress(OSError):  # another server was faster
                (Path(written) / "tokenizer").rename(kept)
    return kept


async def engine_of(
    model: ServedModel, renderer: PromptRenderer, limits: Limits, report: Report, room: int | None = None
) -> ServingEngine:
    """A started engine. Raises: ConfigError, when transformers cannot batch the model, or memory lacks."""
    stops = stop_ids(renderer.stops, model.model.generation_config.eos_token_id)
    engine = ServingEngine(model.model, stops, model.max_length, limits, room)
    await in_thread(engine.start)
    if engine.max_length < model.max_length:
        report(f"memory is left for conversations of {engine.max_length:,} tokens, of {model.max_length:,}")
    return engine


def _tokenizer_digest(folder: Path) -> str:
    """Of the files that a prompt is made with; an adapter's own files are left out."""
    digest = hashlib.sha256()
    for file in sorted(path for name in TOKENIZER_FILES for path in folder.glob(name)):
        digest.update(f"{file.relative_to(folder)}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
