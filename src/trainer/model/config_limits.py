"""Limits on a base's config.json, checked before anything is built of it: it comes from strangers."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import ConfigError, quoted

LIMITS = (
    (re.compile(r"layers?$|blocks?$|depth$"), 1_024),  # models are built layer by layer
    (re.compile(r"experts?$|heads?$"), 16_384),
    (re.compile(r"(positions?|position_embeddings|seq_len|seq_length|context_length)$"), 100_000_000),
    (re.compile(r"(hidden|intermediate|vocab|embedding)_size$|n_embd$|d_model$|ffn_dim$"), 100_000_000),
)
SWITCHES = ("use_kernels", "kernel_config", "fusion_config")  # each replaces layers by code of another place
CHOICES = re.compile(r"^_?(attn|attention|experts)_implementation(_internal)?$")
EXPERTS = ("eager", "batched_mm", "grouped_mm")  # those without kernels of a hub


def refuse_config(config: Mapping[str, Any], name: str) -> None:
    """Raises: ConfigError, for numbers that no model has, and for keys that name code outside of transformers."""
    if problems := [f"model.base: the config.json of {name!r}: {problem}" for problem in _problems(config)]:
        raise ConfigError(*problems)


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in _items(config):
        last = key.rpartition(".")[2]
        if isinstance(value, int | float) and not isinstance(value, bool):
            limit = next((limit for pattern, limit in LIMITS if pattern.search(last)), None)
            if limit is not None and not value <= limit:
                yield f"{key} is {value!r}, expected at most {limit:,}; take the config.json of the model's authors"
        elif (last in SWITCHES and value) or (CHOICES.match(last) and _names_code(last, value)):
            yield (
                f"{key} is {quoted(value)}, which names code that is run with the model, expected none; this trainer "
                "chooses its own: remove the key, if you trust the rest"
            )


def _items(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value, those of inner objects with a dotted path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{path}{key}", inner
            yield from _items(inner, f"{path}{key}.")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if isinstance(inner, Mapping | list):
                yield from _items(inner, f"{path}{number}.")


def _names_code(key: str, value: Any) -> bool:
    """True where it is more than one of transformers' own implementations, which ours replaces."""
    parts = value.values() if isinstance(value, Mapping) else [value]
    if "experts" in key:
        return any(part not in (None, *EXPERTS) for part in parts)
    return any(part is not None and not re.fullmatch(r"\w+", str(part)) for part in parts)
