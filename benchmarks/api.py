"""Uploads to `trainer api`, and its jobs: memory while a file of 1 GB goes through, and seconds of both.

`make bench-api` writes `benchmarks/results/api.json`. Client and server share this machine's cores.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = Path(__file__).with_name("results") / "api.json"
MEGABYTE = 2**20
PIECE = (b"x" * 99 + b"\n") * 10_000


def large(server: Any, num_bytes: int) -> dict[str, float]:
    """One file, and the most memory above that of the idle server."""
    server.upload(MEGABYTE, PIECE)
    idle = server.memory("VmRSS")
    server.forget_peak()
    start = time.perf_counter()
    status, _ = server.upload(num_bytes, PIECE)
    seconds = time.perf_counter() - start
    assert status == 200
    above = server.memory("VmHWM") - idle
    return {
        "megabytes": num_bytes / MEGABYTE,
        "idle_megabytes": round(idle / MEGABYTE, 1),
        "most_megabytes_above_idle": round(above / MEGABYTE, 1),
        "seconds": round(seconds, 2),
        "megabytes_a_second": round(num_bytes / MEGABYTE / seconds),
    }


def small(server: Any, num_files: int, num_clients: int) -> dict[str, float]:
    """Files of 64 kB by clients at once: seconds of each, and of all."""

    def one(_: int) -> float:
        start = time.perf_counter()
        assert server.upload(64_000, PIECE)[0] == 200
        return time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as pool:
        seconds = list(pool.map(one, range(num_files)))
    return {
        "clients": num_clients,
        "files": num_files,
        "median_ms": round(1000 * median(seconds), 1),
        "files_a_second": round(num_files / (time.perf_counter() - start), 1),
    }


def jobs(root: Path, server: Any, num_jobs: int, num_measured: int) -> dict[str, float]:
    """Jobs made one after another beside so many that wait, none of which is validated meanwhile."""
    from openai import OpenAI

    from tests.api_process import KEY
    from trainer.api.admission import OFFICE
    from trainer.api.job import shared_file
    from trainer.runs import flock

    office = flock.take(shared_file(root, OFFICE))
    assert office is not None
    client = OpenAI(api_key=KEY, base_url=server.address, max_retries=0)
    row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    file = client.files.create(file=("rows.jsonl", row * 20), purpose="fine-tune").id

    def one(call: Any, **arguments: Any) -> float:
        start = time.perf_counter()
        call(**arguments)
        return time.perf_counter() - start

    made = client.fine_tuning.jobs
    seconds = [one(made.create, model="builtin:tiny", training_file=file) for _ in range(num_jobs + num_measured)]
    listed = [one(made.list, limit=20) for _ in range(num_measured)]
    id_ = made.list(limit=1).data[0].id
    found = [one(made.retrieve, fine_tuning_job_id=id_) for _ in range(num_measured)]
    os.close(office)
    return {
        "jobs": num_jobs,
        "create_median_ms": round(1000 * median(seconds[num_jobs:]), 1),
        "create_among_the_first_median_ms": round(1000 * median(seconds[:num_measured]), 1),
        "list_20_median_ms": round(1000 * median(listed), 1),
        "retrieve_median_ms": round(1000 * median(found), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the large file")
    parser.add_argument("--files", type=int, default=200, help="number of the small ones")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    parser.add_argument("--jobs", type=int, default=1000, help="number of jobs that wait")
    arguments = parser.parse_args()
    from tests.api_process import api_process

    with tempfile.TemporaryDirectory() as folder, api_process(Path(folder)) as server:
        results = {
            "large": large(server, arguments.megabytes * MEGABYTE),
            "small": [small(server, arguments.files, clients) for clients in (1, 50)],
            "jobs": jobs(Path(folder), server, arguments.jobs, 100),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
    text = json.dumps(results, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
