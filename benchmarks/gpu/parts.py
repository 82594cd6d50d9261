"""The measurements of `gpu_minutes.py`, in the order of their worth. Each runs in a process of its own."""

import shutil
from functools import partial
from importlib.util import find_spec

from ceiling import copy_rate, machine, product_rate
from gpu.exactness import exactness
from gpu.near import compiled, profile, waits
from gpu.ranks import ranks_measurements
from gpu.run import Measurement, Report, Setting
from gpu.speed import SHAPES, speed
from gpu.unsloth_arm import unsloth_steps
from shapes import MODELS


def measurements(tiny: bool, gpus: int) -> list[Measurement]:
    if gpus > 1:
        return [Measurement("a", "ceilings", ceilings), *ranks_measurements(gpus)]
    large, small = ("tiny", "tiny") if tiny else ("8B", "1B")
    return [
        Measurement("a", "ceilings", ceilings),
        *exactness(),
        *speed("c", large, "none", SHAPES),
        *speed("d", large, "nf4", SHAPES),
        *speed("e", small, "none", SHAPES[:1]),
        Measurement("f", "profile of a step, unshared", partial(profile, model=large)),
        Measurement("g", "recompilations and synchronizations", partial(waits, model=small)),
        *(Measurement("h", f"layers compiled: {on}", partial(compiled, model=large, on=on)) for on in (False, True)),
        Measurement(
            "i", "Unsloth, unshared", partial(unsloth_steps, model=large), fresh=find_spec("unsloth") is not None
        ),
    ]


def ceilings(setting: Setting, report: Report) -> None:
    """What the device does at best: products of an 8B's shapes, and copies."""
    report(**machine(setting.device))
    # Without either of them FlexAttention's kernels cannot be compiled, and a dense mask takes its place.
    report(triton="installed" if find_spec("triton") else "missing", c_compiler=shutil.which("cc") or "missing")
    model, tokens = (MODELS["tiny"], 64) if setting.tiny else (MODELS["8B"], 8192)
    shapes = dict.fromkeys([*model.linear(), (model.hidden, model.vocab)])
    rates = {f"{tokens}x{a}x{b}": product_rate(setting.device, tokens, a, b) for a, b in shapes}
    report(gemm_flop_per_second=max(rates.values()), gemm_flop_per_second_by_shape=rates)
    report(copy_bytes_per_second=copy_rate(setting.device, 2**22 if setting.tiny else 2**31))
