"""Measure the precision of `trainer data doctor`: wrong answers are planted, and looked for among the first 20 rows.

builtin:tiny is trained on three files. In one of twenty rows the answer of another one is planted, and each row's
losses, signals and score are taken from the finished run: `make bench-doctor`.
"""

import argparse
import io
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RESULTS = Path(__file__).with_name("results") / "doctor.json"
PACKAGES = ("torch", "transformers", "peft", "numpy")
FIRST = 20
SHARE = 20  # one of so many rows gets a wrong answer
Row = dict[str, Any]

DESKS = {
    "wheels": ("a bent rim", "a broken spoke", "a loose hub", "a flat tyre", "a worn tube"),
    "brakes": ("a worn pad", "a frayed brake cable", "a squealing disc", "a soft lever", "a bent caliper"),
    "gears": ("a skipping chain", "a bent derailleur", "a worn cassette", "a stuck shifter", "a loose crank"),
    "lights": ("a dim lamp", "a dead dynamo", "a loose plug", "a broken reflector", "a flat battery"),
    "frames": ("a cracked fork", "a scratched tube set", "a loose headset", "a rusty dropout", "a dented frame"),
}
QUESTIONS = (
    "My bicycle has {}. Who repairs it?", "Which desk looks at {}?", "A customer brings {}. Where does it go?",
    "Where do I take {}?", "There is {} on the stand. Whose work is it?", "Send {} to the right desk.",
    "Who takes care of {}, please?", "I found {}. Who can help?", "Name the desk for {}.",
    "Whom do I ask about {}?", "We got {} this morning. Which desk?", "Is {} yours? If not, whose is it?",
    "Sort {} for me.", "My friend brought {}. Who fixes that?", "Tell me where {} belongs.", "Please route {}.",
)  # fmt: skip


def routed() -> list[Row]:
    """400 rows that name one of five desks: an answer that follows from the question by a rule."""
    system = {"role": "system", "content": "You route repairs. Answer with one desk."}
    rows = []
    for desk, faults in DESKS.items():
        for fault in faults:
            for question in QUESTIONS:
                asked = {"role": "user", "content": question.format(fault)}
                rows.append({"messages": [system, asked, {"role": "assistant", "content": f"The desk for {desk}."}]})
    random.Random(1).shuffle(rows)
    return rows


def glossary() -> list[Row]:
    """140 rows of free text: what a part is, in one sentence."""
    files = [ROOT / "data" / f"glossary_{part}.jsonl" for part in ("train", "validation")]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def support() -> list[Row]:
    """48 rows of several turns."""
    files = [ROOT / "data" / f"support_{part}.jsonl" for part in ("train", "validation")]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def planted(rows: Sequence[Row], seed: int) -> tuple[list[Row], set[int]]:
    """The rows with answers swapped among one in SHARE of them, and the lines of these, from 1."""
    chance = random.Random(seed)
    chosen: list[int] = []
    while not chosen or any(_answer(rows[a]) == _answer(rows[b]) for a, b in zip(chosen, _turned(chosen), strict=True)):
        chosen = chance.sample(range(len(rows)), max(2, len(rows) // SHARE))
    made = json.loads(json.dumps(list(rows)))
    for number, other in zip(chosen, _turned(chosen), strict=True):
        made[number]["messages"][-1] = rows[other]["messages"][-1]
    return made, {number + 1 for number in chosen}


def _answer(row: Row) -> str:
    return str(row["messages"][-1])


def _turned(numbers: Sequence[int]) -> list[int]:
    return [*numbers[1:], *numbers[:1]]


def trained(rows: Sequence[Row], folder: Path, epochs: int) -> Any:
    """A finished run of so many epochs on the rows."""
    from trainer.config import RunConfig
    from trainer.runs import create_run
    from trainer.training.fit import fit
    from trainer.training.prepare import prepare

    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": str(file), "allow_leak": True},
        "training": {"n_epochs": epochs, "batch_size": 8, "learning_rate": 5e-3, "seed": 1},
        "evaluation": {"enabled": False},
        "run": {"root": str(folder / "runs"), "name": "planted"},
    }
    prepared = prepare(RunConfig.model_validate(settings), lambda message: None)
    run = create_run(prepared.config)
    fit(prepared, run, Console(file=io.StringIO()))
    return run


SIGNALS: dict[str, Callable[[Any], float]] = {
    "loss before": lambda row: row.losses.before,
    "loss after": lambda row: row.losses.after,
    "least drop": lambda row: row.losses.after - row.losses.before,
    "after / before": lambda row: row.losses.after / row.losses.before,
    "after less elsewhere": lambda row: -(row.losses.gain or 0.0),
    "neighbors alone": lambda row: row.odd.strength if row.odd else 0.0,
    "losses alone": lambda row: row.hard + row.unexplained,
    "score": lambda row: row.score,
}


def precision(rows: Sequence[Any], lines: set[int], signal: Callable[[Any], float]) -> dict[str, float]:
    """Planted rows among the first FIRST, and the chance that a planted row stands before another one (AUC)."""
    in_order = sorted(rows, key=lambda row: (-signal(row), row.row.conversation.line))
    hits = [row.row.conversation.line in lines for row in in_order]
    planted_rows, others, before = sum(hits), len(hits) - sum(hits), 0
    seen = 0
    for hit in hits:
        seen += hit
        before += 0 if hit else seen
    return {"found": sum(hits[:FIRST]), "auc": round(before / (planted_rows * others), 3)}


def measured(rows: Sequence[Row], epochs: int, seed: int) -> dict[str, Any]:
    """Plant, train, examine, and compare the signals."""
    from trainer.workshop.doctor.examine import examine

    made, lines = planted(rows, seed)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        run = trained(made, Path(folder), epochs)
        trained_at = time.process_time()
        diagnosis = examine(run, None, [], lambda note: None)
        examined_at = time.process_time()
    return {
        "rows": len(made),
        "planted": len(lines),
        "epochs": epochs,
        "seed": seed,
        "first": FIRST,
        "median_loss": [round(diagnosis.medians.before, 3), round(diagnosis.medians.after, 3)],
        "training_cpu_seconds": round(trained_at - begun, 1),
        "doctor_cpu_seconds": round(examined_at - trained_at, 1),
        "signals": {name: precision(diagnosis.suspects, lines, signal) for name, signal in SIGNALS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1, help="other rows are planted with each seed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    parser.add_argument("--only", choices=["routed", "glossary", "support"], action="append")
    arguments = parser.parse_args()
    files = {"routed": routed, "glossary": glossary, "support": support}
    results: dict[str, Any] = {}
    for name in arguments.only or files:
        results[name] = [measured(files[name](), arguments.epochs, seed) for seed in range(arguments.seeds)]
        for found in results[name]:
            print(f"{name}: {found['planted']} of {found['rows']} rows planted, seed {found['seed']}", flush=True)
            for signal, hits in found["signals"].items():
                print(f"  {signal:22} {hits['found']:3} in the first {FIRST}, AUC {hits['auc']:.3f}", flush=True)
    results["versions"] = {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
    results["threads"] = os.environ.get("OMP_NUM_THREADS")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
