"""Preference training in this process: what is learned and stored, the reference that is kept, and resuming."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import QUESTIONS, make_settings, rows_writer
from tests.integration.test_fit import adapter_hash, quiet, resume, stop_at, train
from trainer.backends.local import execute
from trainer.config import RunConfig
from trainer.errors import ExitCode, TrainingError
from trainer.runs import Run
from trainer.training import pair_loop
from trainer.training.pairs import PairExecutor

Settings = Callable[..., RunConfig]


def pair(question: str, preferred: str, other: str) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "system", "content": "You count."}, {"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": preferred}],
        "non_preferred_output": [{"role": "assistant", "content": other}],
    }


def pairs_of(turns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        pair(question, answer, f"I would not know, and {number} is odd.")
        for number, (question, answer) in enumerate(turns)
    ]


def pair_settings(folder: Path) -> Settings:
    """Configs of short runs on pairs; settings are overridden as section__name=value, those of dpo as dpo__name."""
    make, write = make_settings(folder), rows_writer(folder)
    files = {
        "data__train": str(write(pairs_of(QUESTIONS[:20]), "pairs.jsonl")),
        "data__validation": str(write(pairs_of(QUESTIONS[20:]), "held_out_pairs.jsonl")),
    }

    def settings(**changes: Any) -> RunConfig:
        dpo = {name.removeprefix("dpo__"): value for name, value in changes.items() if name.startswith("dpo__")}
        others = {name: value for name, value in changes.items() if not name.startswith("dpo__")}
        return make(
            **{**files, "training__method": "dpo", "training__dpo": dpo, "training__logging_steps": 1, **others}
        )

    return settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return pair_settings(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing has interrupted, for all tests that only look at one."""
    return train(pair_settings(tmp_path_factory.mktemp("finished"))(run__name="whole", training__eval_steps=2))[0]


def test_the_preferred_answers_become_more_likely_than_the_others(finished: Run) -> None:
    assert finished.state == "succeeded"
    first, *_, last = [row for row in finished.metrics() if "train_reward_margin" in row]
    assert first["train_reward_margin"] == pytest.approx(0, abs=1e-5)
    assert last["train_reward_margin"] > 0.1
    assert last["train_reward_accuracy"] > 0.9
    assert last["train_preferred_reward"] - last["train_other_reward"] == pytest.approx(last["train_reward_margin"])
    assert last["train_kl_estimate"] > 0
    assert finished.results()[0]["train_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert finished.results()[-1]["valid_loss"] < np.log(2)


def test_held_out_pairs_are_evaluated_with_an_interval(finished: Run) -> None:
    rows = [row for row in finished.metrics() if "valid_reward_accuracy" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for row in rows:
        low, share, high = (row[f"valid_reward_accuracy{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= share <= high <= 1
        assert high - low > 0.3  # four pairs say little
    assert all(f"full_{name}" in rows[-1] for name in rows[-1] if name.startswith("valid_"))


def test_the_reference_is_that_of_the_base(finished: Run) -> None:
    logps = load_file(finished.reference)["logps"]
    assert logps.shape == (24, 2)
    first = next(row for row in finished.metrics())
    assert logps.min() < first["train_preferred_logp"] < logps.max() < 0


def of_steps(run: Run) -> Any:
    """What was measured of each step, but for time and memory."""
    passing = ("tokens_per_second", "peak_memory_bytes")
    return run.results(), [{k: v for k, v in row.items() if k not in passing} for row in run.metrics()]


@pytest.mark.parametrize("position", [1, *(pytest.param(step, marks=pytest.mark.slow) for step in (4, 5, 7))])
def test_a_stopped_run_that_goes_on_is_the_run_that_never_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, position: int, finished: Run
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, position, signal.SIGTERM)
        stopped, outcome = train(settings(run__name="stopped", training__eval_steps=2))
    assert outcome.exit_code is ExitCode.RESUMABLE
    monkeypatch.delattr(pair_loop, "compute_reference")  # it is read, and not computed again
    assert resume(stopped).exit_code is ExitCode.DONE
    assert adapter_hash(stopped) == adapter_hash(finished)
    assert of_steps(stopped) == of_steps(finished)


@pytest.mark.parametrize(
    "damage",
    ["another number", *(pytest.param(d, marks=pytest.mark.slow) for d in ("cut short", "of other rows", "gone"))],
)
def test_a_reference_that_is_not_what_was_written_is_computed_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, damage: str, finished: Run
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 1, signal.SIGTERM)
        stopped, _ = train(settings(run__name="stopped", training__eval_steps=2))
    file, content = stopped.reference, stopped.reference.read_bytes()
    match damage:
        case "cut short":
            file.write_bytes(content[:-3])
        case "another number":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
        case "of other rows":
            save_file({"logps": np.zeros((24, 2))}, file, {"digest": "0" * 64})
        case "gone":
            file.unlink()
    resume(stopped)
    assert file.read_bytes() == content
    assert adapter_hash(stopped) == adapter_hash(finished)


@pytest.mark.slow
def test_a_signal_while_the_reference_is_computed_stops_before_the_first_step(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, finished: Run
) -> None:
    original = PairExecutor.logps

    def interrupted(self: PairExecutor, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PairExecutor, "logps", interrupted)
        stopped, outcome = train(settings(run__name="stopped", training__eval_steps=2))
    assert (outcome.exit_code, stopped.state, stopped.reference.exists()) == (ExitCode.RESUMABLE, "paused", False)
    assert "stopped before the first step" in [event["message"] for event in stopped.events()]
    assert resume(stopped).exit_code is ExitCode.DONE
    assert adapter_hash(stopped) == adapter_hash(finished)


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["base", "run"])
def test_a_run_that_goes_on_from_another_stays_close_to_what_it_is_told(
    settings: Settings, finished: Run, reference: str
) -> None:
    run, _ = train(settings(model__base=str(finished.path), dpo__reference=reference, run__name=reference))
    first = next(run.metrics())
    logps, before = (load_file(of.reference)["logps"] for of in (run, finished))
    if reference == "base":
        assert np.array_equal(logps, before)
        assert first["train_reward_margin"] > 0.1  # the other run has moved away from it
    else:
        assert np.abs(logps - before).max() > 0.1
        assert first["train_reward_margin"] == pytest.approx(0, abs=1e-5)


def test_a_reference_without_a_number_ends_the_run_before_it_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_loop, "compute_reference", lambda executor, pairs, *_: np.full((len(pairs), 2), np.nan))
    config = settings(run__name="broken")
    with pytest.raises(TrainingError, match="the reference gives an answer no finite probability"):
        train(config)
    run = Run(Path(config.run.root) / "broken")
    assert (run.state, run.reference.exists()) == ("failed", False)


