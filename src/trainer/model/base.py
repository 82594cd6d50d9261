"""Finding and loading the base model and its tokenizer: safetensors only, never remote code."""

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.certificates import check_certificates
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, quoted
from trainer.model.tiny import NAME as TINY
from trainer.model.tiny import tiny_base

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Base:
    """A model that was found: its configuration is read, its weights are not."""

    name: str  # as the user wrote it
    source: str  # hub id or folder
    revision: str | None  # the commit of a hub model
    config: "PretrainedConfig"
    loading: dict[str, Any]  # what every from_pretrained gets

    @property
    def max_length(self) -> int:
        """The longest sequence the model was made for, in tokens."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", None) or 2048)

    @cached_property
    def skeleton(self) -> "PreTrainedModel":
        """The model's layers without their weights: torch's meta device holds shapes only."""
        import torch
        from transformers import AutoModelForCausalLM, PreTrainedModel

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config, trust_remote_code=False)
        assert isinstance(model, PreTrainedModel)
        return model

    @property
    def from_hub(self) -> bool:
        """Whether it is a model of the hub, pinned by a commit, and not a folder of this machine."""
        return not Path(self.source).is_dir()

    def identity(self) -> dict[str, str | None]:
        """What the manifest pins: a hub model by its commit, a folder by a digest of its weights."""
        return {"name": self.name, "revision": self.revision, "weights_sha256": self._weights_sha256}

    @cached_property
    def _weights_sha256(self) -> str | None:
        folder = Path(self.source)
        return weights_digest(folder) if folder.is_dir() else None


def find_base(settings: ModelConfig) -> Base:
    """Look up the model and read its configuration.

    Raises: ConfigError, when there is no such model, it cannot be reached, or it is not a causal language model.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    source = str(tiny_base()) if settings.base == TINY else settings.base
    if settings.base.startswith("builtin:") and settings.base != TINY:
        raise ConfigError(f"model.base: {settings.base!r} is not known, expected {TINY!r}")
    _check_folder(settings.base)
    local_only = not Path(source).is_dir() and _hub_is_out_of_reach()
    if not local_only and not Path(source).is_dir():
        check_certificates()
    try:
        config = AutoConfig.from_pretrained(
            source, revision=settings.revision, trust_remote_code=False, local_files_only=local_only
        )
    except Exception as error:  # the hub client and the config classes raise many kinds
        raise ConfigError(_not_found(settings, error)) from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            f"model.base: {settings.base!r} is a {config.model_type!r} model, expected a causal language model"
        )
    revision = getattr(config, "_commit_hash", None)
    return Base(settings.base, source, revision, config, {"revision": revision, "local_files_only": local_only})


def _hub_is_out_of_reach() -> bool:
    """Whether the hub's name does not even resolve: the client would try for half a minute before it says so."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return bool(constants.HF_HUB_OFFLINE)
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


def _check_folder(name: str) -> None:
    """A folder needs a config, and its weights as safetensors: other formats can run code when they are read."""
    folder = Path(name)
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.base: the folder {name!r} has no config.json, expected a model in Hugging Face format"
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"model.base: the folder {name!r} has no safetensors weights, expected *.safetensors; "
            "convert it with save_pretrained of transformers"
        )


def _not_found(settings: ModelConfig, error: Exception) -> str:
    where = f"at revision {settings.revision!r} " if settings.revision else ""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "trust_remote_code" in str(error):
        return f"model.base: {settings.base!r} needs code from its repository, which is never run; choose another base"
    return (
        f"model.base: {settings.base!r} {where}was not found as a folder here nor on the model hub "
        f"({quoted(reason, 160)}), expected a hub id, a folder or builtin:tiny; check the name, log in with "
        "`hf auth login` if the model is gated, or without a network give the path of a folder that holds the model"
    )


def load_tokenizer(base: Base, settings: ModelConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer with its chat template and a padding token.

    Raises: ConfigError, when it is missing, slow, has no chat template, or does not fit the model's vocabulary.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.source, trust_remote_code=False, **base.loading)
    except Exception as error:
        raise ConfigError(
            f"model.base: the tokenizer of {base.name!r} cannot be loaded: {quoted(str(error), 200)}"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(f"model.base: {base.name!r} has only a slow tokenizer, expected one with a tokenizer.json")
    if settings.chat_template is not None:
        tokenizer.chat_template = _read_template(settings.chat_template)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"model.base: {base.name!r} has no chat template, expected one; choose the instruct variant of the model "
            "or give a jinja file as model.chat_template"
        )
    num_rows = base.config.get_text_config().vocab_size
    if not _fits(tokenizer, num_rows):
        raise ConfigError(
            f"model.base: the tokenizer of {base.name!r} has {len(tokenizer):,} tokens and the model {num_rows:,}; "
            "take both from the same model"
        )
    if tokenizer.pad_token is None:
        # Labels are built from the conversation and not from the padding, so padding with the end token is safe.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _fits(tokenizer: "PreTrainedTokenizerBase", num_rows: int) -> bool:
    """Whether every token that a rendered text can hold has its row in the model's embeddings.

    Gemma 3 1B has none for the image token, which its tokenizer shares with the larger ones. Such a token is special,
    so that no text may spell it, and the template writes it for images only.
    """
    beyond = {name for name, number in tokenizer.get_vocab().items() if number >= num_rows}
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    return not beyond or (beyond <= special - named and num_rows + len(beyond) == len(tokenizer))


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"model.chat_template: {path!r} cannot be read: {error}") from None


def load_model(base: Base, settings: ModelConfig, device: "torch.device", dtype: "torch.dtype") -> "PreTrainedModel":
    """The base with its weights on `device`, quantised as the settings say."""
    import torch
    from transformers import AutoModelForCausalLM

    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if settings.quantization != "none":
        arguments["quantization_config"] = _quantization(settings, dtype)
    if device.type == "cuda" or settings.quantization != "none":
        arguments["device_map"] = {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.source, trust_remote_code=False, use_safetensors=True, **base.loading, **arguments
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.base: the weights of {base.name!r} cannot be loaded: {quoted(str(error), 200)}"
        ) from error
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"model.base: {base.name!r} does not fit into the memory of {device}; set model.quantization to nf4"
        ) from error
    assert isinstance(model, torch.nn.Module)
    _keep_differentiable(model)
    return model


def _keep_differentiable(model: "torch.nn.Module") -> None:
    """On a CPU bitsandbytes rewrites 4-bit weights when they are evaluated, to a form without a backward pass."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # a plain flag


def _quantization(settings: ModelConfig, dtype: "torch.dtype") -> Any:
    import importlib.util

    from transformers import BitsAndBytesConfig

    from trainer.errors import MissingDependency

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependency(
            f"model.quantization: {settings.quantization!r} needs bitsandbytes, which is not installed; "
            "run: pip install 'azure-llm-trainer[local]'"
        )
    if settings.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def weights_digest(folder: Path) -> str:
    """sha256 over the names and contents of a folder's safetensors files."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
