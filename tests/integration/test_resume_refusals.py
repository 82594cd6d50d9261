"""Resuming refuses any setting, data file or base that changed, and names it."""

import io
import json
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import QUESTIONS, make_settings
from tests.families import family_tokenizer
from tests.integration.test_fit import Settings, quiet, resume
from tests.integration.test_resume import EVERY, stopped_run
from tests.manifests import rewrite
from trainer.backends.local import execute
from trainer.config import RunConfig
from trainer.config.problems import field_names
from trainer.config.schema import DpoConfig
from trainer.data.conversations import Conversation, Message
from trainer.data.render.chat_template import ChatTemplate
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run
from trainer.runs.manifest import PinnedBase, WeightShare
from trainer.training.fingerprint import (
    BASE_MODEL,
    CHANGEABLE,
    EXPERTS,
    FREE,
    FREE_SECTIONS,
    PAIR_SETTINGS,
    THOUGHTS,
    fingerprint,
    refuse_changes,
)
from trainer.training.prepare import Prepared, prepare

MUTATIONS: dict[str, Any] = {
    "lora.r": 8, "lora.lora_alpha": 64, "lora.lora_dropout": 0.2, "lora.target_modules": ["q_proj"],
    "lora.use_rslora": True, "lora.use_dora": True, "model.quantization": "nf4", "model.dtype": "bfloat16",
    "data.max_length": 512, "data.on_overlength": "drop", "training.n_epochs": 3, "training.batch_size": 5,
    "training.learning_rate": 2e-3, "training.seed": 7, "training.optimizer": "sgd",
    "training.lr_scheduler_type": "linear", "training.warmup_ratio": 0.5, "training.weight_decay": 0.1,
    "training.adam_beta1": 0.8, "training.adam_beta2": 0.9, "training.adam_epsilon": 1e-6,
    "training.max_grad_norm": 0.5, "training.deterministic": True, "training.eval_steps": 3, "training.eval_rows": 1,
    "training.early_stopping_patience": 4, "training.early_stopping_threshold": 0.1, "training.adapter_from": "last",
    "training.logging_steps": 3, "memory.token_budget": 77, "memory.recompute_layers": 1,
    "training.method": "dpo", "data.train_reasoning": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in QUESTIONS]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"model": {"base": "builtin:tiny"}, "data": {"train": str(folder / "train.jsonl")}, "lora": {"r": 4}}
    training = {"n_epochs": 2, "batch_size": 6, "learning_rate": 1e-3}
    return prepare(RunConfig.model_validate(values | {"training": training}), print)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_setting_is_refused_by_its_name(prepared: Prepared, name: str) -> None:
    section, field = name.split(".")
    values = prepared.config.model_dump()
    before, values[section][field] = values[section][field], MUTATIONS[name]
    values["training"]["learning_rate_multiplier"] = "auto"
    changed = replace(prepared, config=RunConfig.model_validate(values))
    with pytest.raises(ConfigError) as caught:
        refuse_changes(fingerprint(prepared), fingerprint(changed), (), Path("runs/x"))
    start = f"{name}: was {before!r} when the run started, is {_shown(MUTATIONS[name])}"
    advice = (
        f"; put the old value back, or accept the new one: --allow-change {name}"
        if name in CHANGEABLE
        else ", which a checkpoint cannot take on; put the old value back, or start a new run with model.base=runs/x"
    )
    assert str(caught.value) == start + advice


def _shown(value: Any) -> str:
    return ", ".join(map(repr, value)) if isinstance(value, list) else repr(value)


def test_a_run_that_noted_no_commit_of_its_base_is_resumed_on_the_same_model(prepared: Prepared) -> None:
    known = fingerprint(prepared)

    def refused(before: str, now: str) -> bool:
        try:
            return refuse_changes(known | {BASE_MODEL: before}, known | {BASE_MODEL: now}, (), Path("runs/x")) != []
        except ConfigError:
            return True

    assert not refused("org/model None", "org/model 0123abcd")
    assert refused("org/model 4567abcd", "org/model 0123abcd")
    assert refused("org/another None", "org/model 0123abcd")


