"""Chat through `trainer api` against `trainer serve`, side by side: the same base, questions and clients, in turns.

Run from the repository: make bench-chat. The clients share the machine's processors with both servers. The result goes
to benchmarks/results/chat.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serve import KEY, NUM_SPEED, PARALLEL, ROOT, Served, load, machine, questions_of, server, speed, trained

RESULT = ROOT / "benchmarks" / "results" / "chat.json"
BASE = "builtin:tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a finished run on builtin:tiny; without it one is trained")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or trained(Path(folder))
        questions, measured = questions_of(run), {"serve": list[Any](), "api": list[Any]()}
        before = load()
        with server(run) as served, api(Path(folder) / "runs") as through:
            served.name = through.name = BASE
            for _ in range(arguments.rounds):
                measured["serve"].append(speed(served, questions))
                measured["api"].append(speed(through, questions))
    medians = {name: statistics.median(one["tokens_per_second"] for one in found) for name, found in measured.items()}
    result = {
        "machine": machine() | {"load_before": before},
        "parallel": PARALLEL,
        "requests": NUM_SPEED,
        "median_tokens_per_second": medians,
        "api_share_of_serve": round(medians["api"] / medians["serve"], 3),
        "rounds": measured,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


@contextmanager
def api(root: Path) -> Iterator[Served]:
    """`trainer api` with its process of the base."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "api", "--port", "0", "--root", str(root)],
        cwd=ROOT,
        env=os.environ | {"TRAINER_API_KEY": KEY},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Served(process, BASE, int(process.stdout.readline().rpartition(":")[2].partition("/")[0]))
    finally:
        process.terminate()
        process.wait(timeout=60)


if __name__ == "__main__":
    main()
