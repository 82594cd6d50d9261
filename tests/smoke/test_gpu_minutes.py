"""The GPU's measurements, rehearsed on a CPU with tiny shapes: the same code, and what it does when things go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEAD = "import os, sys, time; sys.path[:0] = ['benchmarks']; from pathlib import Path; from gpu.run import *\n"


def call(folder: Path, *options: str, timeout: float = 580) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu_minutes.py", "--out", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def results(folder: Path, stem: str = "gpu-rehearsal") -> dict[str, dict[str, Any]]:
    """Each measurement's newest line."""
    lines = (folder / f"{stem}.jsonl").read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


def assert_all_hold(folder: Path, skipped: dict[str, str]) -> dict[str, dict[str, Any]]:
    found = results(folder)
    log = (folder / "gpu-rehearsal.log").read_text()
    assert {name: line["why"] for name, line in found.items() if line["state"] != "measured"} == skipped, log
    for name, line in found.items():
        exact = [value for key, value in line["values"].items() if key.endswith(("exact", "bit_identical"))]
        assert all(exact), name
        assert line["values"].get("gradient_cosine", 1) > 0.999, name
    return found


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_part_runs_on_a_cpu_with_tiny_shapes(tmp_path: Path) -> None:
    """About two minutes of a processor; a machine that does much else takes its time."""
    run = call(tmp_path, "--device", "cpu", "--tiny", "--minutes", "38", timeout=2380)
    assert run.returncode == 0, run.stdout + run.stderr
    found = assert_all_hold(tmp_path, {"Unsloth, unshared": "unsloth is not installed"})
    assert found["recompilations and synchronizations"]["values"]["recompilations"] == 0
    assert found["layers compiled: True"]["values"]["graphs"] > 0
    page = (tmp_path / "gpu-rehearsal.md").read_text()
    for what in ("none", "nf4"):
        assert f"| tiny {what}, unshared | this trainer |" in page
        assert f"- tiny {what}, unshared: **" in page


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_several_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    run = call(tmp_path, "--device", "cpu", "--tiny", "--gpus", "4", "--minutes", "18", timeout=1180)
    assert run.returncode == 0, run.stdout + run.stderr
    found = assert_all_hold(tmp_path, {})
    assert len(found) == 9
    assert found["4 processes, speed, sharded base"]["values"]["layers_gathered_bytes"] > 0


