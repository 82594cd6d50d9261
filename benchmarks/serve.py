"""Load on `trainer serve`: speed against plain generate, overload, and memory over many requests.

Run from the repository: make bench-serve. Everything is measured in one run on one machine; the clients share its
processors with the server. The result goes to benchmarks/results/serve.json.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "serve.json"
KEY = "key-of-the-benchmark"
PARALLEL = 16
MAX_TOKENS = 64
NUM_SPEED = 160  # requests; ten for each client
NUM_PLAIN = 60
NUM_SOAK = 10_000
SOAK_TOKENS = 4
WARM_SHARE = 0.1  # of the soak, after which memory is expected to be flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a finished run; without it a tiny one is trained")
    parser.add_argument("--soak", type=int, default=NUM_SOAK, help="requests for the memory measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or trained(Path(folder))
        questions = questions_of(run)
        before = load()
        plain = plain_generate(run, questions)
        with server(run) as served:
            result = {
                "machine": machine() | {"load_before": before},
                "plain": plain,
                "served": speed(served, questions),
                "overload": overload(served, questions),
                "soak": soak(served, questions, arguments.soak),
            }
    result["speedup"] = round(result["served"]["tokens_per_second"] / plain["tokens_per_second"], 2)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def trained(folder: Path) -> Path:
    """A run on builtin:tiny, trained for a minute, so that answers end by themselves."""
    words = ["--config", "configs/tiny.yaml", "training.n_epochs=6", f"run.root={folder}", "run.name=bench"]
    subprocess.run([sys.executable, "-m", "trainer", "train", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "bench"


def questions_of(run: Path) -> list[list[dict[str, str]]]:
    """The prompts of the run's training rows."""
    from trainer.runs import Run

    path = ROOT / Run(run).manifest().data[0].path
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [row[: next(at for at, message in enumerate(row) if message["role"] == "assistant")] for row in rows]


def plain_generate(run: Path, questions: list[list[dict[str, str]]]) -> dict[str, Any]:
    """The same model without a server: transformers' generate, one question after the other.

    With one thread and with all; the faster one counts.
    """
    import torch

    from trainer.inference.local import TunedModel
    from trainer.runs import Run

    tuned = TunedModel(Run(run))
    prompts = [torch.tensor([tuned.renderer.prompt_ids(question)]) for question in questions]
    settings = {"do_sample": False, "eos_token_id": sorted(tuned.renderer.end_markers), "pad_token_id": 0}

    def generate(prompt: torch.Tensor) -> int:
        output = tuned.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=MAX_TOKENS, **settings
        )
        return int(output.shape[1] - prompt.shape[1])

    def measure(num_threads: int) -> dict[str, Any]:
        torch.set_num_threads(num_threads)
        generate(prompts[0])
        started = time.perf_counter()
        num_tokens = sum(generate(prompts[number % len(prompts)]) for number in range(NUM_PLAIN))
        return rate(NUM_PLAIN, num_tokens, time.perf_counter() - started) | {"threads": num_threads}

    with torch.inference_mode():
        measured = [measure(num_threads) for num_threads in sorted({1, torch.get_num_threads()})]
    return max(measured, key=lambda one: float(one["tokens_per_second"])) | {"all": measured}


def rate(num_requests: int, num_tokens: int, seconds: float) -> dict[str, Any]:
    return {
        "requests": num_requests,
        "tokens": num_tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(num_tokens / seconds, 1),
    }


class Served:
    """A server in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", name: str, port: int) -> None:
        self.process, self.name, self.port = psutil.Process(process.pid), name, port
        self.local = threading.local()

    def ask(self, messages: list[dict[str, str]], max_tokens: int) -> tuple[int, dict[str, Any], float]:
        """Status, body and seconds of one request; each thread keeps its connection."""
        if not hasattr(self.local, "connection"):
            self.local.connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        body = {"model": self.name, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        started = time.perf_counter()
        self.local.connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = self.local.connection.getresponse()
        answer = json.loads(response.read())
        return response.status, answer, time.perf_counter() - started

    def resident_bytes(self) -> int:
        """Of the server and the process that renders its prompts."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(int(one.memory_info().rss) for one in family)


@contextmanager
def server(run: Path) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "serve", str(run), "--port", "0", "--max-requests", str(PARALLEL)],
        cwd=ROOT,
        env=os.environ | {"TRAINER_API_KEY": KEY},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if found := re.search(r"serving \S+ on http://127\.0\.0\.1:(\d+)/v1", line):
                yield Served(process, run.name, int(found[1]))
                break
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def in_parallel(num_clients: int, num_requests: int, work: Callable[[int], Any]) -> tuple[list[Any], float]:
    started = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as threads:
        results = list(threads.map(work, range(num_requests)))
    return results, time.perf_counter() - started


def speed(served: Served, questions: list[list[dict[str, str]]]) -> dict[str, Any]:
    """16 clients that ask without a pause."""

    def ask(number: int) -> tuple[int, float]:
        status, answer, seconds = served.ask(questions[number % len(questions)], MAX_TOKENS)
        assert status == 200, answer
        return int(answer["usage"]["completion_tokens"]), seconds

    in_parallel(PARALLEL, PARALLEL, ask)
    results, seconds = in_parallel(PARALLEL, NUM_SPEED, ask)
    waited = [one for _, one in results]
    return rate(NUM_SPEED, sum(tokens for tokens, _ in results), seconds) | {
        "parallel": PARALLEL,
        "median_seconds": round(statistics.median(waited), 3),
        "p99_seconds": round(statistics.quantiles(waited, n=100)[98], 3),
    }


def overload(served: Served, questions: list[list[dict[str, str]]]) -> dict[str, Any]:
    """Four times as many clients as the server answers at a time."""
    results, _ = in_parallel(
        4 * PARALLEL, 8 * PARALLEL, lambda number: served.ask(questions[number % len(questions)], MAX_TOKENS)
    )
    refused = [seconds for status, _, seconds in results if status == 429]
    assert {status for status, _, _ in results} == {200, 429}
    return {
        "parallel": 4 * PARALLEL,
        "answered": len(results) - len(refused),
        "refused_with_429": len(refused),
        "median_seconds_to_429": round(statistics.median(refused), 4),
        "p99_seconds_to_429": round(statistics.quantiles(refused, n=100)[98], 4),
    }


def soak(served: Served, questions: list[list[dict[str, str]]], num_requests: int) -> dict[str, Any]:
    """Short requests, memory all along."""
    step = num_requests // 20
    samples, num_failed, started = [], 0, time.perf_counter()
    for _ in range(20):
        results, _ = in_parallel(
            PARALLEL, step, lambda number: served.ask(questions[number % len(questions)], SOAK_TOKENS)[0]
        )
        num_failed += sum(status != 200 for status in results)
        samples.append(served.resident_bytes())
    seconds = time.perf_counter() - started
    warm = samples[max(int(20 * WARM_SHARE) - 1, 0)]
    return {
        "requests": 20 * step,
        "failed": num_failed,
        "requests_per_second": round(20 * step / seconds, 1),
        "resident_megabytes": [round(sample / 1e6, 1) for sample in samples],
        "growth_after_warm_up_percent": round(100 * (samples[-1] / warm - 1), 2),
    }


def load() -> float:
    return round(os.getloadavg()[0], 2)


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "transformers", "peft", "starlette", "uvicorn")}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "python": platform.python_version(),
        **packages,
    }


if __name__ == "__main__":
    main()