def test_losses_and_settings_are_those_of_the_config(settings: Settings) -> None:
    run, _ = train(settings(dpo__loss="ipo", dpo__beta=0.5, dpo__sft_weight=0.2, training__n_epochs=1))
    first = run.results()[0]
    assert first["train_loss"] > (1 / (2 * 0.5)) ** 2 + 0.2  # untrained: the squared target, and some loss of answers


@pytest.mark.slow
def test_the_comparison_answers_the_prompts_and_holds_the_preferred_answers_against_it(finished: Run) -> None:
    result = execute.evaluate(finished, quiet())
    measures = {measure["key"]: measure for measure in result["measures"]}
    assert measures["preference"]["tuned"] > 0.9
    measured = next(row for row in reversed(list(finished.metrics())) if "full_valid_reward_accuracy" in row)
    wins = result["wins"]
    assert wins["wins"] / wins["pairs"] == measured["full_valid_reward_accuracy"]
    margin = measures["margin"]["tuned"] - measures["margin"]["base"]
    assert margin * finished.config().training.dpo.beta == pytest.approx(measured["full_valid_reward_margin"], rel=1e-3)
    assert any(f"on {wins['wins']} of {wins['pairs']} pairs (95% CI " in remark for remark in finished.remarks())
    loss, count = result["rows"][0]["sums"]["base"]["loss"]
    preferred = load_file(finished.reference)["logps"][20, 0]
    assert (loss, count > 0) == (pytest.approx(-preferred, rel=1e-4), True)
    assert [row["messages"][-1]["content"] for row in result["rows"]] == [f"{answer}" for _, answer in QUESTIONS[20:]]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"model__dtype": "bfloat16"}, {"model__quantization": "nf4"}], ids=str)
def test_bases_in_16_and_4_bits_begin_at_their_own_reference(settings: Settings, changes: dict[str, str]) -> None:
    """Rounding differs between packs that are read and packs that are trained: the first margin is noise around 0."""
    run, outcome = train(settings(training__n_epochs=4, **changes))
    assert outcome.exit_code is ExitCode.DONE
    first, *_, last = [row for row in run.metrics() if "train_reward_margin" in row]
    assert first["train_reward_margin"] == pytest.approx(0, abs=0.05)
    assert last["train_reward_margin"] > 0.2