def test_a_run_begun_before_experts_were_quantized_is_resumed_only_where_they_are_not(prepared: Prepared) -> None:
    def now(quantized: int) -> dict[str, Any]:
        model = prepared.config.model.model_copy(update={"quantization": "nf4"})
        shares = (WeightShare("experts", 64, 64, quantized), WeightShare("attention", 32, 32, 32))
        return fingerprint(replace(prepared, config=prepared.config.model_copy(update={"model": model}), shares=shares))

    before = {name: value for name, value in now(0).items() if name != EXPERTS}
    assert refuse_changes(before, now(0), (), Path("runs/x")) == []
    with pytest.raises(ConfigError) as caught:
        refuse_changes(before, now(64), (), Path("runs/x"))
    assert str(caught.value) == (
        "the quantization of experts: was 'none' when the run started, is 'nf4', which a checkpoint cannot take on; "
        "put the old value back, or start a new run with model.base=runs/x"
    )


@pytest.mark.parametrize(
    ("family", "thought", "train_reasoning", "is_refused"),
    [
        ("llama-3.1", None, False, False),
        ("qwen-3", None, False, True),  # an empty thought stands before each answer, and was trained
        ("qwen-3", "<think>Hm.</think>", True, False),
        ("qwen-3", "<think>Hm.</think>", False, True),
        ("gemma-4", None, False, False),
    ],
)
def test_a_run_begun_before_thoughts_were_set_apart_is_resumed_only_where_none_is(
    prepared: Prepared, family: str, thought: str | None, train_reasoning: bool, is_refused: bool
) -> None:
    tokenizer = family_tokenizer(family)
    ChatTemplate(tokenizer, thinks=thought is not None)
    said = (Message("user", "Hi"), Message("assistant", f"{thought or ''}Hello."))
    train = copy(prepared.data.train)
    train.conversations = (Conversation(said, (), "rows.jsonl", 1),)
    settings = prepared.config.data.model_copy(update={"train_reasoning": train_reasoning})
    changes = {"config": prepared.config.model_copy(update={"data": settings}), "tokenizer": tokenizer}
    now = fingerprint(replace(prepared, data=replace(prepared.data, train=train), **changes))
    before = {name: value for name, value in now.items() if name not in (THOUGHTS, "data.train_reasoning")}
    if not is_refused:
        assert refuse_changes(before, now, (), Path("runs/x")) == []
        return
    with pytest.raises(ConfigError) as caught:
        refuse_changes(before, now, (), Path("runs/x"))
    start = "the thoughts before answers: was 'trained' when the run started, is 'set apart', which a checkpoint "
    assert str(caught.value).startswith(start)
    assert len(caught.value.problems) == 1


def test_a_preference_setting_is_compared_between_runs_of_the_method(prepared: Prepared) -> None:
    def learning(**dpo: Any) -> dict[str, Any]:
        training = prepared.config.training.model_copy(update={"method": "dpo", "dpo": DpoConfig(**dpo)})
        return fingerprint(replace(prepared, config=prepared.config.model_copy(update={"training": training})))

    with pytest.raises(ConfigError) as caught:
        refuse_changes(learning(), learning(loss="ipo"), (), Path("runs/x"))
    assert str(caught.value).startswith("training.dpo.loss: was 'sigmoid' when the run started, is 'ipo', which a ")
    assert len(caught.value.problems) == 1


