"""Whole runs on the tiny model, in this process: what is trained, stored, resumed and refused."""

import errno
import hashlib
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.conftest import QUESTIONS
from trainer.config import RunConfig
from trainer.errors import ConfigError, ExitCode, TrainingError
from trainer.model.base import find_base
from trainer.model.loading import load_model
from trainer.runs import Run, create_run
from trainer.runs import checkpoint as checkpoints
from trainer.runs.manifest import ParentRun, RowCounts
from trainer.runs.run import Outcome
from trainer.training import executor, loop, saving, trackers
from trainer.training import fit as fitting
from trainer.training import prepare as preparing
from trainer.training.fit import fit
from trainer.training.prepare import prepare

Settings = Callable[..., RunConfig]


def quiet() -> Console:
    return Console(file=io.StringIO())


def train(config: RunConfig) -> tuple[Run, Outcome]:
    prepared = prepare(config, print)
    run = create_run(prepared.config)
    return run, fit(prepared, run, quiet())


def resume(run: Run) -> Outcome:
    return fit(prepare(run.config(), print), run, quiet())


def adapter_hash(run: Run) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def measurements(run: Run) -> list[tuple[Any, ...]]:
    rest = [(row["step"], row["learning_rate"], row["grad_norm"], row["num_tokens"]) for row in run.metrics()]
    return [*[tuple(row.items()) for row in run.results()], *rest]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Send this process a signal while the given step is being computed, once."""
    original = loop.Trainer.training_step

    def step_with_signal(self: loop.Trainer, *arguments: Any, **named: Any) -> torch.Tensor:
        if self.state.global_step + 1 == step:
            os.kill(os.getpid(), number)
        return original(self, *arguments, **named)

    monkeypatch.setattr(loop.Trainer, "training_step", step_with_signal)


def test_a_run_leaves_everything_that_is_promised(settings: Settings) -> None:
    run, outcome = train(settings(training__logging_steps=1))
    assert outcome.exit_code is ExitCode.DONE
    assert run.state == "succeeded"
    files = ".azure-llm-trainer config.yaml events.jsonl manifest.json metrics.jsonl results.csv status.json"
    assert {path.name for path in run.path.iterdir()} == {"adapter", "checkpoints", *files.split()}
    assert [row["step"] for row in run.results()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["step"] for row in run.results() if "full_valid_loss" in row] == [4, 8]
    manifest = run.manifest()
    assert manifest.rows == RowCounts(train=20, validation=4)
    assert ": auto\n" not in (run.path / "config.yaml").read_text()
    assert all(tensor.isfinite().all() for tensor in load_file(run.adapter / "adapter_model.safetensors").values())


@pytest.mark.parametrize(("policy", "outcome"), [("drop", "dropped"), ("truncate", "truncated")])
def test_rows_that_were_too_long_are_counted_and_listed(
    settings: Settings, write_rows: Callable[..., Path], policy: str, outcome: str
) -> None:
    turns = [{"role": role, "content": "word " * 60} for role in ("user", "assistant")] * 2
    path = write_rows([*QUESTIONS[:10], {"messages": turns}, {"messages": turns[:2]}], "long.jsonl")
    config = settings(
        data__train=str(path),
        data__max_length=180,
        data__on_overlength=policy,
        training__n_epochs=1,
        data__validation=None,
    )
    run, _ = train(config)
    (listed,) = run.manifest().overlength
    assert (listed.place, listed.outcome, listed.tokens > 180) == (f"{path}:11", outcome, True)
    (event,) = [event for event in run.events() if event["type"] == "overlength"]
    assert (event["level"], event["data"]) == ("warning", {outcome: 1})
    assert event["message"] == f"1 row is longer than 180 tokens: 1 {outcome}; manifest.json lists them"


def test_loss_falls_and_only_the_adapter_moves(settings: Settings) -> None:
    config = settings(training__n_epochs=6, training__learning_rate=5e-3, training__logging_steps=1)
    base = find_base(config.model)
    before = load_model(base, config.model, torch.device("cpu"), torch.float32).state_dict()
    run, _ = train(config)
    losses = [row["train_loss"] for row in run.results()]
    assert losses[-1] < 0.5 * losses[0]  # 0.15 of it: from one processor to another the last bits differ
    after = load_model(base, config.model, torch.device("cpu"), torch.float32).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all("lora_" in name for name in load_file(run.adapter / "adapter_model.safetensors"))


def test_nothing_is_dropped_truncated_masked_or_tokenised_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every supervised token of every row is scored once, after exactly the tokens before it in its own row."""
    seen: Counter[tuple[tuple[int, ...], int]] = Counter()
    original = executor.Engine.sums

    def spy(self: executor.Engine, pack: Any) -> Any:
        if torch.is_grad_enabled():
            keys = torch.arange(len(pack.input_ids))
            for position, target, weight in zip(pack.position, pack.target, pack.weight, strict=True):
                visible = (keys <= position) & (position < pack.subtree_end)
                seen[tuple(pack.input_ids[visible].tolist()), int(target)] += int(weight)
        return original(self, pack)

    monkeypatch.setattr(executor.Engine, "sums", spy)
    prepared = prepare(settings(training__n_epochs=1), print)
    fit(prepared, create_run(prepared.config), quiet())
    examples = [example for row in prepared.data.train for example in row.examples]
    assert seen == Counter(
        (example.input_ids[:t], label) for example in examples for t, label in enumerate(example.labels) if label >= 0
    )


