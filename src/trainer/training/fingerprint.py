"""Everything that a run's result depends on, and the refusal to resume where any of it has changed."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.problems import field_names
from trainer.config.schema import DpoConfig
from trainer.data.render.chat_template import ChatTemplate
from trainer.data.render.pinned_thinking import pinned_mode, unpinned
from trainer.errors import ConfigError, quoted, similar
from trainer.kinds import learns_from_pairs
from trainer.runs.files import sha256_of
from trainer.runs.manifest import has_quantized_experts

if TYPE_CHECKING:
    from trainer.training.prepare import Prepared

Fingerprint = dict[str, Any]
BASE_MODEL, PARENT_ADAPTER = "the base model", "the adapter it started from"
EXPERTS, THOUGHTS = "the quantization of experts", "the thoughts before answers"
BEFORE = {EXPERTS: "none", THOUGHTS: "trained"}  # in runs of a version that has no entry for them: it knew no other way

# Change nothing that is learned, or stand in the fingerprint as what they lead to: a path as the digest of its file.
FREE = frozenset(
    {
        "model.base", "model.revision", "model.chat_template", "model.quantize_partly", "data.train",
        "data.validation", "data.allow_leak",
        "training.learning_rate_multiplier", "training.save_steps", "training.save_total_limit",
        "training.save_permanent_steps", "training.on_non_finite", "memory.limit_gb",
        "memory.shard_base",
    }
)  # fmt: skip
PAIR_SETTINGS = frozenset(f"training.dpo.{name}" for name in DpoConfig.model_fields)  # idle for another method
FREE_SECTIONS = ("run", "tracking", "backend", "azureml", "openai", "evaluation")

ADDED_LATER = ("data.train_reasoning",)  # where a run does not have it, the entry for thoughts tells

# What a checkpoint can take on. All else shapes the adapter, or the order in which rows have been seen.
CHANGEABLE = frozenset(
    {
        "data.train", "data.validation", "memory.token_budget", "memory.recompute_layers", "training.n_epochs",
        "training.learning_rate",
        "training.lr_scheduler_type", "training.warmup_ratio", "training.weight_decay", "training.adam_beta1",
        "training.adam_beta2", "training.adam_epsilon", "training.max_grad_norm", "training.deterministic",
        "training.logging_steps", "training.eval_steps", "training.eval_rows", "training.early_stopping_patience",
        "training.early_stopping_threshold", "training.adapter_from",
    }
)  # fmt: skip


def fingerprint(prepared: "Prepared") -> Fingerprint:
    """Field by field: the settings that matter, and digests of data, base, tokenizer and chat template."""
    config, base = prepared.config, prepared.base.pinned()
    idle = FREE if learns_from_pairs(config.training.method) else FREE | PAIR_SETTINGS
    values = config.model_dump(mode="json")
    names = (name for name in field_names() if name not in idle and name.split(".")[0] not in FREE_SECTIONS)
    settings = {name: reduce(getitem, name.split("."), values) for name in names}
    tokenizer, files = prepared.tokenizer, prepared.data.files
    return settings | {
        "data.train": [
            {"path": file.path, "sha256": file.sha256, "weight": file.weight} for file in files if file.role == "train"
        ],
        "data.validation": [{"path": file.path, "sha256": file.sha256} for file in files if file.role == "validation"],
        "the steps of an epoch": prepared.plan.steps_per_epoch,
        # A folder may be mounted elsewhere tomorrow: its weights count, and not its name.
        BASE_MODEL: base.weights_sha256 or f"{base.name} {base.revision}",
        "the base model's config": _digest(_without_version(prepared.base.config.to_dict())),
        PARENT_ADAPTER: prepared.parent and sha256_of(prepared.parent.adapter_file),
        EXPERTS: config.model.quantization if has_quantized_experts(prepared.shares) else "none",
        THOUGHTS: "set apart" if _sets_thoughts_apart(prepared) else "trained",
        "the tokenizer": _digest(tokenizer.backend_tokenizer.to_str()),
        "the chat template": _digest(unpinned(tokenizer.chat_template)),
    }


def _sets_thoughts_apart(prepared: "Prepared") -> bool:
    """True where a thought, or the one of nothing that a template writes before an answer, is only read, or asked for.

    Each was trained as part of its answer once, and a template was asked for nothing.
    """
    if pinned_mode(prepared.tokenizer.chat_template) is not None:
        return True
    rows = [row for conversation in prepared.data.train.conversations for row in conversation.branches]
    answers = [message for row in rows for message in row.messages if message.trained]
    if prepared.config.data.train_reasoning is False and any(message.has_thought for message in answers):
        return True
    form = ChatTemplate(prepared.tokenizer).thoughts
    return form is not None and form.empty is not None and not all(message.has_thought for message in answers)


def refuse_changes(before: Mapping[str, Any], now: Fingerprint, allowed: Collection[str], run: Path) -> list[str]:
    """The changes that were allowed, in words.

    Raises: ConfigError, for every other change, and for a name in `allowed` that cannot be.
    """
    problems = list(_not_changeable(allowed, now))
    changes: list[str] = []
    known, before = before.keys(), {**BEFORE, **before}
    for name in sorted(before.keys() | now.keys()):
        if _what_counts(before.get(name)) == _what_counts(now.get(name)) or _lacks_commit(name, before, now):
            continue
        if name in ADDED_LATER and name not in known:
            continue
        if name == THOUGHTS and name in known:
            continue  # it follows from rows, template and data.train_reasoning
        if name in PAIR_SETTINGS and before.get("training.method") != now.get("training.method"):
            continue  # said of the method
        change = f"{name}: was {_shown(before.get(name))} when the run started, is {_shown(now.get(name))}"
        if name in allowed:
            changes.append(change)
        elif name in CHANGEABLE:
            problems.append(f"{change}; put the old value back, or accept the new one: --allow-change {name}")
        else:
            problems.append(
                f"{change}, which a checkpoint cannot take on; put the old value back, or start a new run with "
                f"model.base={run}"
            )
    if problems:
        raise ConfigError(*problems)
    return changes


def _lacks_commit(name: str, before: Mapping[str, Any], now: Fingerprint) -> bool:
    """True for the same hub model where version 0.1.0 noted no commit."""
    was, found = str(before.get(name)), str(now.get(name))
    return name == BASE_MODEL and was == f"{found.partition(' ')[0]} None"


def _not_changeable(allowed: Collection[str], now: Fingerprint) -> Iterator[str]:
    for name in allowed:
        if name not in CHANGEABLE:
            meant = similar(name, CHANGEABLE) if name not in now else ""
            accepted = meant or f", expected one of: {', '.join(sorted(CHANGEABLE))}"
            yield f"--allow-change {name}: cannot be allowed{accepted}"


def _what_counts(value: Any) -> Any:
    """A value without the paths of files, which may be mounted elsewhere."""
    if isinstance(value, list):
        return [_what_counts(item) for item in value]
    return {key: item for key, item in value.items() if key != "path"} if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    """A value, or what tells a digest from another one."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "nothing"
    if isinstance(value, dict):
        weight = f", weight {value['weight']:g}" if value.get("weight", 1.0) != 1.0 else ""
        return f"{value['path']} ({_shown(value['sha256'])}{weight})"
    if isinstance(value, str) and len(value) == 64:
        return f"sha256 {value[:12]}…"
    return quoted(value)


def _without_version(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")}
    return json.dumps(kept, sort_keys=True, default=str)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
