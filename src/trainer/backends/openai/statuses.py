"""The words of both services for the states of jobs and files, and for the levels of events, as ours."""

from typing import Literal

from trainer.runs.run import Level, State

STATES: dict[str, State] = {
    "validating_files": "validating_files",
    "created": "queued",
    "notrunning": "queued",
    "pending": "queued",
    "queued": "queued",
    "running": "running",
    "resuming": "running",
    "pausing": "running",
    "cancelling": "running",
    "paused": "paused",
    "succeeded": "succeeded",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "deleted": "cancelled",
}
ENDED = frozenset({"succeeded", "failed", "cancelled"})
FILE_READY, FILE_FAILED = frozenset({"processed", "succeeded"}), frozenset({"error", "failed", "deleted", "deleting"})
LEVELS: dict[str, Level] = {"info": "info", "warn": "warning", "warning": "warning", "error": "error"}

FileState = Literal["waiting", "ready", "failed"]


def state_of(word: object) -> State | None:
    """The state in our words; None for one that is new to us."""
    return STATES.get(str(word or "").lower())


def file_state(word: object) -> FileState:
    """Whether a file can be trained on. A service that gives no state has nothing left to do."""
    text = str(word or "processed").lower()
    if text in FILE_FAILED:
        return "failed"
    return "ready" if text in FILE_READY else "waiting"


def level_of(word: object) -> Level:
    """The level of an event; what is unknown is worth a look."""
    return LEVELS.get(str(word or "info").lower(), "warning")
