"""Rows of a run's training data that deserve a look: read it top to bottom."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.conversations import Conversation, Message
from trainer.data.files.new_files import new_files
from trainer.extras import need
from trainer.inference.trained import starting_adapter
from trainer.runs import Run
from trainer.workshop.doctor.run_rows import find_adapter, render_rows
from trainer.workshop.doctor.score import Medians, Suspect, medians_of, suspects

SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All rows of a run, the most suspect first; `step` is the checkpoint's, None for the run's adapter."""

    run: str
    step: int | None
    medians: Medians
    suspects: tuple[Suspect, ...]
    notes: tuple[str, ...]

    def to_json(self, count: int) -> dict[str, Any]:
        """The numbers, and the first `count` rows."""
        return {
            "run": self.run,
            "step": self.step,
            "rows": len(self.suspects),
            "rows_with_reasons": sum(bool(suspect.reasons) for suspect in self.suspects),
            "median_before": self.medians.before,
            "median_after": self.medians.after,
            "notes": list(self.notes),
            "suspects": [row_json(suspect) for suspect in self.suspects[:count]],
        }


def examine(run: Run, step: int | None, files: Sequence[Path], say: Callable[[str], None]) -> Diagnosis:
    """Measure each training row before and after the run's adapter, and compare it with rows that ask the same.

    `files` are examined in place of the run's own. Raises: MissingDependency, ConfigError, DataError, TrainingError.
    """
    adapter = find_adapter(run, step)
    need("trainer data doctor", "torch", "transformers", "peft", extra="local")
    from trainer.workshop.doctor.losses import RowMeter
    from trainer.workshop.doctor.neighbours import odd_answers

    found, start = render_rows(run, files), starting_adapter(run)
    rows = [row for row in found.rows if row.num_supervised]
    notes = list(found.notes)
    if silent := len(found.rows) - len(rows):
        notes.append(f"{silent:,} rows without a supervised token were left out")
    meter = RowMeter(found, adapter, start)
    for note in meter.engine.notes:
        say(note)
    losses = meter.measure(rows)
    odd = odd_answers([row.conversation for row in rows])
    return Diagnosis(run.name, step, medians_of(losses), tuple(suspects(rows, losses, odd)), tuple(notes))


def write_rows(diagnosis: Diagnosis, output: Path, sources: Sequence[Path], *, force: bool) -> None:
    """Write a line of JSON for each row, the most suspect first. Raises: DataError, as `new_files` does."""
    with new_files([output], list(sources), force=force) as (file,):
        for suspect in diagnosis.suspects:
            file.write(json.dumps(row_json(suspect), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def row_json(suspect: Suspect) -> dict[str, Any]:
    """A row's numbers."""
    row, odd = suspect.row.conversation, suspect.odd
    return {
        "file": row.file,
        "line": row.line,
        "score": suspect.score,
        "reasons": list(suspect.reasons),
        "question": _question(row),
        "answer": _short(row.messages[-1]),
        "loss_before": suspect.losses.before,
        "loss_after": suspect.losses.after,
        "loss_elsewhere": suspect.losses.elsewhere,
        "supervised_tokens": suspect.losses.num_supervised,
        "hard": suspect.hard,
        "unexplained": suspect.unexplained,
        "agreement": None if odd is None else odd.agreement,
    }


def _question(row: Conversation) -> str:
    asked = [message for message in row.messages[:-1] if message.role == "user"]
    return _short(asked[-1]) if asked else ""


def _short(message: Message) -> str:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    text = " ".join(" ".join([message.content or "", *calls]).split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
