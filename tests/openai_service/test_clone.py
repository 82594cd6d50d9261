"""`trainer init --from`: a config that makes the job of an earlier run, or of an id, once more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openai_service.deviations import unexplained
from tests.openai_service.state import Job
from tests.openai_service.world import RUN, World, one_message, world, write_pairs
from trainer.config.load import load_config

WANDB = {"project": "bikes", "tags": ["one"]}
OWN = {"training_file", "validation_file", "metadata"}  # what a job has of its own


@pytest.fixture(params=["openai", "azure"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, request.param) as found:
        yield found
        assert unexplained(found.flavour, found.contract.findings) == []


def trained(made: World, **changes: Any) -> Job:
    """The job of a run that has ended, with settings of its own."""
    openai = {"wandb": WANDB} | ({"training_type": "GlobalStandard"} if made.flavour == "azure" else {})
    made.config(openai=openai, run={"suffix": "bikes"}, **changes)
    done = made.command("train", "--config", "config.yaml", "--yes")
    assert done.code == 0, done.err
    return next(iter(made.service.state.jobs.values()))


def again(made: World, *words: str) -> Job:
    """The job of the config that was written."""
    done = made.command("train", "--config", "again.yaml", "--yes", "--detach", "run.name=again", *words)
    assert done.code == 0, done.err
    return list(made.service.state.jobs.values())[-1]


def contents(made: World, job: Job) -> list[bytes]:
    keys = (job.training_file, job.validation_file or "")
    return [made.service.state.files[key].content for key in keys]


def asked(job: Job) -> dict[str, Any]:
    return {name: value for name, value in job.asked.items() if name not in OWN}


def test_a_run_s_settings_make_the_same_job_again(made: World) -> None:
    job = trained(made)
    done = made.command("init", "--from", RUN, "--output", "again.yaml")
    assert (done.code, done.out) == (0, "train --config again.yaml --check\n"), done.err
    before, now = made.run.config(), load_config(made.folder / "again.yaml")
    assert now == before.model_copy(update={"run": now.run})
    assert (now.run.name, now.run.suffix) == (None, "bikes")
    other = again(made)
    numbers = asked(job)["method"]["supervised"]["hyperparameters"]
    numbers["learning_rate_multiplier"] = job.learning_rate_multiplier  # the service's choice is a number now
    assert (asked(other), contents(made, other)) == (asked(job), contents(made, job))


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_job_s_settings_and_rows_make_the_same_job_again(method: str, made: World) -> None:
    changes: dict[str, Any] = {}
    if method == "dpo":
        write_pairs(made.folder)
        changes = {"training": {"method": "dpo"}, "model": {"base": "gpt-4.1-mini-2025-04-14"}}
    job = trained(made, **changes)
    rows = contents(made, job)
    for name in ("train.jsonl", "validation.jsonl", "config.yaml"):
        (made.folder / name).unlink()
    done = made.command("init", "--from", job.id, "--output", "again.yaml")
    assert (done.code, done.out) == (0, "train --config again.yaml --check\n"), done.err
    fetched = [made.folder / f"again.{role}.jsonl" for role in ("train", "validation")]
    assert [path.read_bytes() for path in fetched] == rows
    other = again(made)
    assert other.asked["method"]["type"] == method
    numbers = asked(job)["method"][method]["hyperparameters"]
    numbers["learning_rate_multiplier"] = job.learning_rate_multiplier
    if method == "dpo" and made.flavour == "openai":  # Azure does not tell a job's method
        numbers["beta"] = job.beta
    assert (asked(other), contents(made, other)) == (asked(job), rows)


def test_other_rows_take_the_place_of_those_that_are_gone(made: World) -> None:
    job = trained(made)
    made.service.state.files.clear()
    done = made.command("init", "--from", job.id, "--output", "again.yaml")
    assert [error.split(": ")[1] for error in done.errors] == ["--data", "--validation"]
    assert (done.code, (made.folder / "again.yaml").exists()) == (2, False)
    words = ("--data", "train.jsonl", "--validation", "validation.jsonl")
    assert made.command("init", "--from", job.id, "--output", "again.yaml", *words).code == 0
    data = load_config(made.folder / "again.yaml").data
    assert (data.train, data.validation) == ("train.jsonl", "validation.jsonl")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "ftjob-unknown"), "--from: 'ftjob-unknown' is not a job of "),
        (("--from", "unknown"), "unknown"),
        (("--from", "ftjob-unknown", "--base", "m"), "--base: is given beside --from, which decides it"),
        (("--from", "ftjob-unknown", "--sample"), "--sample: is given beside --from, which decides it"),
    ],
)
def test_a_source_that_is_none_is_told_and_nothing_is_written(words: tuple[str, ...], said: str, made: World) -> None:
    before = sorted(made.folder.iterdir())
    done = made.command("init", *words)
    assert done.code == 2
    assert said in one_message(done)
    assert sorted(made.folder.iterdir()) == before


def test_a_config_that_exists_is_not_replaced(made: World) -> None:
    job = trained(made)
    for source in (RUN, job.id):
        message = one_message(made.command("init", "--from", source, "--output", "config.yaml"))
        assert message.startswith("error: config.yaml: exists already, expected a new file")


def test_a_job_of_another_method_is_refused(made: World) -> None:
    if made.flavour == "azure":
        pytest.skip("does not tell a job's method")
    job = trained(made)
    job.method = "reinforcement"  # whose grader nobody asks for here
    message = one_message(made.command("init", "--from", job.id))
    assert (
        message == f"error: --from: the job {job.id} was trained with 'reinforcement', expected 'supervised' or 'dpo'"
    )
    made.contract.findings.clear()
