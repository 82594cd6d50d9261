"""Ownership of folders: the signs of a run of ours, everything that must not be deleted as one, and removal.

A run carries a marker from the moment it is made. Those of earlier versions have none: their status or manifest says
what they are. Whatever else lies in a folder is not ours, and a folder that holds it is never removed. A run's folder
is renamed in one step and only then emptied; nothing is followed through links.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.runs import files

MARKER = ".azure-llm-trainer"
SIGN = "a run of azure-llm-trainer: trainer delete may remove this folder"
STATES = ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled")
SHOWN = 3
HOMES = (Path("/home"), Path("/Users"))
TEMPLATES = "additional_chat_templates"  # a folder of transformers' tokenizers

FILES = frozenset(
    {
        MARKER, "config.yaml", "status.json", "manifest.json", "events.jsonl", "results.csv", "metrics.jsonl",
        "lock.json", "process.json", "request.json", "output.log", "ledger.jsonl", "azureml.json", "job.yml",
        "reference.safetensors", "api_job.json", "api_admission.json", "api_outcome.json", "api_deleted.json",
        "findings.jsonl",
    }
)  # fmt: skip
FOLDERS = {  # and the names in them
    "checkpoints": re.compile(r"step-\d+"),
    "report": re.compile(r"[A-Za-z0-9_-]+\.(html|json|svg)"),
    "adapter": re.compile(rf".*\.(safetensors|json|jinja|txt|model|tiktoken|spm|bpe|vocab|md)|{TEMPLATES}"),
    "judge": re.compile(r"answers\.jsonl|ledger\.jsonl|endpoint\.json|lock"),
    "data": re.compile(r"(train|validation)\.jsonl(\.gz|\.zst)?"),
    "tensorboard": re.compile(r"events\.out\.tfevents\..*"),
}
IN_A_CHECKPOINT = re.compile(r".*\.(safetensors|json|jsonl|csv|bin|pt)")
PASSING = re.compile(r"\..+\.(tmp|stale|part)|\.node-config\.yaml|\.nfs.*")  # what a kill can leave of a file


def is_run(folder: Path) -> bool:
    """True of a folder that we made: by its marker, or by what earlier versions wrote."""
    return (folder / MARKER).is_file() or _has_our_status(folder) or _has_our_manifest(folder)


def foreign(folder: Path) -> list[str]:
    """Paths in a run's folder that are not of the run; links and mounts are never ours."""
    found = []
    for entry in _entries(folder):
        if problem := _outside(entry):
            found.append(f"{entry.name} ({problem})")
        elif entry.name in FOLDERS and entry.is_dir():
            found += [f"{entry.name}/{name}" for name in _foreign_below(entry)]
        elif entry.is_dir() or not (entry.name in FILES or PASSING.fullmatch(entry.name)):
            found.append(entry.name)
    return found


def refuse_removal(folder: Path) -> None:
    """Raises: ConfigError, where removing `folder` could take away something else than one run."""
    if folder.is_symlink():
        raise ConfigError(
            f"run {str(folder)!r}: is a link to {str(folder.readlink())!r}, expected the folder itself; "
            "name that one, or remove the link with rm"
        )
    place = folder.resolve()
    if why := _vital(place):
        raise ConfigError(f"run {str(folder)!r}: is {why}, expected a run's own folder; nothing was deleted")
    try:
        others = foreign(place)
    except OSError as error:
        raise ConfigError(f"run {str(folder)!r}: cannot be read: {error.strerror}; nothing was deleted") from None
    if not is_run(place) and any(place.iterdir()):
        held = f"holds {in_short(others)} and " if others else ""
        raise ConfigError(
            f"run {str(folder)!r}: {held}has no sign of being a run, expected a folder that train made; "
            "nothing was deleted"
        )
    if others:
        raise ConfigError(
            f"run {str(folder)!r}: holds {in_short(others)}, which train did not make, expected its own files only; "
            "move that elsewhere first; nothing was deleted"
        )