@pytest.mark.parametrize("token_budget", [64, 100_000])
def test_the_token_budget_changes_nothing_that_is_learned(settings: Settings, token_budget: int) -> None:
    run, _ = train(settings(model__dtype="float32", memory__token_budget=token_budget, run__name="cut"))
    whole, _ = train(settings(model__dtype="float32", run__name="whole"))
    for cut_row, row in zip(run.results(), whole.results(), strict=True):
        assert cut_row == pytest.approx(row, rel=1e-4)


def test_ctrl_c_ends_with_130_and_a_checkpoint(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 2, signal.SIGINT)
    run, outcome = train(settings())
    assert outcome == Outcome(ExitCode.INTERRUPTED, f"interrupted; resume with: train --resume {run.path}")
    assert [checkpoint.step for checkpoint in checkpoints.list_checkpoints(run.checkpoints)] == [2]


def test_a_signal_in_the_last_step_does_not_undo_the_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 8, signal.SIGTERM)
    run, outcome = train(settings())
    assert (outcome.exit_code, run.state) == (ExitCode.DONE, "succeeded")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_newest_checkpoint_is_passed_over_with_the_reason(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 6, signal.SIGTERM)
        run, _ = train(settings(training__save_steps=2))
    damaged = checkpoints.list_checkpoints(run.checkpoints)[-1].path / saving.OPTIMIZER
    damaged.write_bytes(damage(damaged.read_bytes()))
    resume(run)
    messages = [event["message"] for event in run.events()]
    assert "checkpoint step-00000006 is passed over: optimizer.safetensors differs from what was written" in messages
    assert "resumed from step 4" in messages
    assert run.state == "succeeded"


