"""The rows that base and tuned model are compared on: held out, checked, rendered as in training, and counted."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from trainer.config.schema import EvaluationConfig, RunConfig
from trainer.data.checks import DataReport, check_files
from trainer.data.conversations import Conversation
from trainer.data.overlength import Touched, longest, shortened
from trainer.data.rendering import Renderer
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.training.answer_limits import resolve_limits
from trainer.training.dataset import Row, render_rows, sha256_of


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows that are answered, out of `total`, and what a reader of the result must know about them."""

    rows: tuple[Row, ...]
    total: int
    files: tuple[str, ...]
    limits: EvaluationConfig  # resolved
    notes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The same for the same conversations in the same order, whatever their files are called."""
        said = [[asdict(message) for message in row.conversation.messages] for row in self.rows]
        tools = [row.conversation.tools for row in self.rows]
        return hashlib.sha256(json.dumps([said, tools], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """Held-out conversations before they are rendered."""

    conversations: list[Conversation]
    files: tuple[str, ...]
    notes: tuple[str, ...]


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
    trained = [source.path for source in config.data.train_sources if Path(source.path).is_file()]
    # A trained row is no reason to refuse here, but the reader of the result must know.
    report = check_files([Path(path) for path in trained], [Path(path) for path in files], allow_leak=True)
    problems = replace(report, findings=[finding for finding in report.findings if finding.file in files])
    problems.raise_on_errors()
    return Found(report.validation, files, tuple(_notes(run, config, files, problems)))


def _notes(run: Run, config: RunConfig, files: Sequence[str], report: DataReport) -> list[str]:
    notes = []
    leaks = {(finding.file, finding.line) for finding in report.findings if finding.code == "LEAK"}
    if leaks:
        whole_file = any(line is None for _, line in leaks)
        count = report.validation_rows if whole_file else len(leaks)
        was = "was" if count == 1 else "were"
        notes.append(f"{count:,} of these rows {was} also trained on: the result looks better than it is")
    gone = [source.path for source in config.data.train_sources if not Path(source.path).is_file()]
    if gone:
        notes.append(f"not checked whether a row was also trained on: {', '.join(gone)} cannot be found")
    for entry in run.manifest().get("data", []):
        if entry["role"] == "validation" and entry["path"] in files and entry["sha256"] != sha256_of(entry["path"]):
            notes.append(f"{entry['path']} has changed since the run was trained")
    return notes


def render_held_out(
    found: Found, config: RunConfig, limits: EvaluationConfig, renderer: Renderer, base_length: int
) -> HeldOut:
    """Render as in training, and draw as many rows as `limits` allow.

    Raises: DataError, with every row that the model's template cannot render exactly or that is too long.
    """
    max_length = base_length if config.data.max_length == "auto" else config.data.max_length
    rows, touched = render_rows(found.conversations, config.data, renderer, max_length)
    if not rows:
        raise ConfigError(f"{', '.join(found.files)}: no row is left after dropping those over {max_length:,} tokens")
    resolved = resolve_limits(limits, rows)
    assert isinstance(resolved.max_rows, int)
    drawn = _draw(rows, resolved.max_rows, seed=seed_of(config))
    fitting = tuple(_as_trained(row, touched, renderer, max_length) for row in drawn)
    notes = [*found.notes, *(f"{note.place}: {note.num_tokens:,} tokens, {note.outcome}" for note in touched)]
    return HeldOut(fitting, len(rows), found.files, resolved, tuple(notes))


def seed_of(config: RunConfig) -> int:
    """The run's seed, which also decides which rows are drawn."""
    return config.training.seed if isinstance(config.training.seed, int) else 0


def _draw(rows: Sequence[Row], count: int, seed: int) -> Sequence[Row]:
    """`count` rows at random, in the order of their files."""
    import numpy

    if count >= len(rows):
        return rows
    numbers = numpy.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[number] for number in sorted(numbers.tolist())]


def _as_trained(row: Row, touched: Sequence[Touched], renderer: Renderer, max_length: int) -> Row:
    """The row without the turns that `data.on_overlength: truncate` removed."""
    if row.conversation.place not in {note.place for note in touched}:
        return row
    shorter = shortened(row.conversation)
    return replace(row, conversation=next(c for c in shorter if longest(renderer.render(c)) <= max_length))
