"""The benchmarks run, on small amounts; what they measure is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_data_benchmark_writes_its_results(tmp_path: Path) -> None:
    out = tmp_path / "data.json"
    command = [sys.executable, "benchmarks/data.py", "--rows", "300", "--rendered", "5", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    results = json.loads(out.read_text(encoding="utf-8"))
    kept = json.loads((ROOT / "benchmarks" / "results" / "data.json").read_text(encoding="utf-8"))
    assert results.keys() == kept.keys() == {"check", "render", "versions"}
    assert (results["check"]["rows"], kept["check"]["rows"]) == (300, 1_000_000)


def test_the_first_step_benchmark_writes_its_results(tmp_path: Path) -> None:
    out = tmp_path / "first-step.json"
    command = [sys.executable, "benchmarks/first_step.py", "--rows", "20", "--steps", "--arms", "ours"]
    subprocess.run(
        [*command, "--layers", "1", "--out", str(out)], cwd=ROOT, check=True, capture_output=True, timeout=300
    )
    results = json.loads(out.read_text(encoding="utf-8"))
    kept = json.loads((ROOT / "benchmarks" / "results" / "first-step.json").read_text(encoding="utf-8"))
    assert results.keys() == kept.keys() == {"machine", "settings", "rows"}
    assert results["rows"]["20"]["arms"].keys() == {"ours, cold", "ours, warm"} < kept["rows"]["2000"]["arms"].keys()
