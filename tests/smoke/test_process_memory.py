"""What the plan says of a CPU's process is what `top` would have shown of it, comparison included."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UNITS = {"MiB": 2**20, "GiB": 2**30}
# Other processors hold more or less: their matrix libraries, and how the C library gives memory back.
LOWEST, HIGHEST = 0.5, 1.2
# ru_maxrss starts at the peak of the process that starts it: pytest has held gigabytes, so a small one is between.
LAUNCHER = """
import os, pathlib, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
pathlib.Path(sys.argv[1]).write_text(str(usage.ru_maxrss))
sys.exit(process.returncode)
"""
SETTINGS = ("training.n_epochs=1", "training.batch_size=6", "evaluation.max_rows=2", "evaluation.max_new_tokens=8")


def peak_and_plan(base: str, tmp_path: Path) -> tuple[int, float]:
    """The most memory that the whole command held, and what it said before."""
    for name, kind, count in (("train", "train", 18), ("validation", "validation", 4)):
        rows = (ROOT / "data" / f"glossary_{kind}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = tmp_path / "c.yaml"
    config.write_text(
        f"model: {{base: {base}}}\ndata: {{train: {tmp_path}/train.jsonl, validation: {tmp_path}/validation.jsonl}}\n"
        f"run: {{root: {tmp_path}/runs}}\n"
    )
    command = [Path(sys.executable).with_name("trainer"), "train", "--config", config, *SETTINGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launched = [sys.executable, "-c", LAUNCHER, str(tmp_path / "peak"), *command]
    done = subprocess.run(launched, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False)
    text = " ".join(done.stdout.decode().split())
    assert done.returncode == 0, text
    found = re.search(r"the process will take about ([\d,.]+) (MiB|GiB) \(libraries and comparison", text)
    assert found is not None, text
    return int((tmp_path / "peak").read_text()) * 1024, float(found[1].replace(",", "")) * UNITS[found[2]]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units there")
def test_the_process_takes_what_the_plan_says(tmp_path: Path) -> None:
    peak, planned = peak_and_plan("builtin:tiny", tmp_path)
    assert LOWEST * planned <= peak <= HIGHEST * planned


@pytest.mark.long
@pytest.mark.skipif("TRAINER_REAL_MODELS" not in os.environ, reason="TRAINER_REAL_MODELS is not set")
def test_so_it_does_with_a_real_model(tmp_path: Path) -> None:
    peak, planned = peak_and_plan(f"{os.environ.get('TRAINER_REAL_MODELS')}/smollm2", tmp_path)
    assert LOWEST * planned <= peak <= HIGHEST * planned
