"""When another form of a model counts as the trained one."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CHATML, make_tokenizer, talk
from tests.families import family_tokenizer
from tests.manifests import data_file, manifest, rewrite
from trainer.data.render.rendering import Renderer
from trainer.errors import ConfigError
from trainer.inference.parity import Bounds, Drift, Observation, drift
from trainer.inference.probes import MAX_TOKENS, ProbeRows, probes_of, request_of, rows_of
from trainer.inference.reference import Losses, recorded_loss
from trainer.inference.trained import template_digest
from trainer.runs import Run

SAME = Drift(10, 0.0, 0.0, 0.0, 10, 2, 2, 0.0)
CHANGE = replace(SAME, mean_kl=1.0)
BOUNDS = Bounds(mean_kl=0.1, greedy_gap=0.5, loss=0.02, recorded_loss=0.1)


def said(*rows: list[float], answers: list[list[int]] | None = None) -> Observation:
    """One probe of as many tokens as rows of probabilities; its greedy answer has the same distributions."""
    logprobs = torch.tensor(rows).log()
    return Observation([logprobs], answers or [[int(row.argmax()) for row in logprobs]], [logprobs])


def test_a_model_does_not_drift_from_itself() -> None:
    model = said([0.5, 0.25, 0.25], [0.1, 0.1, 0.8])
    assert drift(model, model) == Drift(2, 0.0, 0.0, 0.0, 2, 1, 1, 0.0)


def test_drift_is_the_mean_divergence_in_nats() -> None:
    found = drift(said([0.5, 0.5], [0.5, 0.5]), said([0.25, 0.75], [0.5, 0.5]))
    of_first = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    assert found.mean_kl == pytest.approx(float(of_first) / 2, rel=1e-6)
    assert found.max_kl == pytest.approx(float(of_first), rel=1e-6)
    assert found.max_logprob_change == pytest.approx(float(torch.tensor(2.0).log()), rel=1e-6)


def test_the_gap_is_how_much_less_likely_the_other_answer_is_where_it_parts() -> None:
    trained = said([0.1, 0.9], [0.6, 0.4], [0.9, 0.1])
    other = said([0.1, 0.9], [0.4, 0.6], [0.9, 0.1])
    found = drift(trained, other)
    assert (found.num_same_answers, found.num_same_choice) == (0, 2)
    assert found.greedy_gap == pytest.approx(float(torch.tensor(0.6 / 0.4).log()), rel=1e-6)


def test_an_answer_that_ends_earlier_is_not_the_same() -> None:
    model = said([0.1, 0.9], [0.1, 0.9])
    assert drift(model, replace(model, answers=[[1]])).num_same_answers == 0


def test_what_is_not_finite_is_never_accepted() -> None:
    broken = replace(said([0.5, 0.5]), logprobs=[torch.tensor([[float("nan"), float("nan")]])])
    found = drift(said([0.5, 0.5]), broken)
    assert len(found.problems(replace(BOUNDS, mean_kl=float("inf"), greedy_gap=float("inf")), CHANGE)) == 2


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        (replace(SAME, mean_kl=0.1), []),
        (replace(SAME, mean_kl=0.2), ["drift is 2.00e-01 nats a token, expected at most 0.1"]),
        (replace(SAME, greedy_gap=0.5, num_same_answers=1), []),
        (
            replace(SAME, greedy_gap=0.51, num_same_answers=1),
            [
                "1 of 2 greedy answers differ, one by a token that is 0.51 nats less likely, expected at most 0.5",
            ],
        ),
    ],
)
def test_the_bounds_hold(found: Drift, problems: list[str]) -> None:
    assert found.problems(BOUNDS, CHANGE) == problems


def test_drift_may_not_undo_half_of_what_was_learned() -> None:
    learned_little = replace(SAME, mean_kl=0.01)
    assert replace(SAME, mean_kl=0.005).problems(BOUNDS, learned_little) == []
    (problem,) = replace(SAME, mean_kl=0.006).problems(BOUNDS, learned_little)
    assert (
        problem == "drift is 6.00e-03 nats a token where the fine-tuning changed 1.00e-02, expected at most 50% of that"
    )


def test_an_accepted_loss_is_accepted_in_drift_answers_and_loss_alike() -> None:
    found = replace(SAME, mean_kl=0.2, greedy_gap=3.0, num_same_answers=0)
    losses = Losses(recorded=1.0, run=1.0, export=1.2)
    accepting = BOUNDS.accepting(max_drift=None, loss=0.21)
    assert (found.problems(accepting, CHANGE), losses.problems(accepting)) == ([], [])
    both = BOUNDS.accepting(max_drift=0.15, loss=0.21)
    assert found.problems(both, CHANGE) == ["drift is 2.00e-01 nats a token, expected at most 0.15"]
    assert BOUNDS.accepting(max_drift=0.3, loss=None) == replace(BOUNDS, mean_kl=0.3)


def test_half_of_what_was_learned_must_be_kept_whatever_loss_is_accepted() -> None:
    (problem,) = replace(SAME, mean_kl=0.6).problems(BOUNDS.accepting(None, 9.0), CHANGE)
    assert "where the fine-tuning changed 1.00e+00, expected at most 50% of that" in problem


@pytest.mark.parametrize(
    ("losses", "problems"),
    [
        (Losses(recorded=1.0, run=1.05, export=1.06), []),
        (Losses(recorded=1.0, run=1.0, export=0.5), []),
        (
            Losses(recorded=1.0, run=1.05, export=1.08),
            ["the validation loss rises by 0.0300, from 1.0500 to 1.0800, expected by at most 0.02"],
        ),
        (
            Losses(recorded=1.0, run=1.2, export=1.2),
            [
                "the validation loss of the trained model is 1.2000 and was 1.0000 when it was trained, "
                "expected at most 0.1 between them",
            ],
        ),
    ],
)
def test_a_merge_is_held_against_the_run_in_its_own_number_format(losses: Losses, problems: list[str]) -> None:
    assert losses.problems(BOUNDS) == problems


def test_a_loss_that_is_not_finite_is_never_accepted() -> None:
    assert len(Losses(1.0, 1.0, float("nan")).problems(BOUNDS.accepting(None, 99.0))) == 1


def test_an_adapter_that_changes_nothing_is_merged_exactly() -> None:
    assert SAME.problems(BOUNDS, SAME) == []


def test_a_probe_compares_where_a_supervised_token_is_predicted() -> None:
    renderer = Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))
    row = talk(("user", "abc"), ("assistant", "de"), ("user", "f"), ("assistant", "g"), untrained=[1])
    (probe,) = probes_of(ProbeRows("rows", (row,)), renderer)
    (example,) = renderer.render(row)
    assert [example.labels[at + 1] for at in probe.positions] == [label for label in example.labels if label >= 0]
    assert list(probe.prompt) == renderer.prompt_ids(request_of(row, 3)["messages"])


def test_a_long_answer_is_compared_up_to_a_limit() -> None:
    renderer = Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))
    (probe,) = probes_of(ProbeRows("rows", (talk(("user", "a"), ("assistant", "b" * 500)),)), renderer)
    assert len(probe.positions) == MAX_TOKENS
    assert probe.positions[-1] == len(probe.ids) - 1


def test_rows_that_cannot_be_rendered_are_told() -> None:
    renderer = Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))
    with pytest.raises(ConfigError, match="rows: no row can be rendered"):
        probes_of(ProbeRows("rows", (talk(("user", "<|im_end|>"), ("assistant", "b")),)), renderer)


def run_of(folder: Path, **made_from: Any) -> Run:
    run = Run(folder)
    run.write_manifest(manifest(**made_from))
    return run


def test_held_out_rows_are_taken_before_training_rows(tmp_path: Path, write_rows: Any) -> None:
    from trainer.runs.files import sha256_of

    train, held_out = write_rows([("a", "b")] * 20), write_rows([("c", "d"), ("e", "f")], "valid.jsonl")
    data = (data_file(str(train), "train", sha256_of(train)), data_file(str(held_out), sha256=sha256_of(held_out)))
    rows = rows_of(run_of(tmp_path, data=data))
    assert (rows.source, len(rows.conversations)) == ("valid.jsonl", 2)
    held_out.write_text("{}")
    rows = rows_of(run_of(tmp_path, data=data))
    assert (rows.source, len(rows.conversations)) == ("train.jsonl", 8)


def test_without_its_data_a_run_is_asked_fixed_questions_under_its_system_prompt(tmp_path: Path) -> None:
    data = (data_file(str(tmp_path / "gone"), "train"),)
    rows = rows_of(run_of(tmp_path, data=data, system_prompt="Be brief."))
    assert rows.source.startswith("fixed questions")
    assert [row.messages[0].content for row in rows.conversations] == ["Be brief."] * 2


def test_a_loss_that_counts_empty_thoughts_is_not_held_against_one_that_does_not(tuned: Run, tmp_path: Path) -> None:
    """As of a run on Qwen 3 that was trained before the empty thought of its template was left out of the labels."""
    run = Run(shutil.copytree(tuned.path, tmp_path / "old"))
    kept = recorded_loss(run)
    assert kept is not None
    before = rewrite(run, fingerprint={"lora.r": 4}).fingerprint
    assert recorded_loss(run) == kept
    tokenizer = family_tokenizer("qwen-3")
    tokenizer.save_pretrained(run.adapter)
    rewrite(run, template_sha256=template_digest(tokenizer))
    assert recorded_loss(run) is None
    rewrite(run, fingerprint=before)
    assert recorded_loss(run) is not None
