"""Files of a generated set: rows, held-out rows, and where each row is from; all of them whole, or none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.files.new_files import new_files
from trainer.workshop.generate.chunk_work import ChunkOutcome, Made
from trainer.workshop.generate.rows import Sifted, held_out, line_of


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Names of a set. `side` is the folder with the answers."""

    rows: Path
    validation: Path
    provenance: Path
    side: Path

    @classmethod
    def of(cls, output: Path, aside: Path | None = None) -> "OutputFiles":
        """Names beside FILE.jsonl; in `aside` what is no row, whose answers serve all outputs that it is given to."""
        stem = output.name.removesuffix(".jsonl")
        return cls(
            output,
            output.with_name(f"{stem}.validation.jsonl"),
            (aside or output.parent) / f"{stem}.provenance.jsonl",
            aside / "answers" if aside else output.with_name(f"{stem}.generate"),
        )

    def files(self, with_validation: bool) -> list[Path]:
        return [self.rows, *([self.validation] if with_validation else []), self.provenance]


@dataclass(frozen=True, slots=True)
class Written:
    """Counts of what was written."""

    rows: int
    validation_rows: int


def write_files(
    files: OutputFiles, sifted: Sifted, failed: Sequence[ChunkOutcome], share: float, seed: int, about: dict[str, Any],
    sources: Sequence[Path], force: bool,
) -> Written:  # fmt: skip
    """Write the rows, split by chunk, and a line of provenance for each row, dropped example and failed chunk.

    Raises: DataError.
    """
    apart = held_out(sifted.rows, share, seed) if share else frozenset()
    train = [row for row in sifted.rows if row.chunk.id not in apart]
    validation = [row for row in sifted.rows if row.chunk.id in apart]
    paths = files.files(bool(validation))
    with new_files(paths, sources, force=force) as opened:
        provenance, shares = opened[-1], [(files.rows, train), (files.validation, validation)]
        for file, (path, rows) in zip(opened[:-1], shares, strict=False):
            for number, row in enumerate(rows, 1):
                file.write(line_of(row))
                _write(provenance, {"file": path.name, "line": number, **origin(row, about)})
        for example in sifted.dropped:
            _write(provenance, {"file": None, "line": None, **origin(example, about)})
        for outcome in failed:
            where = {"source": outcome.chunk.source, "place": outcome.chunk.place, "chunk": outcome.chunk.id}
            _write(provenance, {"file": None, "line": None, **where, "failed": outcome.failure})
    if force and not validation:
        files.validation.unlink(missing_ok=True)  # of an earlier set: it would pass for this one's
    return Written(len(train), len(validation))


def origin(row: Made, about: dict[str, Any]) -> dict[str, Any]:
    """Origin of a row; of a dropped example also what it was, and the reason."""
    slot = row.slot
    found: dict[str, Any] = {
        "source": row.chunk.source,
        "place": row.chunk.place,
        "chunk": row.chunk.id,
        "quote": row.item.get("quote"),
        "persona": slot and slot.persona,
        "form": slot and slot.form,
        "difficulty": slot and slot.level,
        **about,
        "requests": list(row.requests),
        "verdict": row.verdict,
    }
    if row.reason is not None:
        code, sentence = row.reason
        found |= {"dropped": code, "reason": sentence, "example": row.item}
    return found


def _write(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