def test_a_flagged_step_leaves_the_weights_as_they_were(settings: Settings) -> None:
    prepared = prepare(settings(), print)
    model = fitting._load(prepared)
    optimizer = loop.make_optimizer(prepared.config, prepared.plan, model)
    guard = loop.FiniteGuard(torch.device("cpu"), "stop", loss_is_scaled=False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    guard.gate(torch.tensor(float("nan")), optimizer)
    optimizer.step()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_the_best_checkpoint_is_the_adapter_and_overfitting_is_said(settings: Settings) -> None:
    wrong = [(question, f"Wrong {number}.") for number, (question, _) in enumerate(QUESTIONS[20:])]
    path = Path(str(settings().data.validation))
    path.write_text("".join(_row(q, a) for q, a in wrong))
    lasting = {"training__n_epochs": 12, "training__lr_scheduler_type": "constant", "training__learning_rate": 1e-2}
    run, outcome = train(settings(model__dtype="float32", **lasting))
    losses = {int(row["step"]): row["valid_loss"] for row in run.results() if "valid_loss" in row}
    best = min(losses, key=lambda step: losses[step])
    assert best < max(losses)
    assert run.status()["adapter_step"] == best
    chosen = checkpoints.folder_of(run.checkpoints, best) / "adapter_model.safetensors"
    assert chosen.read_bytes() == (run.adapter / "adapter_model.safetensors").read_bytes()
    assert outcome.summary.startswith("validation loss rose from epoch ")
    assert outcome.summary.endswith(f"; the adapter is from step {best}")


def test_early_stopping_succeeds_before_the_last_step(settings: Settings) -> None:
    run, outcome = train(
        settings(training__n_epochs=9, training__early_stopping_patience=1, training__early_stopping_threshold=9.0)
    )
    assert (outcome.exit_code, run.state, run.status()["step"]) == (ExitCode.DONE, "succeeded", 8)


def test_dora_and_rank_stabilised_lora_train(settings: Settings) -> None:
    config = settings(lora__use_dora=True, lora__use_rslora=True, lora__target_modules=["q_proj", "down_proj"])
    run, _ = train(config)
    names = load_file(run.adapter / "adapter_model.safetensors")
    assert any("lora_magnitude_vector" in name for name in names)
    assert all("q_proj" in name or "down_proj" in name for name in names)


def test_measurements_reach_tensorboard(settings: Settings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = train(settings(tracking__report_to=["tensorboard"]))
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    points = {event.step: event.value for event in board.Scalars("eval/loss")}
    assert points == pytest.approx(
        {int(row["step"]): row["valid_loss"] for row in run.results() if "valid_loss" in row}
    )
    for name in ("learning_rate", "grad_norm"):
        points = {event.step: event.value for event in board.Scalars(f"train/{name}")}
        assert points == pytest.approx({row["step"]: row[name] for row in run.metrics()})


def test_a_tracker_that_fails_is_left_out_and_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, seen = Counter[str](), list[dict[str, Any]]()

    class Tracker(TrainerCallback):
        def __init__(self) -> None:
            calls["made"] += 1
            if calls["made"] == 3:
                raise ConnectionError("nobody there")

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(args.to_dict())

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            calls["log"] += 1
            control.should_training_stop = True
            if calls["log"] == 2:
                raise ValueError("no space\nleft")

    monkeypatch.setitem(trackers.INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    monkeypatch.setattr(preparing, "absent", lambda names: [])
    runs = [train(settings(tracking__report_to=["wandb"]))[0] for _ in range(3)]
    assert (calls["made"], calls["log"], len(seen)) == (
        3,
        3 + len(runs[1].results()),
        2,
    )  # transformers logs a summary, too
    shown = {name: value for name, value in seen[0].items() if name.startswith("config.")}
    assert (shown["config.lora.r"], shown["config.model.base"]) == (runs[0].config().lora.r, "builtin:tiny")
    assert {type(value) for value in shown.values()} <= {bool, int, float, str}
    words = [[event["message"] for event in run.events() if event["level"] == "warning"] for run in runs]
    left = "wandb gets no more metrics, and the run continues: "
    assert words[0] == [f"{left}ValueError: no space"]
    assert words[2] == [f"{left}ConnectionError: nobody there"]
    plain, _ = train(settings())
    assert {adapter_hash(run) for run in runs} == {adapter_hash(plain)}


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_the_rate_that_is_logged_is_the_one_the_step_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    used = []
    original = torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        used.append(optimizer.param_groups[0]["lr"])
        return original(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run, _ = train(settings(training__lr_scheduler_type=kind, training__warmup_ratio=0.3, training__logging_steps=1))
    assert [row["learning_rate"] for row in run.metrics()] == used
    assert used[:3] == pytest.approx([1e-3 / 4, 2e-3 / 4, 3e-3 / 4])
    assert used[3] == 1e-3
    assert min(used) > 0


def test_the_packs_of_the_validation_rows_are_made_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One measurement of the first two rows a step, and one of all four an epoch."""
    made = []
    original = executor.Engine.packs
    monkeypatch.setattr(
        executor.Engine, "packs", lambda self, rows, n: made.append(len(rows)) or original(self, rows, n)
    )
    changes = {"training__batch_size": 10, "training__eval_steps": 1, "training__eval_rows": 2}
    run, _ = train(settings(training__n_epochs=2, **changes))
    assert made == [10, 2, 10, 4, 10, 10]
    assert [row.keys() >= {"valid_loss"} for row in run.results()] == [True] * 4
    assert [row.keys() >= {"full_valid_loss"} for row in run.results()] == [False, True] * 2


def test_a_run_of_one_step_trains(settings: Settings) -> None:
    run, outcome = train(settings(training__n_epochs=1, training__batch_size=20))
    assert outcome.summary.startswith("finished at step 1;")
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)


@pytest.mark.parametrize("further", [False, True])
def test_an_adapter_that_equals_its_start_is_not_called_finished(settings: Settings, further: bool) -> None:
    """The rate is above 0 and still too small for any float32 weight."""
    base = {}
    if further:
        first, _ = train(settings(run__name="first", training__n_epochs=1))
        base = {"model__base": str(first.path)}
    config = settings(run__name="second", training__learning_rate=1e-50, training__n_epochs=1, **base)
    run = create_run((prepared := prepare(config, print)).config)
    with pytest.raises(TrainingError, match="the adapter equals its start") as caught:
        fit(prepared, run, quiet())
    assert (run.state, run.status()["error"]) == ("failed", str(caught.value))
    assert not run.adapter.exists()


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_bases_train_and_the_adapter_stays_float32(settings: Settings, quantization: str) -> None:
    changes = {"training__n_epochs": 4, "training__learning_rate": 5e-3, "training__logging_steps": 1}
    run, _ = train(settings(model__quantization=quantization, **changes))
    losses = [row["train_loss"] for row in run.results()]
    assert losses[-1] < 0.5 * losses[0]  # 0.2 of it
    weights = load_file(run.adapter / "adapter_model.safetensors").values()
    assert {tensor.dtype for tensor in weights} == {torch.float32}


def test_evaluating_a_4_bit_base_leaves_its_gradient_as_it_was(settings: Settings) -> None:
    prepared = prepare(settings(model__quantization="nf4"), print)
    model = fitting._load(prepared)
    ids = torch.tensor([prepared.data.train[0].examples[0].input_ids])

    def gradient() -> torch.Tensor:
        model.zero_grad()
        model.train()(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    expected = gradient()
    with torch.no_grad():
        model.eval()(input_ids=ids)
    found = gradient()
    assert (found - expected).norm() <= 1e-3 * expected.norm()


def test_bfloat16_trains_with_a_float32_adapter(settings: Settings) -> None:
    run, _ = train(settings(model__dtype="bfloat16"))
    assert {t.dtype for t in load_file(run.adapter / "adapter_model.safetensors").values()} == {torch.float32}
    assert run.manifest().dtype == "bfloat16"


def test_a_run_can_be_trained_further(settings: Settings) -> None:
    first, _ = train(settings(run__name="first", model__dtype="float32"))
    loss_after = [row["full_valid_loss"] for row in first.results() if "full_valid_loss" in row][-1]
    second, _ = train(
        settings(
            run__name="second",
            model__base=str(first.path),
            model__dtype="float32",
            training__learning_rate=1e-9,
            lora__r=4,
        )
    )
    loss_before = second.results()[-1]["full_valid_loss"]
    assert loss_before == pytest.approx(loss_after, rel=1e-4)
    assert second.manifest().parent == ParentRun("first", None)
    assert second.manifest().base == first.manifest().base


def test_training_further_from_a_checkpoint_takes_that_step(settings: Settings) -> None:
    first, _ = train(settings(run__name="first", model__dtype="float32"))
    config = settings(
        run__name="second", model__base=f"{first.path}@4", model__dtype="float32", training__learning_rate=1e-9
    )
    second, _ = train(config)
    at_4 = next(row for row in first.results() if row["step"] == 4)
    assert second.results()[-1]["full_valid_loss"] == pytest.approx(at_4["full_valid_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lora__r": 8}, "lora.r: is 8, but {run} was trained with 4; leave it out to continue that adapter"),
        ({"model__base": "{run}@3"}, "model.base: {run} has no checkpoint '3', expected one of: 4, 8"),
    ],
)
def test_what_cannot_be_trained_further_is_refused(settings: Settings, changes: dict[str, Any], problem: str) -> None:
    first, _ = train(settings(run__name="first"))
    values = {"model__base": str(first.path)} | {
        key: value.format(run=first.path) if isinstance(value, str) else value for key, value in changes.items()
    }
    with pytest.raises(ConfigError) as caught:
        prepare(settings(run__name="second", **values), print)
    assert str(caught.value) == problem.format(run=first.path)


def test_a_full_disk_fails_the_run_in_words_and_keeps_the_checkpoints(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, is_full = os.fsync, False
    original = loop.Trainer._step

    def fill_disk(self: loop.Trainer, rows: Any) -> torch.Tensor:
        nonlocal is_full
        is_full = self.state.global_step == 5
        return original(self, rows)

    def flush_unless_full(handle: int) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    config = settings(run__name="full", training__save_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", fill_disk)
        patch.setattr(os, "fsync", flush_unless_full)
        with pytest.raises(
            TrainingError, match="full: No space left on device; free space, then resume with: train --resume"
        ):
            train(config)
    run = Run(Path(config.run.root) / "full")
    newest, _ = checkpoints.newest_complete(run.checkpoints)
    assert newest is not None
    assert newest.step == 4
    assert resume(run).exit_code is ExitCode.DONE


def test_the_adapter_loads_in_plain_peft(settings: Settings) -> None:
    run, _ = train(settings())
    config = settings()
    base = load_model(find_base(config.model), config.model, torch.device("cpu"), torch.float32)
    assert isinstance(PeftModel.from_pretrained(base, run.adapter), PeftModel)


def test_a_mixture_of_files_trains_each_by_its_weight(settings: Settings, write_rows: Callable[..., Path]) -> None:
    often, seldom = write_rows(QUESTIONS[:4], "often.jsonl"), write_rows(QUESTIONS[4:14], "seldom.jsonl")
    config = settings(
        data__train=[{"path": str(often), "weight": 2}, {"path": str(seldom), "weight": 0.5}], training__n_epochs=1
    )
    prepared = prepare(config, print)
    assert prepared.plan.steps_per_epoch == 3  # 8 + 5 conversations in steps of 6


def _row(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}) + "\n"
