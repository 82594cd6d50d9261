"""Unfinished new runs, each a file: a reload, another tab and a restarted server show what was typed.

Two tabs may edit one draft: the last word counts for each field.
"""

import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainer.drafts.forms import fields, yaml_of
from trainer.errors import ConfigError
from trainer.runs import files
from trainer.runs.run import now

ID = re.compile(r"[0-9a-f]{12}")
MAX_CHARS = 20_000  # of one field


@dataclass(slots=True)
class Draft:
    """The typed texts by setting; `name` is kept for the run to be, and `run` is the run that was made."""

    id: str
    texts: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    run: str | None = None
    updated_at: str = ""

    @property
    def is_empty(self) -> bool:
        return not any(text.strip() for name, text in self.texts.items() if name != "backend.kind")

    @property
    def title(self) -> str:
        """Base and first file, in short."""
        base = self.texts.get("model.base", "").strip() or "no base yet"
        data = [Path(line).name for line in self.texts.get("data.train", "").splitlines() if line.strip()]
        return f"{base}, {data[0] if data else 'no data yet'}"


class Drafts:
    """The folder of the drafts. Its verbs raise ConfigError for an id that is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def new_id(self) -> str:
        """An id for a draft that has no file until something is typed."""
        return secrets.token_hex(6)

    def read(self, draft_id: str) -> Draft:
        found = files.read_record(self._file(draft_id))
        texts = found.get("texts")
        known = {name: text for name, text in texts.items() if isinstance(text, str)} if isinstance(texts, dict) else {}
        name, run = (found[key] if isinstance(found.get(key), str) else None for key in ("name", "run"))
        return Draft(draft_id, known, name, run, str(found.get("updated_at") or ""))

    def set(
        self, draft_id: str, changes: Mapping[str, str], *, name: str | None = None, run: str | None = None
    ) -> Draft:
        """Keep the changed texts beside the others, and a `name` or `run`; write the config that they ask for.

        Raises: OSError.
        """
        with self._lock:
            draft = self.read(draft_id)
            names = {known.name for known in fields()}
            draft.texts |= {key: _storable(text) for key, text in changes.items() if key in names}
            draft.name, draft.run, draft.updated_at = name or draft.name, run or draft.run, now()
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_json(self._file(draft_id), asdict(draft))
            files.write_whole(self.config(draft_id), yaml_of(draft.texts))
            return draft

    def config(self, draft_id: str) -> Path:
        """The file of the draft's config."""
        return self._file(draft_id).with_suffix(".yaml")

    def unfinished(self) -> list[Draft]:
        """Drafts that hold something and of which no run was made, newest first."""
        names = [path.stem for path in self.folder.glob("*.json") if ID.fullmatch(path.stem)]
        found = [draft for draft in map(self.read, names) if draft.run is None and not draft.is_empty]
        return sorted(found, key=lambda draft: draft.updated_at, reverse=True)

    def delete(self, draft_id: str) -> None:
        """Forget a draft."""
        for path in (self._file(draft_id), self.config(draft_id)):
            path.unlink(missing_ok=True)

    def _file(self, draft_id: str) -> Path:
        if not ID.fullmatch(draft_id):
            raise ConfigError(f"{draft_id[:40]!r}: is no draft, expected twelve hexadecimal digits; begin a new run")
        return self.folder / f"{draft_id}.json"


def _storable(text: str) -> str:
    """The text as a file and a form can hold it: one kind of line break, no half of a character."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()
    return plain[:MAX_CHARS]
