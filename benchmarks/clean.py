"""Measure the time and memory of cleaning a million rows: `make bench-clean`.

The rows are those of benchmarks/data.py with faults among them: one in fifty repeats another row, word for word or with
one word changed, one in a hundred begins with a label, one in two hundred holds a secret. The command runs in a process
of its own, which is what the peak of memory is of.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.data import WORDS, generated_rows  # noqa: E402  # found through the line above

RESULTS = Path(__file__).with_name("results") / "clean.json"
PACKAGES = ("numpy", "ftfy")
SHARES = {"repeated": 100, "nearly repeated": 100, "labelled": 100, "with a secret": 200}


def faulty_rows(num_rows: int) -> Iterator[dict[str, Any]]:
    """The generated rows, each fault in its share of them; what repeats does so 1,000 rows later or sooner."""
    chance, earlier = random.Random(1), []
    for number, made in enumerate(generated_rows(num_rows)):
        row = made
        answer = row["messages"][-1]
        if number % 1000 == 0:
            earlier = [json.dumps(row)]
        elif len(earlier) < 50:
            earlier.append(json.dumps(row))
        if number % SHARES["repeated"] == 99:
            row = json.loads(chance.choice(earlier))
        elif number % SHARES["nearly repeated"] == 98:
            row = json.loads(chance.choice(earlier))
            words = row["messages"][-1]["content"].split()
            words[chance.randrange(len(words))] = chance.choice(WORDS)
            row["messages"][-1]["content"] = " ".join(words)
        elif number % SHARES["labelled"] == 97:
            answer["content"] = f"**Answer:** {answer['content']}"
        elif number % SHARES["with a secret"] == 96:
            answer["content"] += f" The key is AKIA{chance.randrange(10**16):016d}."
        yield row


PROGRAM = """
import json, sys, time
from pathlib import Path
from trainer.model.device import peak_process_bytes
from trainer.workshop.clean.clean import FaultLimits, examine, write_copy
from trainer.workshop.clean.kinds import choose

source, output = map(Path, sys.argv[1:])
choice, marks = choose(), {}
def stage(name, size):
    marks.setdefault(name, time.process_time())
begun = time.process_time()
cleaning = examine(source, [], choice, FaultLimits(findings=3), stage)
examined = time.process_time()
write_copy(cleaning, output, [], choice=choice, force=False, stage=stage)
print(json.dumps({
    "reading_cpu_seconds": round(marks["comparing"] - begun, 1),
    "comparing_cpu_seconds": round(examined - marks["comparing"], 1),
    "writing_cpu_seconds": round(time.process_time() - examined, 1),
    "peak_memory_bytes": peak_process_bytes(),
    "rows_removed": cleaning.num_removed,
    "rows_edited": cleaning.num_edited,
    "rows_by_kind": {found.kind: len(found.lines) for found in cleaning.faults},
}))
"""


def cleaned(num_rows: int, folder: Path) -> dict[str, Any]:
    """Examine a file of so many rows, and write its copy."""
    source = folder / "rows.jsonl"
    with source.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in faulty_rows(num_rows))
    begun = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, str(source), str(folder / "clean.jsonl")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    wall_seconds = time.perf_counter() - begun
    found = json.loads(done.stdout)
    cpu_seconds = sum(found[f"{name}_cpu_seconds"] for name in ("reading", "comparing", "writing"))
    measured = {"rows": num_rows, "file_bytes": source.stat().st_size, "wall_seconds": round(wall_seconds, 1)}
    return measured | {"rows_per_cpu_second": round(num_rows / cpu_seconds)} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = cleaned(arguments.rows, Path(folder))
    results["versions"] = {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
    text = json.dumps(results, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
