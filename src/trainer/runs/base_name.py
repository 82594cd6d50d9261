"""The base in a run's config, for lists of runs: reading the whole tree of settings takes a hundred times longer."""

from itertools import takewhile
from typing import Any

import yaml


def base_of(text: str) -> str | None:
    """model.base of a config, of which only that section is parsed; None where there is none."""
    lines = iter(text.splitlines())
    head = next((line for line in lines if line.startswith("model:")), None)
    if head is None:
        return None
    section = takewhile(lambda line: not line or line[0] in " \t#", lines)
    try:
        values: Any = yaml.safe_load("\n".join([head, *section]))
    except (yaml.YAMLError, RecursionError):
        return None
    model = values.get("model") if isinstance(values, dict) else None
    base = model.get("base") if isinstance(model, dict) else None
    return base if isinstance(base, str) else None