def test_a_cut_and_a_crash_leave_what_was_measured_and_name_the_rest(tmp_path: Path) -> None:
    code = HEAD + (
        "def fine(setting, report): report(value=1.0)\n"
        "def crash(setting, report): report(before=2); os._exit(9)\n"
        "def error(setting, report): raise ValueError('no\\nsecond line')\n"
        "def skip(setting, report): raise Skipped('is not installed')\n"
        "def slow(setting, report): report(before=3); time.sleep(60)\n"
        "all = [('b', 'crash', crash), ('b', 'error', error), ('b', 'skip', skip), ('b', 'fine', fine)]\n"
        "all += [('c', 'slow', slow), ('c', 'late', fine)]\n"
        "parts, end = [Measurement(*one) for one in all], time.monotonic() + 60\n"
        "sys.exit(run(parts, Setting('cpu', True, ''), Results(Path(sys.argv[1]), 'x'), end, {'b': 50, 'c': 2}))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=100)  # False is 0
    found = {name: (line["state"], line["why"], line["values"]) for name, line in results(tmp_path, "x").items()}
    assert found == {
        "crash": ("failed", "its process ended with 9", {"before": 2}),
        "error": ("failed", "ValueError: no", {}),
        "skip": ("not measured", "is not installed", {}),
        "fine": ("measured", "", {"value": 1.0}),
        "slow": ("failed", "cut off after 2 s", {"before": 3}),
        "late": ("not measured", "the time was up", {}),
    }
    assert "in slow" in (tmp_path / "x.log").read_text()  # where it was when it was cut off


def test_a_measurement_that_breaks_a_promise_is_reported_and_fails(tmp_path: Path) -> None:
    code = HEAD + (
        "def values(setting, report, **found): report(speed=1.0); report(**found)\n"
        "from functools import partial\n"
        "found = {'inexact': {'flex_exact': False}, 'other bits': {'bit_identical': False},"
        " 'graphs': {'recompilations': 2}, 'waits': {'synchronizations': 1},"
        " 'fine': {'exact': True, 'recompilations': 0, 'synchronizations': 'none'}}\n"
        "def measure(names):\n"
        "    parts = [Measurement('b', name, partial(values, **found[name])) for name in names]\n"
        "    results = Results(Path(sys.argv[1]), 'x')\n"
        "    return run(parts, Setting('cpu', True, ''), results, time.monotonic() + 60, {'b': 50})\n"
        "print(measure(['fine']), measure(found))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=100, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1] == "True False"
    assert {name: (line["state"], line["why"]) for name, line in results(tmp_path, "x").items()} == {
        "inexact": ("failed", "flex_exact is False"),
        "other bits": ("failed", "bit_identical is False"),
        "graphs": ("failed", "recompilations is 2"),
        "waits": ("failed", "synchronizations is 1"),
        "fine": ("measured", ""),
    }
    assert results(tmp_path, "x")["inexact"]["values"] == {"speed": 1.0, "flex_exact": False}


@pytest.mark.parametrize("smi", [None, "[N/A]", ""])
def test_a_capability_that_nvidia_smi_does_not_say_is_left_to_torch(tmp_path: Path, smi: str | None) -> None:
    if smi is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{smi}'\n")
        program.chmod(0o755)
    code = (
        "import sys; sys.path[:0] = ['benchmarks']\n"
        "import torch, gpu_minutes\n"
        "asked = torch.cuda.get_device_capability\n"
        "with gpu_minutes._capability_without_a_context('cuda'): print(torch.cuda.get_device_capability is asked)\n"
    )
    environment = os.environ | {"PATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=200, capture_output=True, text=True
    )
    assert run.stdout == "True\n", run.stderr


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    code = HEAD + (
        "def slow(setting, report): report(child=os.getpid()); time.sleep(60)\n"
        "run([Measurement('b', 'slow', slow)], Setting('cpu', True, ''), Results(Path(sys.argv[1]), 'x'),"
        " time.monotonic() + 60, {'b': 60})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "x.jsonl").exists() or not (tmp_path / "x.jsonl").read_text():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    child = results(tmp_path, "x")["slow"]["values"]["child"]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_results_outlive_a_line_that_was_cut_and_a_later_run_without_time(tmp_path: Path) -> None:
    line = {"part": "b", "name": "one", "state": "measured", "values": {"value": 1}}
    (tmp_path / "x.jsonl").write_text(json.dumps(line) + '\n{"part": "b", "na')
    code = HEAD + (
        "results = Results(Path(sys.argv[1]), 'x')\n"
        "results.add(part='b', name='two', state='under way', values={})\n"
        "for name in ('one', 'two'): results.add(part='b', name=name, state=NOT_MEASURED, values={})\n"
        "print([line['state'] for line in results.newest().values()])\n"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    assert told.stdout.decode() == "['measured', 'not measured']\n"


def test_a_profile_counts_each_kernel_once_and_finds_when_the_device_waits() -> None:
    code = HEAD + (
        "from gpu.kernels import gaps, shares\n"
        "spans = [('gemm', 0.0, 1.0), ('copy_', 0.5, 1.5), ('gemm', 3.5, 4.0)]\n"
        "print(gaps(spans, 4.0), shares([(name, end - begin) for name, begin, end in spans], 4.0))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    kinds = "{'shares': {'matrix products': 0.375, 'copies': 0.25}, 'largest': {'gemm': 0.375, 'copy_': 0.25}}\n"
    assert told.stdout == "{'share_idle': 0.5, 'gaps': 1, 'longest_gap_seconds': 2.0} " + kinds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda"), "error: no GPU is usable here, expected one; try the same on the CPU"),
        (("--device", "cpu"), "error: --device cpu: an 8B takes hours on a CPU, expected --tiny with it"),
        (
            ("--device", "cpu", "--tiny", "--minutes", "0.1"),
            "error: --minutes: 0.1 is too short, expected at least 0.8",
        ),
        (("--device", "cpu", "--tiny", "--only", "a,z"), "'z' is no part, expected some of a,b,c,d,e,f,g,h,i"),
        (("--device", "cpu", "--tiny", "--minutes", "0"), "above 0"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    if "cuda" in options:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    old = '{"part": "a", "name": "ceilings", "state": "measured", "values": {}}\n'
    (tmp_path / "gpu-rehearsal.jsonl").write_text(old)
    run = call(tmp_path, *options)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert (tmp_path / "gpu-rehearsal.jsonl").read_text() == old


def test_a_missing_package_and_a_folder_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    """Python without any package: -S leaves them out."""
    script = str(ROOT / "benchmarks/gpu_minutes.py")
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-S", script, "--device", "cpu", "--tiny", "--out", str(tmp_path / "file")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    first, second = run.stderr.splitlines()
    assert first.startswith("error: torch, transformers, peft, trl, datasets, accelerate, bitsandbytes: not installed")
    assert second.startswith(f"error: --out: {str(tmp_path / 'file')!r} cannot be written")
