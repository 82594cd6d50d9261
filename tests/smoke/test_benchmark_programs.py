"""The benchmarks run, on small amounts; what they measure is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_data_benchmark_writes_its_results(tmp_path: Path) -> None:
    out = tmp_path / "data.json"
    command = [
        sys.executable,
        "benchmarks/data.py",
        "--rows",
        "300",
        "--rendered",
        "5",
        "--turns",
        "2",
        "--out",
        str(out),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    results = json.loads(out.read_text(encoding="utf-8"))
    kept = json.loads((ROOT / "benchmarks" / "results" / "data.json").read_text(encoding="utf-8"))
    assert results.keys() == kept.keys() == {"check", "render", "turns_of_one_row", "versions"}
    assert (results["check"]["rows"], kept["check"]["rows"]) == (300, 1_000_000)


@pytest.mark.long
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_engine_benchmark_gates_times_and_writes(tmp_path: Path, quantization: str) -> None:
    command = [sys.executable, "benchmarks/engine.py", "--models", "tiny", "--rows", "4", "--repeats", "1"]
    command += ["--shapes", "short answers", "--arms", "ours", "trl-packed", "--quantizations", quantization]
    run = subprocess.run(
        [*command, "--results", str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True, timeout=500
    )
    assert "| short answers | TRL, bf16 packed |" in run.stdout
    (file,) = tmp_path.glob("*.json")
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["settings"]["quantization"] == quantization
    assert result["arms"].keys() == {"ours", "trl-packed"}
    for arm in result["arms"].values():
        assert arm["gradient_cosine"] > 0.999
        assert arm["supervised_tokens_per_wall_second"] > 0
        assert arm["peak_memory_bytes"] > 0
        assert arm["first_step_wall_seconds"] > 0


def test_the_growth_benchmark_writes_its_results(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    command = [sys.executable, "-m", "benchmarks.growth", "--runs", "1", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    results = json.loads(out.read_text(encoding="utf-8"))
    kept = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text(encoding="utf-8"))
    assert [row["runs"] for row in results["runs and logs"]] == [1, 10, 100]
    assert results.keys() == kept.keys()


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
