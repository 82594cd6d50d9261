"""The process that answers chat requests: one base of the server's offers at a time, with the models tuned from it.

It starts when somebody asks, makes room for another base once its answers are finished, and ends when nobody asks, or
when training wants the machine.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.api.errors import ApiError
from trainer.api.folders import FOLDER
from trainer.errors import TrainerError
from trainer.extras import TO_LOAD_A_MODEL, absent, missing
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.process import ModelProcess, start_process
from trainer.kinds import executes_here
from trainer.runs import Run
from trainer.runs.process import visible_gpus
from trainer.runs.queue import Queue

if TYPE_CHECKING:
    from trainer.config.schema import ModelConfig

LIMITS = Limits(max_requests=32, max_tokens=4096, max_seconds=600.0)
NUM_ENGINES = 4  # models that answer at a time; the one that was asked least recently makes room
IDLE_SECONDS, WATCH_SECONDS, POLL_SECONDS = 600.0, 1.0, 0.02
TOKENIZERS = ".tokenizers"  # no owner's name begins with a dot


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model as the process takes it: the run, and which of its adapters."""

    run: Run
    adapter: Path


@dataclass(frozen=True)
class Wanted:
    """A model that was asked for: its own name, that of its base, and how the base is loaded for its own sake."""

    name: str
    base: str
    settings: "Callable[[], ModelConfig]"
    tuned: Tuned | None = None


@dataclass
class _Held:
    """The process, and the requests that it answers."""

    base: str
    process: ModelProcess
    num_answering: int = 0
    used_at: float = field(default_factory=time.monotonic)


class ChatModels:
    """The models of a folder of runs; use it from one event loop."""

    def __init__(self, root: Path, idle_seconds: float = IDLE_SECONDS) -> None:
        self.root, self.idle_seconds = root, idle_seconds
        self._held: _Held | None = None
        self._turn = asyncio.Lock()  # of requests, in their order, until their model is ready
        self._watch: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def answering(self, wanted: Wanted) -> AsyncIterator[ModelProcess]:
        """The process with the model in it, which stays until the block is left. Raises: ApiError."""
        async with self._turn:
            held = await self._ready(wanted)
            held.num_answering += 1
        try:
            yield held.process
        finally:
            held.num_answering -= 1
            held.used_at = time.monotonic()

    def close(self) -> None:
        """End the process, whatever it does."""
        held, self._held = self._held, None
        if held is not None:
            held.process.end()

    async def _ready(self, wanted: Wanted) -> _Held:
        if reason := training_wants(self.root):
            raise ApiError(503, f"{reason}; ask again when it has ended", "model_not_ready", type="server_error")
        held = self._held
        if held is None or held.base != wanted.base or held.process.state == "failed":
            held = await self._change(wanted.base, wanted.settings())
        await _until_loaded(held.process)
        if wanted.tuned is None or await _is_taken(held.process, wanted.name, wanted.tuned):
            return held
        held = await self._change(wanted.base, settings_of(wanted.tuned.run))  # the base as this run was trained on it
        await _until_loaded(held.process)
        if not await _is_taken(held.process, wanted.name, wanted.tuned):
            raise ApiError(500, str(held.process.taken[wanted.name]), "model_not_ready", type="server_error")
        return held

    async def _change(self, base: str, settings: "ModelConfig") -> _Held:
        """A process for that base in place of the one there is, whose answers are finished first."""
        if lacking := absent(TO_LOAD_A_MODEL):
            words = str(missing("chat", *lacking, extra="serve"))
            raise ApiError(503, words, "model_not_ready", type="server_error")
        await self._end()
        task = {
            "name": base,
            "model": settings.model_dump(mode="json"),
            "folder": str((self.root / FOLDER / TOKENIZERS).resolve()),
            "num_engines": NUM_ENGINES,
        }
        gpus = free_gpus(self.root)[:1]
        environment = {"CUDA_VISIBLE_DEVICES": gpus[0]} if gpus else {}
        held = self._held = _Held(base, start_process(self.root, task, LIMITS, **environment))
        held.process.follow()
        self._watch = asyncio.create_task(self._end_when_idle(held))
        return held

    async def _end(self) -> None:
        held = self._held
        while held is not None and held.num_answering and held.process.state != "failed":
            await asyncio.sleep(POLL_SECONDS)
        self._held = None
        if held is not None:
            await asyncio.to_thread(held.process.end)

    async def _end_when_idle(self, held: _Held) -> None:
        while self._held is held and held.process.state != "failed":
            await asyncio.sleep(min(WATCH_SECONDS, self.idle_seconds / 4))
            is_old = time.monotonic() - held.used_at > self.idle_seconds
            if held.num_answering or held.process.state != "ready" or not (is_old or training_wants(self.root)):
                continue
            async with self._turn:
                if self._held is held and not held.num_answering:
                    await self._end()


