"""Check that weights are those of the model that its configuration describes: names and shapes, none is read.

transformers itself maps the names of files to those of its models, of which some are renamed, split or stacked. So it
loads the model here as it does for training, from tensors without contents.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, quoted
from trainer.model.quantization import DEQUANTIZED, as_unquantized, loading_arguments, own_settings
from trainer.model.weight_files import TensorInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 3  # names of each kind
WRAPPERS = {
    "_orig_mod.": "a model that torch.compile had wrapped; save it again from model._orig_mod",
    "base_model.model.": "a PEFT model with its adapter; save it again from model.merge_and_unload()",
    "_fsdp_wrapped_module.": "a model that FSDP had wrapped; save it again from the whole model",
    "_checkpoint_wrapped_module.": "a model with checkpointed layers; save it again without their wrappers",
    "module.": "a model that DistributedDataParallel had wrapped; save it again from model.module",
}
AGAIN = "take config.json and weights from the same model, or download it again"


@dataclass(frozen=True, slots=True)
class Fit:
    """Differences of weights and model. `aside` are tensors of parts that the language model does not have."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    aside: tuple[str, ...] = ()

    def problems(self, name: str, num_expected: int) -> list[str]:
        """Sentences on weights that are not those of the model `name`; empty if they are."""
        start = f"model.base: {name!r}: "
        if self.missing and (wrapped := _wrapper([*self.unexpected, *self.aside])):
            fragment, what = wrapped
            return [f"{start}the names of its weights hold {fragment!r}: they were saved from {what}"]
        problems = []
        if self.missing:
            problems.append(
                f"{start}{len(self.missing):,} of the model's {num_expected:,} tensors are not among its weights, "
                f"such as {_some(self.missing)}; {AGAIN}"
            )
        if self.unexpected:
            problems.append(
                f"{start}{len(self.unexpected):,} tensors among its weights have no place in the model that its "
                f"config.json describes, such as {_some(self.unexpected)}; {AGAIN}"
            )
        if self.mismatched:
            key, found, expected = self.mismatched[0]
            others = f", and {len(self.mismatched) - 1:,} more differ" if len(self.mismatched) > 1 else ""
            problems.append(
                f"{start}the weights hold {key!r} with the shape {found}, expected {expected} by its config.json"
                f"{others}; {AGAIN}"
            )
        return problems

    def note(self, name: str) -> str | None:
        """A note on tensors that are not loaded although nothing is wrong, for people."""
        if not self.aside:
            return None
        return (
            f"{len(self.aside):,} tensors of {name!r} are left aside, such as {_some(self.aside)}: they are of a part "
            "that its language model does not have"
        )


def fit_of(model: "PreTrainedModel", info: Mapping[str, Any]) -> Fit:
    """The differences that a load of transformers has reported as its loading info."""
    unexpected = sorted(map(str, info["unexpected_keys"]))
    parts = {name for name, _ in model.named_modules()}
    aside = tuple(key for key in unexpected if _is_of_another_part(key, model.base_model_prefix, parts))
    return Fit(
        missing=tuple(sorted(map(str, info["missing_keys"]))),
        unexpected=tuple(key for key in unexpected if key not in aside),
        mismatched=tuple(sorted((str(key), tuple(a), tuple(b)) for key, a, b in info["mismatched_keys"])),
        aside=aside,
    )


def hold_against(skeleton: "PreTrainedModel", tensors: Mapping[str, TensorInfo], name: str) -> Fit:
    """The report that a load of `tensors` into the model of `skeleton` would make.

    Raises: ConfigError, when they cannot be brought into the model's form.
    """
    import torch

    config, arguments = skeleton.config, {}
    if own := own_settings(config):
        config = copy.deepcopy(config)
        if own.get("quant_method") == DEQUANTIZED:
            arguments = loading_arguments(config, ModelConfig(base=name), torch.float32)
        else:
            del config.quantization_config
            tensors = as_unquantized(
                tensors, {key: tuple(weight.shape) for key, weight in skeleton.state_dict().items()}
            )
    state = {key: torch.empty(info.shape, device="meta") for key, info in tensors.items()}
    try:
        model, info = type(skeleton).from_pretrained(
            None, config=config, state_dict=state, device_map={"": "meta"}, dtype=torch.float32,
            attn_implementation=config._attn_implementation, output_loading_info=True,
            ignore_mismatched_sizes=True, **arguments,
        )  # fmt: skip
    except RuntimeError:  # its report, which names them, goes to a log
        raise ConfigError(
            f"model.base: the weights of {name!r} cannot be brought into the form of the model that its config.json "
            f"describes, as some are missing or have other shapes; {AGAIN}"
        ) from None
    return fit_of(model, info)


def _is_of_another_part(key: str, prefix: str, modules: Iterable[str]) -> bool:
    """True where a tensor belongs to a part that the model lacks whole: a vision tower, heads for several tokens."""
    path = key.removeprefix(f"{prefix}.").split(".")
    return len(path) > 1 and not any(name in modules for name in (path[0], f"{prefix}.{path[0]}"))


def _wrapper(names: Iterable[str]) -> tuple[str, str] | None:
    names = list(names)
    for fragment, what in WRAPPERS.items():
        if any(name.startswith(fragment) or f".{fragment}" in name for name in names):
            return fragment, what
    return None


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(quoted(name, 100) for name in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
