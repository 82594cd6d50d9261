"""Files of a draft, as lines of its texts: added, weighted, cleaned, converted, divided. The files stay as they are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.drafts.checks import CRASH, Answer, Inquiry, ask
from trainer.drafts.files import ListedFile, Uploads, in_words
from trainer.drafts.forms import kind_of, method_of
from trainer.drafts.store import Draft, Drafts
from trainer.errors import ConfigError, DataError
from trainer.kinds import learns_from_pairs

ROLES = ("train", "validation")
SHARE = 0.1  # of the rows, held out where nobody gives some


@dataclass(frozen=True, slots=True)
class ChosenFile:
    """A file of a draft, as the page shows it; `weight` is empty where it is 1."""

    name: str
    path: str
    weight: str


class ChosenFiles:
    """The data files of drafts. Verbs raise ConfigError and DataError, with what keeps a file from being made."""

    def __init__(self, drafts: Drafts, uploads: Uploads) -> None:
        self.drafts, self.uploads = drafts, uploads

    def of(self, draft: Draft, role: str) -> list[ChosenFile]:
        """The files of a role, in order."""
        found = []
        for line in _lines(draft, role):
            value = _entry(line)
            weight = str(value.get("weight", "")) if isinstance(value, dict) else ""
            found.append(ChosenFile(self.uploads.named(path_of(line)), path_of(line), weight))
        return found

    def add(self, draft_id: str, role: str, path: str) -> None:
        """One more file, once. A name that is typed is judged like any text of the form."""
        lines = self._lines(draft_id, role)
        if all(path != path_of(line) for line in lines):
            self.drafts.set(draft_id, {f"data.{role}": "\n".join([*lines, path])})

    def remove(self, draft_id: str, role: str, number: int) -> None:
        """Take a file out of the draft; the file itself stays."""
        lines = self._lines(draft_id, role)
        self.drafts.set(draft_id, {f"data.{role}": "\n".join([*lines[:number], *lines[number + 1 :]])})

    def set_weight(self, draft_id: str, number: int, weight: str) -> None:
        """Times that an epoch uses a training file."""
        lines = self._lines(draft_id, "train")
        if number < len(lines):
            path, plain = path_of(lines[number]), weight.strip() in ("", "1")
            lines[number] = path if plain else _weighted(path, weight.strip())
            self.drafts.set(draft_id, {"data.train": "\n".join(lines)})

    def hold_out(self, draft_id: str) -> None:
        """Hold a tenth of the training rows out, in new files. Raises: DataError, ConfigError."""
        path = self._path(draft_id, "train", 0)
        stem = Path(self.uploads.named(str(path))).stem
        made = {role: self.uploads.new_path(f"{stem}.{role}.jsonl") for role in ROLES}
        request = {"verb": "split", "file": str(path), "share": SHARE} | {role: str(made[role]) for role in ROLES}
        done(ask(Inquiry(request)))
        self.drafts.set(draft_id, {f"data.{role}": in_words(made[role].resolve()) for role in ROLES})

    def clean_copy(self, draft_id: str, role: str, number: int) -> ListedFile:
        """A copy of a file of the draft without the rows that have an error. Raises: DataError, ConfigError."""
        draft = self.drafts.read(draft_id)
        path = self._path(draft_id, role, number)
        rejected = self.uploads.new_path(f"{Path(self.uploads.named(str(path))).stem}.rejected.jsonl")
        request = {"verb": "clean", "file": str(path), "rejected": str(rejected), "backend": kind_of(draft.texts)}
        request["method"] = method_of(draft.texts)
        made = Path(done(ask(Inquiry(request)))["file"])
        stem = Path(self.uploads.named(str(path))).stem.removesuffix(".clean")
        return self.uploads.own_file(made.rename(self.uploads.new_path(f"{stem}.clean.jsonl")))

    def use_clean_copy(self, draft_id: str, role: str, number: int) -> None:
        """Put a file's clean copy in its place."""
        self._replace(draft_id, role, number, self.clean_copy(draft_id, role, number).path)

    def convert(self, draft_id: str, role: str, number: int) -> None:
        """Put rows of the draft's method in the place of a file of another layout. Raises: DataError, ConfigError."""
        path, method = self._path(draft_id, role, number), method_of(self.drafts.read(draft_id).texts)
        kind = "pairs" if learns_from_pairs(method) else "chat"
        made = self.uploads.new_path(f"{Path(self.uploads.named(str(path))).stem}.{kind}.jsonl")
        done(ask(Inquiry({"verb": "convert", "file": str(path), "output": str(made), "method": method})))
        self._replace(draft_id, role, number, in_words(made.resolve()))

    def _lines(self, draft_id: str, role: str) -> list[str]:
        return _lines(self.drafts.read(draft_id), role)

    def _path(self, draft_id: str, role: str, number: int) -> Path:
        """A file of the draft. Raises: ConfigError, for one that was removed, or may not be read."""
        lines = self._lines(draft_id, role)
        if number >= len(lines):
            raise ConfigError(
                f"data.{role}: there is no file {number + 1} any more, expected one of the list; reload it"
            )
        path = path_of(lines[number])
        if self.uploads.is_outside(path):
            raise ConfigError(
                f"data.{role}: {path!r} may not be read by this page; copy the file to one of its folders"
            )
        return Path(path)

    def _replace(self, draft_id: str, role: str, number: int, path: str) -> None:
        lines = self._lines(draft_id, role)
        value = _entry(lines[number])
        weight = value.get("weight") if isinstance(value, dict) else None
        lines[number] = path if weight is None else _weighted(path, str(weight))
        self.drafts.set(draft_id, {f"data.{role}": "\n".join(lines)})


def _lines(draft: Draft, role: str) -> list[str]:
    return [line.strip() for line in draft.texts.get(f"data.{role}", "").splitlines() if line.strip()]


def _entry(line: str) -> Any:
    if not line.startswith("{"):
        return line
    try:
        return yaml.safe_load(line)
    except yaml.YAMLError:
        return line


def path_of(line: str) -> str:
    """The path in a line, which may be a mapping with its weight."""
    value = _entry(line)
    return str(value.get("path", "")) if isinstance(value, dict) else line


def _weighted(path: str, weight: str) -> str:
    number: Any = float(weight) if re.fullmatch(r"\d+(\.\d+)?", weight) else weight
    return yaml.safe_dump({"path": path, "weight": number}, default_flow_style=True, width=10**6).strip()


def done(answer: Answer) -> Answer:
    """The answer of a process. Raises: ConfigError, DataError, with the problems that it names instead."""
    if "problems" not in answer:
        return answer
    kind = DataError if answer.get("kind") in ("DataError", CRASH) else ConfigError
    raise kind(*answer["problems"])