async def _until_loaded(process: ModelProcess) -> None:
    """Raises: ApiError, where the process fails."""
    while process.state == "loading":
        await asyncio.sleep(POLL_SECONDS)
    if process.state == "failed":
        words = process.problem or "the model's process has ended"
        raise ApiError(500, f"the model cannot answer: {words}", "model_not_ready", type="server_error")


async def _is_taken(process: ModelProcess, name: str, tuned: Tuned) -> bool:
    """Add the model unless it is there; False where the base in this process is not the one that it was trained on."""
    if name not in process.taken:
        process.add(tuned.run.path, tuned.adapter, name)
    while name not in process.taken and process.state != "failed":
        await asyncio.sleep(POLL_SECONDS)
    await _until_loaded(process)
    return process.taken[name] is None


def settings_of(run: Run) -> "ModelConfig":
    """The settings that the run's base was loaded with. Raises: ConfigError."""
    pinned = run.manifest().base
    revision = pinned.revision if pinned.weights_sha256 is None else None
    return run.config().model.model_copy(update={"base": pinned.name, "revision": revision})


def training_wants(root: Path) -> str | None:
    """The reason why no model may be held on this machine now: a run of its queue comes first. None without one."""
    try:
        waits, starts = _first_of_the_queue(root)
        free = free_gpus(root)
    except TrainerError:  # its message names folders of the server; trainer queue shows it to the owner
        return "the queue of this machine cannot be read, and a run may be training"
    if visible_gpus():
        if starts and not free:
            return f"this machine is training {starts!r}"
        return f"this machine is about to train {waits!r}" if waits else None
    return f"this machine is about to train {waits!r}" if waits and not starts else None


def free_gpus(root: Path) -> list[str]:
    """GPUs that no run of the queue trains on. Raises: TrainerError, where the queue cannot be read."""
    taken = {gpu for entry in Queue(root).entries() for gpu in entry.gpus or ()}
    return [gpu for gpu in visible_gpus() if gpu not in taken]


def _first_of_the_queue(root: Path) -> tuple[str | None, str | None]:
    """The first run of this machine that waits for a worker, and the first that one has started."""
    queue = Queue(root)
    entries = queue.entries()
    waits, starts = ([entry.run for entry in entries if entry.waits is waiting] for waiting in (True, False))
    return _first_here(root, waits if queue.worker() else ()), _first_here(root, starts)


def _first_here(root: Path, names: Iterable[str]) -> str | None:
    return next((name for name in names if executes_here(Run(root / name).backend)), None)


@cache
def chat_models_of(root: Path) -> ChatModels:
    """The one of a folder of runs in this process."""
    return ChatModels(root)


@contextmanager
def holding_models(root: Path) -> Iterator[None]:
    """Let models be held while the block lasts; the process that answers has ended with it."""
    try:
        yield
    finally:
        chat_models_of(root).close()
        chat_models_of.cache_clear()
