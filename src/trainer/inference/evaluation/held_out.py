"""The rows that a run's models are compared on: held out, checked, drawn, and compared with what was trained on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from trainer.config.schema import EvaluationConfig, RunConfig
from trainer.data.conversations import Conversation, Message
from trainer.data.read.checks import DataReport, check_files
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.manifest import DataFile, Manifest

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows that are answered, out of `total`, and what a reader of the result must know about them."""

    rows: tuple[Conversation, ...]
    total: int
    files: tuple[str, ...]
    limits: EvaluationConfig  # resolved
    seed: int  # by which the rows were drawn
    notes: tuple[str, ...]
    trained: tuple[str, ...] | None  # the files that were trained on; None where one is gone or has changed

    @property
    def max_new_tokens(self) -> int:
        assert isinstance(self.limits.max_new_tokens, int)  # resolved
        return self.limits.max_new_tokens

    @property
    def sha256(self) -> str:
        """The same for the same conversations in the same order, whatever their files are called."""
        said = [[_as_json(message) for message in row.messages] for row in self.rows]
        tools = [row.tools for row in self.rows]
        return hashlib.sha256(json.dumps([said, tools], sort_keys=True).encode()).hexdigest()


def _as_json(message: Message) -> dict[str, Any]:
    """A message without the thought that it lacks, as it was digested before thoughts had a place of their own."""
    lacking = () if message.reasoning_content else ("reasoning_content",)
    return {name: value for name, value in asdict(message).items() if name not in lacking}


@dataclass(frozen=True, slots=True)
class Found:
    """Held-out conversations before they are rendered."""

    conversations: list[Conversation]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    trained: tuple[str, ...] | None


def find_held_out(run: Run, config: RunConfig, file: Path | None = None) -> Found:
    """The rows of `file`, or the run's validation rows.

    Raises: ConfigError, when there are none; DataError, with every row that breaks a rule.
    """
    files = (str(file),) if file is not None else config.data.validation_paths
    if not files:
        raise ConfigError(
            f"run {run.name!r}: has no held-out rows (data.validation is not set), expected a file of them; "
            f"run: trainer evaluate {run.path} --rows FILE"
        )
    read = {entry.path: entry for entry in run.manifest().data}
    changed = [path for path in files if path in read and not read[path].is_unchanged] if file is None else []
    # A run's own rows were compared with its training rows before it began.
    known = file is None and not changed and not config.data.allow_leak
    trained, gone = trained_files(run)
    unchecked = [path for path in trained if not (known and path in read and read[path].is_unchanged)]
    # A trained row is no reason to refuse here, but the reader of the result must know.
    report = check_files([Path(path) for path in unchecked], [Path(path) for path in files], allow_leak=True)
    held_out = {Path(path).resolve() for path in files}
    theirs = {name for name in {finding.file for finding in report.findings} if Path(name).resolve() in held_out}
    own = replace(report, findings=[finding for finding in report.findings if finding.file in theirs])
    own.raise_on_errors()
    notes = [*_leaks(own), *(f"{path} has changed since the run was trained" for path in changed)]
    if gone:
        what = "not known which answers were" if known else "not checked whether a row was"
        notes.append(f"{what} trained on: {', '.join(gone)} is gone or has changed")
    return Found(report.validation, files, tuple(notes), None if gone else trained)


def trained_files(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files as the run, or one that it came from, was trained on; and what of that is gone or has changed."""
    read, gone = list[DataFile](), list[str]()
    for ancestor, manifest in _lineage(run):
        if manifest is None:
            gone.append(str(ancestor.path))
        else:
            read += manifest.files("train")
    # One path may have held other rows for each run.
    present = {(file.path, file.sha256): file.is_unchanged for file in read}
    gone += [path for (path, _), there in present.items() if not there]
    return tuple(path for (path, _), there in present.items() if there), tuple(gone)


def _lineage(run: Run) -> Iterator[tuple[Run, Manifest | None]]:
    """The run and those that it came from, each with its manifest; None for one that is gone or damaged, which ends it.

    Raises: ConfigError, when the run itself is damaged.
    """
    manifest, known = run.manifest(), {run.path.resolve()}
    yield run, manifest
    while manifest.parent is not None:
        try:
            run = Run(Path(run.config().model.base.partition("@")[0]))
            found = run.find_manifest()
        except ConfigError:
            found = None
        if found is None or run.path.resolve() in known:
            yield run, None
            return
        known.add(run.path.resolve())
        yield run, (manifest := found)


def _leaks(report: DataReport) -> Iterator[str]:
    leaks = {(finding.file, finding.line) for finding in report.findings if finding.code == "LEAK"}
    whole_file = any(line is None for _, line in leaks)
    if count := report.validation_rows if whole_file else len(leaks):
        was = "was" if count == 1 else "were"
        yield f"{count:,} of these rows {was} also trained on: the result looks better than it is"


def seed_of(config: RunConfig) -> int:
    """The run's seed, which also decides which rows are drawn."""
    return config.training.seed if isinstance(config.training.seed, int) else 0


def draw(rows: Sequence[Drawn], count: int, seed: int) -> Sequence[Drawn]:
    """`count` rows at random, in the order of their files: the same for the same seed."""
    import numpy

    if count >= len(rows):
        return rows
    numbers = numpy.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[number] for number in sorted(numbers.tolist())]
