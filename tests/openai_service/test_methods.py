"""Methods of training and their trackers: what the service is sent, and what is refused before an upload."""

from pathlib import Path

import pytest

from tests.openai_service.deviations import unexplained
from tests.openai_service.state import Flavour
from tests.openai_service.world import World, one_message, world, write_pairs, write_rows

DPO = ("train", "--config", "config.yaml", "--yes", "model.base=gpt-4.1-mini-2025-04-14", "training.method=dpo")


@pytest.fixture(params=["openai", "azure"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    flavour: Flavour = request.param
    with world(tmp_path, flavour) as found:
        write_pairs(found.folder)
        yield found
        assert unexplained(flavour, found.contract.findings) == []


def uploads(made: World) -> list[str]:
    return [request.path for request in made.loopback.requests if request.method == "POST"]


def test_a_dpo_job_is_sent_in_the_service_s_words_and_learns_the_preferred_answers(made: World) -> None:
    done = made.command(*DPO, "training.dpo.beta=0.2")
    assert done.code == 0, done.err
    [job] = made.service.state.jobs.values()
    numbers = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": "auto", "beta": 0.2}
    assert job.asked["method"] == {"type": "dpo", "dpo": {"hyperparameters": numbers}}
    assert (made.run.state, job.method, len(job.rows)) == ("succeeded", "dpo", 12)
    assert made.difference() == ""
    training = made.run.config().training
    assert (training.method, training.dpo.beta) == ("dpo", 0.2)
    if made.flavour == "openai":  # there a tuned model answers at once, and is compared with its base
        assert made.run.comparison() is not None


def test_a_supervised_job_is_sent_as_such_and_without_beta(made: World) -> None:
    write_rows(made.folder)
    done = made.command("train", "--config", "config.yaml", "--yes")
    assert done.code == 0, done.err
    [job] = made.service.state.jobs.values()
    numbers = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": "auto"}
    assert job.asked["method"] == {"type": "supervised", "supervised": {"hyperparameters": numbers}}


def test_the_quote_says_that_the_price_of_a_pair_is_a_reading(made: World) -> None:
    done = made.command(*DPO, "--check")
    assert "the service does not publish how it bills a preference row" in " ".join((done.out + done.err).split())
    assert uploads(made) == []


def test_a_beta_that_the_service_has_chosen_comes_home(made: World) -> None:
    assert made.command(*DPO).code == 0
    expected = 0.1 if made.flavour == "openai" else "auto"  # Azure's jobs do not show their method
    assert made.run.config().training.dpo.beta == expected


@pytest.mark.parametrize(
    ("model", "method", "told"),
    [
        ("gpt-4o-mini-2024-07-18", "dpo", "training.method: is 'dpo', and gpt-4o-mini takes 'sft' ("),
        ("o4-mini-2025-04-16", "sft", "training.method: is 'sft', and o4-mini takes none that this trainer sends ("),
        ("o4-mini-2025-04-16", "dpo", "training.method: is 'dpo', and o4-mini takes none that this trainer sends ("),
    ],
)
def test_a_method_that_the_model_does_not_take_is_refused_before_an_upload(
    model: str, method: str, told: str, made: World
) -> None:
    if method == "sft":
        write_rows(made.folder)
    done = made.command(*DPO[:-2], f"model.base={model}", f"training.method={method}")
    assert (done.code, uploads(made), made.inventory()) == (2, [], [])
    message = one_message(done)
    assert message.startswith(f"error: {told}https://learn.microsoft.com/"), message
    assert "gpt-4.1-mini" in message


def test_rows_of_the_other_method_are_refused_before_an_upload(made: World) -> None:
    for method, code in (("sft", "PREFERENCE"), ("dpo", "PAIR_NEEDED")):
        done = made.command(*DPO[:-1], f"training.method={method}")
        assert [error.split(": ")[2] for error in done.errors] == [code, code]
        assert (done.code, uploads(made)) == (2, [])
        write_rows(made.folder)


def test_a_dated_api_has_no_word_for_dpo(tmp_path: Path) -> None:
    with world(tmp_path, "azure") as made:
        write_pairs(made.folder)
        message = one_message(made.command(*DPO, "openai.api_version=2024-10-21"))
        assert message.startswith("error: training.method: is 'dpo', which the API of 2024-10-21 has no word for")
        assert uploads(made) == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("loss=ipo", "loss: is 'ipo', expected 'sigmoid'"),
        ("label_smoothing=0.1", "label_smoothing: is 0.1, expected 0.0"),
        ("sft_weight=1", "sft_weight: is 1.0, expected 0.0"),
    ],
)
def test_a_setting_that_the_service_s_dpo_lacks_is_refused_before_an_upload(
    setting: str, told: str, made: World
) -> None:
    message = one_message(made.command(*DPO, f"training.dpo.{setting}"))
    reason = "on the openai backend: the service's dpo has no setting but beta; remove it, or train on this machine"
    assert message == f"error: training.dpo.{told} {reason}"
    assert uploads(made) == []


def test_the_quote_counts_the_prompt_with_each_answer(made: World) -> None:
    from trainer.backends.openai.prices import count
    from trainer.data.read.checks import check_files

    rows = check_files([made.folder / "train.jsonl"]).conversations
    both = count([branch for row in rows for branch in row.branches], "gpt-4.1-mini")
    counted = count(rows, "gpt-4.1-mini")
    assert counted.num_tokens == both.num_tokens
    assert counted.longest == both.longest


WANDB = {"project": "bikes", "entity": "me", "tags": ["one"]}


def test_a_project_of_weights_and_biases_is_passed_on(made: World) -> None:
    write_rows(made.folder)
    made.config(openai={"wandb": WANDB})
    assert made.command("train", "--config", "config.yaml", "--yes").code == 0
    [job] = made.service.state.jobs.values()
    assert job.asked["integrations"] == [{"type": "wandb", "wandb": WANDB}]
    assert made.run.config().openai.wandb.model_dump(exclude_defaults=True) == WANDB


def test_a_job_without_a_project_reports_to_none(made: World) -> None:
    write_rows(made.folder)
    assert made.command("train", "--config", "config.yaml", "--yes", "--detach").code == 0
    [job] = made.service.state.jobs.values()
    assert "integrations" not in job.asked


def test_the_stable_api_reports_to_none(tmp_path: Path) -> None:
    with world(tmp_path, "azure") as made:
        message = one_message(made.command(*DPO[:4], "openai.wandb.project=x", "openai.api_version=2024-10-21"))
        assert message.startswith("error: openai.wandb.project: is set, and the API of 2024-10-21 reports to none")
        assert uploads(made) == []
