"""Unsloth's step, where it is installed: in a process of its own, since it replaces parts of what is imported after it.

Written after its documentation; it is not installed where this was written.
"""

import importlib.util

from gpu.run import Report, Setting, Skipped


def unsloth_steps(setting: Setting, report: Report, model: str) -> None:
    """Reference, gate, first step and timed steps."""
    if importlib.util.find_spec("unsloth") is None:
        raise Skipped("unsloth is not installed")
    import unsloth  # noqa: F401, I001  # it patches transformers, so it comes first

    from arms import unsloth_model
    from gpu import speed

    shape = speed.SHAPES[0]
    speed.refer(setting, report, model, "none", shape)
    speed.TRL["Unsloth, packed"] = ("", {"packing": True})
    speed._trl_model = lambda job, attention: unsloth_model(job)
    speed.trl(setting, report, model, "none", shape, "Unsloth, packed")
