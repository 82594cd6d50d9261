"""From the outcomes of chunks to the rows of both files: what breaks a rule or repeats is dropped, with the reason."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.data.read.rows import read_conversations
from trainer.workshop.clean.clean import examine
from trainer.workshop.clean.kinds import choose
from trainer.workshop.generate.chunk_work import ChunkOutcome, Made
from trainer.workshop.generate.kind import Kind, spaced
from trainer.workshop.generate.variety import order_key

REPEATS = ("DUPLICATE", "NEAR_DUPLICATE")


@dataclass(frozen=True, slots=True)
class Sifted:
    """Rows in the order of the sources, and dropped examples."""

    rows: tuple[Made, ...]
    dropped: tuple[Made, ...]


def sift(outcomes: Sequence[ChunkOutcome], kind: Kind) -> Sifted:
    """Drop rows that the product's own check would refuse, that ask what an earlier one asks, or nearly repeat one."""
    made = [row for outcome in outcomes for row in outcome.rows]
    dropped = [example for outcome in outcomes for example in outcome.dropped]
    for sieve in (_illegal, _asked_before, _repeated):
        reasons = sieve(made, kind) if made else {}
        dropped += [replace(made[number], reason=reason) for number, reason in reasons.items()]
        made = [row for number, row in enumerate(made) if number not in reasons]
    return Sifted(tuple(made), tuple(dropped))


def first_rows(sifted: Sifted, count: int | None, order: Sequence[str]) -> Sifted:
    """The first `count` rows by the order in which chunks were asked; those beyond are dropped as not needed."""
    if count is None or len(sifted.rows) <= count:
        return sifted
    rank = {chunk: number for number, chunk in enumerate(order)}
    numbers = sorted(range(len(sifted.rows)), key=lambda number: (rank[sifted.rows[number].chunk.id], number))
    kept = set(numbers[:count])
    rows = tuple(row for number, row in enumerate(sifted.rows) if number in kept)
    reason = ("surplus", "more rows than were asked for")
    beyond = [replace(row, reason=reason) for number, row in enumerate(sifted.rows) if number not in kept]
    return Sifted(rows, (*sifted.dropped, *beyond))


def held_out(rows: Sequence[Made], share: float, seed: int) -> frozenset[str]:
    """Chunks whose rows are held out: drawn until `share` of the rows is; one chunk at least stays to train on."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.chunk.id] = counts.get(row.chunk.id, 0) + 1
    drawn = sorted(counts, key=lambda chunk: order_key("validation", seed, chunk))
    found: set[str] = set()
    num_rows = 0
    for chunk in drawn[: max(0, len(drawn) - 1)]:
        if num_rows >= share * len(rows):
            break
        found.add(chunk)
        num_rows += counts[chunk]
    return frozenset(found)


Reasons = dict[int, tuple[str, str]]


def _illegal(made: Sequence[Made], kind: Kind) -> Reasons:
    with tempfile.TemporaryDirectory() as folder:
        report = read_conversations(_written(Path(folder), made), method=kind.method)
    found: Reasons = {}
    for finding in report.findings:
        if finding.severity == "error" and finding.line is not None:
            found.setdefault(finding.line - 1, ("illegal", f"{finding.code}: {finding.where} {finding.found}"))
    return found


def _asked_before(made: Sequence[Made], kind: Kind) -> Reasons:
    seen: set[str] = set()
    found: Reasons = {}
    for number, row in enumerate(made):
        asked = re.sub(r"\W+", " ", spaced(kind.prompt_of(row.item, row.chunk))).strip().casefold()
        if asked in seen:
            found[number] = ("repeated", "an earlier row asks the same")
        seen.add(asked)
    return found


def _repeated(made: Sequence[Made], kind: Kind) -> Reasons:
    with tempfile.TemporaryDirectory() as folder:
        cleaning = examine(_written(Path(folder), made), [], choose(only=REPEATS))
    return {line - 1: ("repeated", found) for line, (_, found) in sorted(cleaning.removed.items())}


def _written(folder: Path, made: Sequence[Made]) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(line_of(row) for row in made))
    return path


def line_of(row: Made) -> bytes:
    """The row's line in the file."""
    return json.dumps(row.row, ensure_ascii=False).encode("utf-8") + b"\n"