def test_every_setting_is_either_compared_or_known_to_change_nothing(prepared: Prepared) -> None:
    compared = fingerprint(prepared).keys()
    others = {"data.train", "data.validation"}  # below
    assert set(MUTATIONS) | others == {name for name in compared if " " not in name}
    unknown = set(field_names()) - compared - FREE - PAIR_SETTINGS
    assert {name.split(".")[0] for name in unknown} <= set(FREE_SECTIONS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("a word of a row", "data.train: was "),
        ("a row less", "data.train: was "),
        ("the held-out rows", "data.validation: was "),
        ("the chat template", "the chat template: was sha256 "),
        ("the weights", "the base model: was sha256 "),
        ("the base's config", "the base model's config: was sha256 "),
        ("the tokenizer", "the tokenizer: was sha256 "),
    ],
)
def test_a_changed_world_is_refused_and_nothing_is_touched(stopped_on_own_base: Run, change: str, named: str) -> None:
    run = stopped_on_own_base
    base, template = Path(run.config().model.base), Path(str(run.config().model.chat_template))
    data = run.config().data
    world = contents(base.parent)
    match change:
        case "a word of a row":
            _replace(Path(str(data.train)), "number 3", "number three")
        case "a row less":
            path = Path(str(data.train))
            path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        case "the held-out rows":
            _replace(Path(str(data.validation)), "number 22", "number twenty-two")
        case "the chat template":
            _replace(template, "<|im_end|>\\n", "<|im_end|>\\n\\n")
        case "the weights":
            weights = base / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
        case "the base's config":
            _replace(base / "config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
        case "the tokenizer":
            file = base / "tokenizer.json"
            tokenizer = json.loads(file.read_text())
            tokenizer["model"]["merges"].pop()
            file.write_text(json.dumps(tokenizer))
    before = contents(run.path)
    with pytest.raises(ConfigError) as caught:
        resume(run)
    assert any(problem.startswith(named) for problem in caught.value.problems), str(caught.value)
    assert contents(run.path) == before
    for path, content in world.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def stopped_on_own_base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every test puts back what it changed of the files beside the run."""
    folder = tmp_path_factory.mktemp("world")
    base, template = _own_base(folder), folder / "template.jinja"
    shutil.copy(base / "chat_template.jinja", template)
    changes = {"model__base": str(base), "model__chat_template": str(template)}
    with pytest.MonkeyPatch.context() as patch:
        return stopped_run(make_settings(folder), patch, **changes)


def test_a_world_that_was_put_back_is_the_same_world(stopped_on_own_base: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(stopped_on_own_base.path, tmp_path / "runs" / "stopped"))
    assert resume(run).exit_code is ExitCode.DONE


def _own_base(tmp_path: Path) -> Path:
    from trainer.model.tiny import tiny_base

    folder = tmp_path / "base"
    shutil.copytree(tiny_base(), folder)
    return folder


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.slow
def test_a_base_that_an_earlier_version_made_on_first_use_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped_run(settings, monkeypatch)
    former = PinnedBase("builtin:tiny", "tiny-d95eff64dabda08b", None)
    rewrite(run, base=former)
    with pytest.raises(ConfigError, match=r"was trained on a builtin:tiny that an earlier version made on its first"):
        resume(run)


@pytest.mark.slow
def test_data_that_was_moved_is_the_same_data(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped_run(settings, monkeypatch)
    path = Path(str(run.config().data.train))
    path.rename(path.with_name("moved.jsonl"))
    outcome = execute.resume(run, quiet(), print, [f"data.train={path.with_name('moved.jsonl')}"])
    assert outcome.exit_code is ExitCode.DONE


@pytest.mark.slow
def test_an_allowed_change_takes_effect_and_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped_run(
        settings, monkeypatch, 3, training__lr_scheduler_type="constant", training__warmup_ratio=0, **EVERY
    )
    overrides = ["training.learning_rate=5e-4", "training.n_epochs=3"]
    names = ["training.learning_rate", "training.n_epochs"]
    with pytest.raises(ConfigError, match=r"training\.n_epochs: was 2 when the run started, is 3; put"):
        execute.resume(run, quiet(), print, overrides, names[:1])
    told: list[str] = []
    console = Console(file=io.StringIO())
    assert execute.resume(run, console, told.append, overrides, names).exit_code is ExitCode.DONE
    rates = {int(row["step"]): row["learning_rate"] for row in run.metrics()}
    assert rates == {step: 1e-3 if step < 4 else 5e-4 for step in range(1, 13)}
    assert run.status()["step"] == 12
    assert run.config().training.n_epochs == 3
    messages = [event["message"] for event in run.events()]
    assert "training.learning_rate: was 0.001 when the run started, is 0.0005" in messages


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("lora.r", "--allow-change lora.r: cannot be allowed, expected one of: data.train, "),
        ("training.n_epoch", "--allow-change training.n_epoch: cannot be allowed, did you mean training.n_epochs?"),
    ],
)
def test_what_cannot_be_allowed_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    run = stopped_run(settings, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        execute.resume(run, quiet(), print, [], [name])
    assert str(caught.value).startswith(problem)
