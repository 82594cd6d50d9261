"""Data files that the pages may read: those that runs were made from, and those below given folders.

A page names a file by an id that is made of its path: nothing else on the machine can be asked for.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.drafts.files import files_below
from trainer.errors import ConfigError
from trainer.runs import Run, list_runs
from trainer.runs.damage import readable_manifest

OWN = Path(".ui") / "files"  # below the folder of the runs
VERSION = re.compile(r"\.v(\d+)$")  # at the end of a name without its suffix
MAX_LISTED, MAX_DEPTH = 500, 3


@dataclass(frozen=True, slots=True)
class Use:
    """A run that a file was read for, and the sort of its rows there."""

    run: str
    role: str


@dataclass(slots=True)
class DataSet:
    """A file, by the id that pages name it with."""

    id: str
    path: Path
    num_bytes: int
    uses: list[Use] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name; one that was dropped on a page is shown without the digest that it is kept under."""
        name = self.path.name
        is_kept = self.path.parent.parts[-2:] == OWN.parts and name[12:13] == "-"
        return name[13:] if is_kept else name

    @property
    def folder(self) -> str:
        """The folder, from the working folder on where it is below."""
        here, folder = Path.cwd().resolve(), self.path.parent
        return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)

    @property
    def state(self) -> tuple[str, int, int]:
        """Identity of the file's content as far as the file system tells. Raises: OSError."""
        found = self.path.stat()
        return str(self.path), found.st_size, found.st_mtime_ns


class DataSets:
    """All files that can be looked at."""

    def __init__(self, root: Path, folders: Sequence[Path] = ()) -> None:
        self.root, self.folders = root, tuple(folders)

    @property
    def own(self) -> Path:
        """The folder of files that pages have made or received."""
        return self.root / OWN

    def all(self) -> list[DataSet]:
        """The files: those of runs first, newest run first, then those of the folders by name."""
        return self.with_notes()[0]

    def with_notes(self) -> tuple[list[DataSet], list[str]]:
        """All files, and for each run whose uses cannot be read a sentence that says why."""
        found, notes = dict[str, DataSet](), list[str]()
        for run in reversed(list_runs(self.root)):
            try:
                uses = list(_uses_of(run))
            except (ConfigError, OSError) as error:
                notes.append(str(error))
                continue
            for path, use in uses:
                if (known := _known(found, path)) is not None:
                    known.uses.append(use)
        for path in [version for file in list(found.values()) for version in _versions_of(file.path)]:
            _known(found, path)
        for path in self._in_folders():
            if len(found) >= MAX_LISTED:
                break
            _known(found, path)
        return list(found.values()), notes

    def used(self) -> frozenset[Path]:
        """Files that a run has read, or may have read: all of them where a run does not say which."""
        found, notes = self.with_notes()
        return frozenset(file.path for file in found if file.uses or notes)

    def find(self, set_id: str) -> DataSet:
        """The file of an id. Raises: ConfigError, where there is none."""
        for known in self.all():
            if known.id == set_id:
                return known
        raise ConfigError(f"{set_id[:40]!r}: there is no such data file any more; choose one of the list")

    def _in_folders(self) -> Iterator[Path]:
        for folder in (self.own, *self.folders):
            yield from files_below(folder, MAX_DEPTH, (".jsonl",))


def id_of(path: Path) -> str:
    """The id of a file."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def _known(found: dict[str, DataSet], path: Path) -> DataSet | None:
    """The file among those that are known, added where it is new; None where there is no such file."""
    resolved = path.resolve()
    name = id_of(resolved)
    if name not in found:
        try:
            if not resolved.is_file():
                return None
            found[name] = DataSet(name, resolved, resolved.stat().st_size)
        except OSError:
            return None
    return found[name]


def _uses_of(run: Run) -> Iterator[tuple[Path, Use]]:
    manifest = readable_manifest(run)
    for file in manifest.data if manifest else ():
        yield Path(file.path), Use(run.name, file.role)


def _versions_of(path: Path) -> Iterator[Path]:
    """The later versions that were written beside a file."""
    stem = VERSION.sub("", path.stem)
    try:
        beside = sorted(path.parent.glob(f"{glob.escape(stem)}.v*{path.suffix}"))
    except OSError:
        return
    yield from (other for other in beside if VERSION.sub("", other.stem) == stem and not other.is_symlink())
