"""Finding the base model and its tokenizer: safetensors only, never remote code."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.certificates import use_certificates
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, quoted
from trainer.extras import lack
from trainer.model.base_folder import refuse_base
from trainer.model.config_limits import refuse_config
from trainer.model.hub import OutOfSightError, is_out_of_reach, tensors_of
from trainer.model.loading import make_skeleton
from trainer.model.quantization import adopted
from trainer.model.tiny import NAME as TINY
from trainer.model.tiny import tiny_base
from trainer.model.weight_files import read_tensors
from trainer.model.weights import hold_against
from trainer.runs.manifest import PinnedBase

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")


@dataclass(frozen=True)
class Base:
    """A model that was found: its configuration is read, its weights are not."""

    name: str  # as the user wrote it
    source: str  # hub id or folder
    revision: str | None  # the commit of a hub model
    config: "PretrainedConfig"
    loading: dict[str, Any]  # what every from_pretrained gets
    notes: list[str] = field(default_factory=list)  # what of its weights was not looked at, or is left aside

    @property
    def max_length(self) -> int:
        """The longest sequence the model was made for, in tokens."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", None) or 2048)

    @cached_property
    def skeleton(self) -> "PreTrainedModel":
        """The model's layers without their weights: torch's meta device holds shapes only.

        Raises: ConfigError, when none can be made of its configuration.
        """
        return make_skeleton(self.config, self.name)

    @property
    def attention(self) -> str:
        """Implementation of attention where packs do not choose one: what transformers supports for the model."""
        return str(self.skeleton.config._attn_implementation)

    @property
    def from_hub(self) -> bool:
        """True for a model of the hub, pinned by a commit, and not a folder of this machine."""
        return not Path(self.source).is_dir()

    def pinned(self) -> PinnedBase:
        """A hub model by its commit, a folder by a digest of its weights."""
        return PinnedBase(self.name, self.revision, self._weights_sha256)

    @cached_property
    def _weights_sha256(self) -> str | None:
        folder = Path(self.source)
        return weights_digest(folder) if folder.is_dir() else None


class UnfitBaseError(ConfigError):
    """The base was found, and what was found cannot be trained."""


def find_base(settings: ModelConfig) -> Base:
    """Look up the model, read its configuration and compare its weights with it.

    Raises: ConfigError, when there is no such model, it cannot be reached, it is not a causal language model, its
    weights are others, or it is quantized in another way than the settings say.
    """
    from transformers import AutoConfig, PreTrainedConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    source = str(tiny_base()) if settings.base == TINY else settings.base
    refuse_base(settings.base)
    local_only = not Path(source).is_dir() and is_out_of_reach()
    if not local_only and not Path(source).is_dir():
        use_certificates()
    try:
        where = {"revision": settings.revision, "local_files_only": local_only}
        raw, _ = PreTrainedConfig.get_config_dict(source, **where)
        judged(lambda: refuse_config(raw, settings.base))
        revision = _commit_of(source, settings.revision)
        where["revision"] = revision or settings.revision
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **where)
    except ConfigError:
        raise
    except Exception as error:  # the hub client and the config classes raise many kinds
        raise ConfigError(_not_found(settings, error)) from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            f"model.base: {settings.base!r} is a {config.model_type!r} model, expected a causal language model"
        )
    judged(lambda: adopted(settings, config))
    base = Base(settings.base, source, revision, config, {"revision": revision, "local_files_only": local_only})
    base.notes.extend(judged(lambda: list(_weights_notes(base))))
    return base


def _commit_of(source: str, revision: str | None) -> str | None:
    """The commit of a hub model, by the copy of its configuration that was just read; None of a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return None
    copy = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(copy).parent.name if isinstance(copy, str) else None


def judged(judge: Callable[[], T]) -> T:
    """Run `judge` on the base. Raises: UnfitBaseError, for what it refuses."""
    try:
        return judge()
    except ConfigError as error:
        raise UnfitBaseError(*error.problems) from error


def _weights_notes(base: Base) -> Iterator[str]:
    """Compare the weights with the model, from the headers of their files. Raises: ConfigError."""
    try:
        if Path(base.source).is_dir():
            tensors = read_tensors(Path(base.source), "model.base")
        else:
            tensors = tensors_of(base.source, base.revision, base.loading["local_files_only"])
    except OutOfSightError as reason:
        yield f"the weights of {base.name!r} were not looked at: {reason}; they are checked when they are loaded"
        return
    if missing := lack(("torch",)):
        yield f"the weights of {base.name!r} were not compared with its layers: {missing}; loading does that"
        return
    fit = hold_against(base.skeleton, tensors, base.name)
    if problems := fit.problems(base.name, len(base.skeleton.state_dict())):
        raise ConfigError(*problems)
    if note := fit.note(base.name):
        yield note


def _not_found(settings: ModelConfig, error: Exception) -> str:
    where = f"at revision {settings.revision!r} " if settings.revision else ""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "trust_remote_code" in str(error):
        return f"model.base: {settings.base!r} needs code from its repository, which is never run; choose another base"
    if Path(settings.base).is_dir():
        return (
            f"model.base: the config.json of {settings.base!r} is not that of a model ({quoted(reason, 160)}); take "
            "the one of the model's authors"
        )
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
        tokenizer.chat_template = read_template(settings.chat_template)
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
    """True where every token that a rendered text can hold has its row in the model's embeddings.

    Gemma 3 1B has none for the image token, which its tokenizer shares with the larger ones. Such a token is special,
    so that no text may spell it, and the template writes it for images only.
    """
    beyond = {name for name, number in tokenizer.get_vocab().items() if number >= num_rows}
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    return not beyond or (beyond <= special - named and num_rows + len(beyond) == len(tokenizer))


def read_template(path: str) -> str:
    """A chat template's text. Raises: ConfigError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"model.chat_template: {path!r} cannot be read: {error}") from None


def weights_digest(folder: Path) -> str:
    """sha256 over the names and contents of a folder's safetensors files."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
