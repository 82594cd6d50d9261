"""Loading a base: its layers without weights, and with them; with the attention that transformers supports for it."""

from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, quoted
from trainer.model.experts import stacks
from trainer.model.quantization import adopted, loading_arguments, quantizing
from trainer.model.weights import fit_of

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from trainer.model.base import Base

ATTENTION = ("sdpa", "eager")  # what is tried, the fastest first


def make_skeleton(config: "PretrainedConfig", name: str) -> "PreTrainedModel":
    """The layers that a configuration describes, on torch's meta device, which holds shapes only.

    Raises: ConfigError, when it describes none that can be built.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedModel

    problem: Exception | None = None
    for attention in ATTENTION:
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, trust_remote_code=False)
        except Exception as error:  # each architecture has its own words for what it does not take
            problem = problem or error
            continue
        assert isinstance(model, PreTrainedModel)
        return model
    raise ConfigError(
        f"model.base: no model can be built of the config.json of {name!r}: {quoted(str(problem), 200)}; take the one "
        "of the model's authors"
    ) from problem


def load_model(base: "Base", settings: ModelConfig, device: "torch.device", dtype: "torch.dtype") -> "PreTrainedModel":
    """The base with its weights on `device`, quantised as the settings say.

    Raises: ConfigError, when it cannot be loaded, or some of its weights are missing or are no weights of this model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, PreTrainedModel

    from trainer.model.expert_layers import use_expert_layers
    from trainer.model.nf4 import is_packed

    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": base.attention}
    arguments |= loading_arguments(base.config, settings, dtype)
    if device.type == "cuda" or adopted(settings, base.config).quantization != "none":
        arguments["device_map"] = {"": device}
    try:
        with quantizing(base.config, settings):
            model, info = AutoModelForCausalLM.from_pretrained(
                base.source, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **base.loading, **arguments,
            )  # fmt: skip
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"model.base: {base.name!r} does not fit into the memory of {device}; set model.quantization to nf4"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(
            f"model.base: the weights of {base.name!r} cannot be loaded: {quoted(str(error), 200)}"
        ) from error
    assert isinstance(model, PreTrainedModel)
    if problems := fit_of(model, info).problems(base.name, len(model.state_dict())):
        raise ConfigError(*problems)
    _keep_differentiable(model)
    if any(is_packed(stack.weight) for stack in stacks(model)):
        use_expert_layers(model)
    return model


def _keep_differentiable(model: "torch.nn.Module") -> None:
    """On a CPU bitsandbytes rewrites 4-bit weights when they are evaluated, to a form without a backward pass."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # a plain flag
