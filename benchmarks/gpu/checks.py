"""What keeps the measurements from being made here, each in a sentence."""

import argparse
import importlib.util
import subprocess
import sys

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")
MIN_BYTES = 60 * 10**9  # an 8B in bfloat16 with its activations, and the reference in float32
STARTUP_SECONDS = 35  # imports, and what of a CUDA context a child waits for

ASK = """
import torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(count, *(min(torch.cuda.mem_get_info(i) for i in range(count)) if count else (0, 0)))
"""


def problems(options: argparse.Namespace, seconds: float) -> list[str]:
    """For parts the first of which takes `seconds`.

    The GPU is asked in another process: one that has asked CUDA anything cannot fork children that use it.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        return [f"{', '.join(missing)}: not installed, expected the packages of the local extra; install them first"]
    needed, found = STARTUP_SECONDS + seconds, []
    if options.minutes * 60 < needed:
        found.append(
            f"--minutes: {options.minutes:g} is too short, expected at least {needed / 60:.1f} for imports and one part"
        )
    if options.device == "cpu":
        return found if options.tiny else [*found, "--device cpu: an 8B takes hours on a CPU, expected --tiny with it"]
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    count, free, _ = map(int, (told.stdout.split() or "000") if told.returncode == 0 else "000")
    if not count:
        return [*found, "no GPU is usable here, expected one; try the same on the CPU with --device cpu --tiny"]
    if options.gpus > count:
        found.append(f"--gpus: is {options.gpus}, and {count} are usable here")
    if free < MIN_BYTES and not options.tiny:
        found.append(
            f"the GPU has {free / 1e9:.0f} GB free, expected {MIN_BYTES / 1e9:.0f} GB for a model of 8B; use --tiny"
        )
    return found
