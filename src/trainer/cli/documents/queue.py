"""The document of the queue."""

from typing import Any, Literal

from trainer.cli.documents.document import Document, Part
from trainer.runs.queue import Queue, QueuedRun


class AgreedQuote(Part):
    """The quote of a run that bills, as it was agreed to."""

    total: float | None
    """The sum; null where a price was not known."""
    ceiling: float | None
    """The sum by the dearest reading of each price; null where a price was not known."""
    currency: str
    """The currency."""
    lines: list[str]
    """The quote in words."""


class QueueEntry(Part):
    """A run that waits, or that has been started and not yet been seen to end."""

    run: str
    """The run's name."""
    state: Literal["waiting", "started"]
    """Its state in the queue."""
    place: int | None
    """Its place among those that wait, from 1; null once it is started."""
    num_gpus: int | None
    """GPUs that it asks for; null for all."""
    gpus: list[str] | None
    """GPUs that it was started on, empty on a CPU or at a service; null while it waits."""
    starts: int
    """Processes that were started for it: a second one resumes it after the first was lost."""
    added_at: str
    """Time at which it was put into the queue."""
    quote: AgreedQuote | None
    """The quote that was agreed to; null where it bills nothing."""


class QueueList(Document):
    """The queue of this machine in a folder of runs, in its order."""

    document: Literal["queue"] = "queue"
    """The command."""
    root: str
    """The folder of the runs."""
    worker_pid: int | None
    """The process that starts the runs; null without one."""
    gpus: list[str]
    """GPUs that this command sees; empty on a machine without any."""
    entries: list[QueueEntry]
    """Each run."""


def queue_list(queue: Queue, gpus: list[str]) -> QueueList:
    """The queue as it stands. Raises: ConfigError, for a damaged file."""
    entries = queue.entries()
    waiting = [entry.run for entry in entries if entry.waits]
    worker: dict[str, Any] = queue.worker() or {}
    return QueueList(
        root=str(queue.root),
        worker_pid=worker.get("pid"),
        gpus=gpus,
        entries=[_entry(entry, waiting) for entry in entries],
    )


def _entry(entry: QueuedRun, waiting: list[str]) -> QueueEntry:
    return QueueEntry(
        run=entry.run,
        state="waiting" if entry.waits else "started",
        place=waiting.index(entry.run) + 1 if entry.waits else None,
        num_gpus=entry.num_gpus,
        gpus=None if entry.gpus is None else list(entry.gpus),
        starts=entry.starts,
        added_at=entry.added_at,
        quote=None if entry.quote is None else AgreedQuote.model_validate(entry.quote),
    )
