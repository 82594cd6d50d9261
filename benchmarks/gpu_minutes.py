"""Prove and measure on a GPU, within minutes, what matters about training there: `make bench-gpu`, or `--help`.

The measurements stand in the order of their worth. Each result is appended to DIR/gpu-minutes.jsonl and flushed at
once, so a run that is cut off keeps what it had. One process imports everything and forks a child for each measurement:
none waits for imports, and a crash takes only its own measurement along. What the time does not reach is listed as not
measured. `--only c,d` repeats parts; the table takes each measurement's newest result.
The exit code is 1 where a measurement crashes or is cut off, a result is not exact, or a step compiles anew or waits
for the device.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gpu.checks import problems  # noqa: E402  # the line above says where it is
from gpu.run import Results, Setting, run  # noqa: E402  # likewise

LOADED_BEFORE_THE_FORK = (
    "bitsandbytes",
    "gpu.parts",
    "torch._inductor.compile_fx",
    "trl.trainer.sft_trainer",
    "tests.tiny_runs",
    "trainer.backends.local.execute",
    "trainer.training.loop",
)
# Seconds, by part; with the imports at most 480. Part r is run alone.
LIMITS = {"a": 15, "b": 75, "c": 145, "d": 85, "e": 40, "f": 25, "g": 15, "h": 30, "i": 15, "r": 300}
TITLES = {
    "a": "ceilings", "b": "exactness", "c": "8B, bfloat16", "d": "8B, NF4", "e": "1B, bfloat16",
    "f": "profile of a step", "g": "recompilations and synchronizations", "h": "torch.compile of the layers",
    "i": "Unsloth", "r": "several processes",
}  # fmt: skip


def import_everything(device: str) -> str:
    """All that the children need, without a CUDA context: a process that has one cannot fork children that use it.

    Returns how they are to be started.
    """
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a pool of processes starts more slowly than few kernels compile
    with _capability_without_a_context(device):
        for module in LOADED_BEFORE_THE_FORK:
            importlib.import_module(module)
    if device == "cuda" and not _forks_can_use_the_gpu():
        print("an import used the GPU: each measurement imports by itself, and fewer will fit", flush=True)
        return "spawn"
    return "fork"


@contextmanager
def _capability_without_a_context(device: str) -> Iterator[None]:
    """Importing bitsandbytes, as PEFT does, asks torch for the GPU's capability, which makes a context."""
    import torch

    asked = torch.cuda.get_device_capability
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
        with suppress(FileNotFoundError, ValueError):  # no such program, or it says [N/A]: torch is asked, as ever
            text = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
            major, minor = map(int, text.split("."))
            torch.cuda.get_device_capability = lambda device=None: (major, minor)
    try:
        yield
    finally:
        torch.cuda.get_device_capability = asked


def _forks_can_use_the_gpu() -> bool:
    import torch

    child = os.fork()
    if child == 0:
        try:
            torch.zeros(1, device="cuda")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="for all of it, imports included")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results, added to")
    parser.add_argument("--only", default=None, metavar="PARTS", help="some of a to i, such as c,d")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a rehearsal, in files called gpu-rehearsal")
    parser.add_argument("--gpus", type=int, default=1, help="more than 1: measure that many processes together instead")
    options = parser.parse_args(arguments)
    parts = ["a", "r"] if options.gpus > 1 else [part for part in LIMITS if part != "r"]
    options.only = [part.strip() for part in options.only.split(",")] if options.only else parts
    if unknown := sorted(set(options.only) - set(parts)):
        parser.error(f"--only: {', '.join(map(repr, unknown))} is no part, expected some of {','.join(parts)}")
    if not options.minutes > 0 or options.gpus < 1:
        parser.error("--minutes and --gpus: expected numbers above 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    begin, options = time.monotonic(), _options(arguments)
    found = problems(options, LIMITS[options.only[0]])
    try:
        results = Results(options.out, "gpu-rehearsal" if options.tiny else "gpu-minutes")
    except OSError as error:
        found.append(f"--out: {str(options.out)!r} cannot be written ({error.strerror}), expected a folder")
    if found:
        for problem in found:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        holds = _measure(options, results, begin)
    except KeyboardInterrupt:
        print("interrupted; results so far are kept", file=sys.stderr)
        return 130
    finally:
        text = _write_table(results)
    print(text, f"\n{time.monotonic() - begin:.0f} s in all; written to {results.path}", sep="\n")
    return 0 if holds else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(options: argparse.Namespace, results: Results, begin: float) -> bool:
    start = import_everything(options.device)
    import gpu.parts

    print(f"imports: {time.monotonic() - begin:.1f} s", flush=True)
    # What part a measured in an earlier call, for `--only`.
    rate = results.newest().get(("a", "ceilings"), {}).get("values", {}).get("gemm_flop_per_second")
    wanted = [one for one in gpu.parts.measurements(options.tiny, options.gpus) if one.part in options.only]
    with tempfile.TemporaryDirectory(prefix="gpu-minutes-", ignore_cleanup_errors=True) as folder:
        setting = Setting(options.device, options.tiny, folder, start, rate)
        end = begin + options.minutes * 60
        # A CPU only rehearses, and each part may take what there is.
        limits = LIMITS if options.device == "cuda" else dict.fromkeys(LIMITS, options.minutes * 60)
        return run(wanted, setting, results, end, limits)


def _write_table(results: Results) -> str:
    from gpu.table import table

    text = table(results.newest(), TITLES)
    results.path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.exit(main())
