"""Documents that rows can be written from: those below the folders that pages may read, and those given to a page."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.dashboard.datasets.files import MAX_DEPTH, OWN, id_of
from trainer.data.quoting import printable
from trainer.drafts.files import STORED, files_below, harmless, in_bytes, in_words, refuse_name
from trainer.errors import DataError
from trainer.runs.files import write_whole
from trainer.workshop.documents.formats import READ

MAX_LISTED = 300
MAX_UPLOAD_BYTES = 32 * 10**6  # of all documents that come with a form
DATA = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml"})  # listed last


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document by the id that pages name it with."""

    id: str
    name: str
    path: Path
    num_bytes: int


class Documents:
    """All documents that can be chosen."""

    def __init__(self, root: Path, folders: Sequence[Path]) -> None:
        self.folder, self.folders = root / OWN.parent / "documents", tuple(folders)

    def all(self) -> list[ListedDocument]:
        """The documents: those that a page was given first, then texts, then tables and other data."""
        found: dict[str, ListedDocument] = {}
        paths = [path for folder in self.folders for path in files_below(folder, MAX_DEPTH, READ)]
        for path in [*files_below(self.folder, 1, READ), *sorted(paths, key=_is_data)][:MAX_LISTED]:
            try:
                num_bytes = path.stat().st_size
            except OSError:  # removed meanwhile
                continue
            is_own = path.parent == self.folder and STORED.fullmatch(path.name)
            name = path.name[13:] if is_own else printable(in_words(path.resolve()))
            found.setdefault(id_of(path), ListedDocument(id_of(path), name, path, num_bytes))
        return list(found.values())

    def find(self, ids: Iterable[str]) -> list[ListedDocument]:
        """The documents of ids, in the order of the list. Raises: DataError, where one is gone."""
        wanted, listed = dict.fromkeys(ids), self.all()
        if gone := wanted.keys() - {document.id for document in listed}:
            raise DataError(
                f"{min(gone)[:40]!r}: there is no such document any more, expected those of the list; tick others"
            )
        return [document for document in listed if document.id in wanted]

    def keep(self, name: str, content: bytes) -> str:
        """Keep a document that arrived with a form, and return its id. Raises: DataError, OSError."""
        refuse_name(name)
        if not name.lower().endswith(READ):
            raise DataError(f"{printable(name)}: is of no format that is read, expected {', '.join(READ)}; convert it")
        if not content:
            raise DataError(f"{printable(name)}: is empty, expected a document of up to {in_bytes(MAX_UPLOAD_BYTES)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:12]}-{harmless(name)}"
        if not path.is_file():
            write_whole(path, content)
        return id_of(path)


def _is_data(path: Path) -> bool:
    return path.suffix.lower() in DATA
