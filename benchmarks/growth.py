"""CPU time of what must grow linearly, at 1, 10 and 100 times the amount: `make bench-growth`.

Listing runs, printing a long log and its end. Rows of many turns are in `data.py`, packs in `packing.py`.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = Path(__file__).with_name("results") / "growth.json"
TIMES = (1, 10, 100)
EVENTS_EACH = 200  # of a run's log, for each run that is listed


def seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return round(time.process_time() - begin, 3)


def runs_and_logs(num_runs: int, root: Path) -> dict[str, Any]:
    """Runs of 100 steps with 10 evaluations; the first one has a long log."""
    from tests.commands import performed
    from trainer.config.schema import RunConfig
    from trainer.runs import create_run

    values: dict[str, Any] = {"model": {"base": "builtin:tiny"}, "data": {"train": "rows.jsonl"}}
    values |= {"run": {"name": "r0", "root": str(root)}}
    first = create_run(RunConfig.model_validate(values))
    for step in range(1, 101):
        first.append_result({"step": step, "train_loss": 1.0} | ({"valid_loss": 2.0} if step % 10 == 0 else {}))
    first.set_status("succeeded", total_steps=100)
    for number in range(1, num_runs):
        shutil.copytree(first.path, root / f"r{number}")
    first.event("checkpoint at step 1")
    line = (first.path / "events.jsonl").read_bytes()
    (first.path / "events.jsonl").write_bytes(line * (num_runs * EVENTS_EACH))

    def command(*words: str) -> Callable[[], Any]:
        return lambda: performed(words, lambda: 0.0)

    return {
        "runs": num_runs,
        "list_cpu_seconds": seconds(command("runs", "--root", str(root))),
        "events": num_runs * EVENTS_EACH,
        "logs_cpu_seconds": seconds(command("logs", str(first.path))),
        "tail_cpu_seconds": seconds(command("logs", str(first.path), "--tail", "5")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="of the smallest amount")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    arguments = parser.parse_args()
    found = []
    for times in (0, *TIMES):  # the first loads what it needs
        with tempfile.TemporaryDirectory() as folder:
            measured = runs_and_logs(max(1, arguments.runs * times), Path(folder))
        if times:
            found.append(measured)
    text = json.dumps({"runs and logs": found, "python": platform.python_version()}, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
