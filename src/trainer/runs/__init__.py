"""The run directory: what every part writes about a run, and all that any part reads of one."""

from trainer.runs.collection import (
    create_run,
    find_begun,
    find_folder,
    find_or_adopt,
    find_run,
    list_runs,
    refuse_existing,
)
from trainer.runs.run import Run

__all__ = [
    "Run",
    "create_run",
    "find_begun",
    "find_folder",
    "find_or_adopt",
    "find_run",
    "list_runs",
    "refuse_existing",
]