def in_short(names: list[str]) -> str:
    """The first few names and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _vital(place: Path) -> str | None:
    """The role of a folder that others need, in words; None of any other."""
    here, home = Path.cwd().resolve(), Path.home().resolve()
    if place == here:
        return "the folder you are in"
    if place in here.parents:
        return "above the folder you are in"
    if place == home or place in home.parents or place.parent in HOMES:
        return "a home folder, or above one"
    return "where a disk is mounted" if os.path.ismount(place) else None


def _foreign_below(folder: "os.DirEntry[str]") -> Iterator[str]:
    for entry in _entries(folder.path):
        if problem := _outside(entry):
            yield f"{entry.name} ({problem})"
        elif not (FOLDERS[folder.name].fullmatch(entry.name) or PASSING.fullmatch(entry.name)):
            yield entry.name
        elif folder.name == "checkpoints" and entry.is_dir():
            for inner in _entries(entry.path):
                if _outside(inner) or inner.is_dir() or not _is_of_a_checkpoint(inner.name):
                    yield f"{entry.name}/{inner.name}"
        elif entry.is_dir() and entry.name != TEMPLATES:
            yield entry.name


def _is_of_a_checkpoint(name: str) -> bool:
    return bool(IN_A_CHECKPOINT.fullmatch(name) or PASSING.fullmatch(name))


def _entries(folder: str | Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _outside(entry: "os.DirEntry[str]") -> str | None:
    """Target of an entry that leads out of its own folder; None for others."""
    if entry.is_symlink():
        return "a link"
    return "a mount" if entry.is_dir() and os.path.ismount(entry.path) else None


def _has_our_status(folder: Path) -> bool:
    status = _record(folder / "status.json")
    return status.get("state") in list(STATES) and all(key in status for key in ("updated_at", "host", "pid"))


def _has_our_manifest(folder: Path) -> bool:
    return "fingerprint" in _record(folder / "manifest.json")


def _record(path: Path) -> dict[str, Any]:
    try:
        return files.read_record(path)
    except OSError:
        return {}


LEFT_BEHIND = re.compile(r"\.[A-Za-z0-9].*\.[0-9a-f]{8}\.(new|deleted)")
ABANDONED_SECONDS = 3600.0  # making a folder takes milliseconds


def remove(folder: Path) -> None:
    """Remove a run's folder and everything in it.

    Raises: ConfigError, when it is no run, holds anything else, or cannot be removed.
    """
    refuse_removal(folder)
    _refuse_read_only(folder)
    aside = folder.with_name(beside(folder.name, "deleted"))
    try:
        folder.rename(aside)
    except OSError as error:
        raise ConfigError(
            f"run {str(folder)!r}: cannot be deleted: {error.strerror}, expected write access to "
            f"{str(folder.parent)!r}; nothing was deleted"
        ) from None
    try:
        shutil.rmtree(aside)
    except OSError as error:
        if aside.exists():  # else another process has swept it up
            raise ConfigError(
                f"run {str(folder)!r}: what is left of it in {str(aside)!r} cannot be deleted: {error.strerror}; "
                "remove that by hand"
            ) from None
    sweep(folder.parent)


def beside(name: str, ending: str) -> str:
    """A name that no run can have, for a folder that is being made or removed."""
    return f".{name}.{secrets.token_hex(4)}.{ending}"


def sweep(root: Path) -> None:
    """Remove what a kill left of runs that were being made or removed."""
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if LEFT_BEHIND.fullmatch(path.name) and not path.is_symlink() and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    if not is_run(folder):
        return False
    return folder.name.endswith(".deleted") or time.time() - folder.stat().st_mtime > ABANDONED_SECONDS


def _refuse_read_only(folder: Path) -> None:
    """Before anything is deleted, so that no half of a run is left. Raises: ConfigError."""
    for place, _, _ in os.walk(folder):
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigError(
                f"run {str(folder)!r}: {place!r} is read-only, expected write access; nothing was deleted"
            )
