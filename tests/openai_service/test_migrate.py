"""`trainer migrate`: a job of the service becomes a run of one's own, and both answer the same rows."""

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Done
from tests.loopback import Fault, Kill, Request, status
from tests.openai_service.deviations import unexplained
from tests.openai_service.state import Job
from tests.openai_service.world import RUN, World, one_message, world, write_pairs
from trainer.config.openai import OpenAIConfig
from trainer.drafts.bases import ThisMachine
from trainer.inference.evaluation.result import readable
from trainer.migration.bases import Demand, fits
from trainer.migration.settings import translated
from trainer.runs import Run
from trainer.runs.ledger import Ledger

BASE = ("--base", "builtin:tiny")
ELSEWHERE = ("--endpoint", "https://api.openai.com/v1", "--model", "gpt-4.1-nano-2025-04-14")


@pytest.fixture
def openai(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, "openai") as found:
        yield found
        assert unexplained("openai", found.contract.findings) == []


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, "azure") as found:
        yield found
        assert unexplained("azure", found.contract.findings) == []


def trained(made: World, deploys: bool = False, **changes: Any) -> Job:
    """A job that has ended, whose rows and config are no longer here."""
    made.config(run={"suffix": "bikes"}, **changes)
    done = made.command("train", "--config", "config.yaml", "--yes")
    assert done.code == 0, done.err
    if deploys:
        assert made.command("deploy", RUN, "--yes").code == 0
    for name in ("train.jsonl", "validation.jsonl", "config.yaml"):
        (made.folder / name).unlink()
    return next(iter(made.service.state.jobs.values()))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def asked(made: World, model: str) -> list[Request]:
    """Chat requests to one model."""
    chats = [request for request in made.loopback.requests if request.path.endswith("/chat/completions")]
    return [request for request in chats if request.json()["model"] == model]


def moved(made: World, source: str, *words: str) -> Done:
    done = made.command("migrate", source, "--output", "moved", *words)
    assert done.code == 0, done.err
    return done


def test_from_a_job_to_a_page_and_again_without_a_second_bill(openai: World) -> None:
    job = trained(openai)
    source, before = str(job.fine_tuned_model), tree(openai.folder)
    rows = [openai.service.state.files[key].content for key in (job.training_file, str(job.validation_file))]

    checked = moved(openai, source, *BASE, "--check")
    assert "10 answers by" in checked.err
    assert tree(openai.folder) == before, "a check creates nothing"

    openai.loopback.requests.clear()
    done = moved(openai, source, *BASE, "--yes", "training.learning_rate_multiplier=4")
    folder, run = openai.folder / "moved", Run(openai.folder / "runs" / "moved")
    assert [(folder / f"{role}.jsonl").read_bytes() for role in ("train", "validation")] == rows
    training = run.config().training
    assert (training.n_epochs, training.batch_size, training.seed) == (job.n_epochs, job.batch_size, job.seed)
    result = readable(json.loads((folder / "comparison.json").read_bytes()), folder)
    assert result is not None
    questions = [request.json()["messages"] for request in asked(openai, source)]
    held_out = [json.loads(line)["messages"][:-1] for line in rows[1].splitlines()]
    assert sorted(map(json.dumps, questions)) == sorted(map(json.dumps, held_out)), "each row asked once"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert result["verdict"]["sentence"] in done.out
    assert result["verdict"]["sentence"][1:] in page
    assert str(run.adapter) not in page or (run.adapter / "adapter_model.safetensors").is_file()
    assert Ledger(folder).billing() == []

    openai.loopback.requests.clear()
    (folder / "comparison.json").unlink()
    moved(openai, source)
    again = json.loads((folder / "comparison.json").read_bytes())
    assert asked(openai, source) == []
    assert again["rows"] == result["rows"]
    killed_while_comparing(openai, source, folder)


def killed_while_comparing(made: World, source: str, folder: Path) -> None:
    """Ended at its seventh question, the command asks only what it has no answer to."""
    for name in ("answers.jsonl", "comparison.json"):
        (folder / name).unlink()
    made.loopback.requests.clear()
    process = made.start("migrate", source, "--output", "moved", *ELSEWHERE)
    made.loopback.kills = [Kill(lambda request: len(asked(made, source)) >= 7, after=False, pid=lambda: process.pid)]
    assert process.wait(timeout=120) == -signal.SIGKILL
    made.loopback.kills = []
    kept = [json.loads(line)["key"] for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert 1 <= len(kept) < 10
    made.loopback.requests.clear()
    moved(made, source, *ELSEWHERE)
    assert len(asked(made, source)) == 10 - len(kept)
    lines = [json.loads(line)["key"] for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert (len(lines), len(set(lines))) == (10, 10)


def test_preferences_of_azure_are_compared_through_a_deployment(azure: World) -> None:
    write_pairs(azure.folder)
    job = trained(azure, True, training={"method": "dpo"}, model={"base": "gpt-4.1-mini-2025-04-14"})
    deployment = next(iter(azure.service.state.deployments))
    config = azure.folder / "old.yaml"
    config.write_text(yaml.safe_dump({
        "model": {"base": "gpt-4.1-mini-2025-04-14"}, "data": {"train": "none"}, "backend": {"kind": "openai"},
        "openai": {"service": "azure", "input_price": 1.0, "output_price": 100.0},
    }))  # fmt: skip
    words = (*BASE, "--yes", "--config", "old.yaml", "--deployment", deployment)
    refused = azure.command("migrate", job.id, "--output", "moved", *words, "--cap", "0.001")
    assert one_message(refused).startswith("error: --cap: is 0.00, the quote is ")
    assert asked(azure, deployment) == []
    moved(azure, job.id, *words, "--cap", "5")
    run = Run(azure.folder / "runs" / "moved")
    assert (run.config().training.method, run.state) == ("dpo", "succeeded")
    assert len(asked(azure, deployment)) == 10
    assert "Verdict" not in (azure.folder / "moved" / "report.html").read_text(encoding="utf-8")


def test_what_is_not_handed_out_is_told_with_what_to_do(openai: World) -> None:
    job = trained(openai)
    validation = openai.service.state.files.pop(str(job.validation_file))
    (openai.folder / "mine.jsonl").write_bytes(openai.service.state.files[job.training_file].content)
    refusal = status(403, {"error": {"message": "Not allowed to download files of purpose: fine-tune"}})
    openai.loopback.faults = [Fault("kept back", _wants(job.training_file), answer=refusal, times=9)]
    done = openai.command("migrate", job.id, *BASE, "--check")
    told = one_message(done)
    assert (done.code, "Not allowed to download" in told, told.endswith("give the rows: --train FILE")) == (
        2,
        True,
        True,
    )
    assert not (openai.folder / "migrations").exists()
    shown = openai.command("migrate", job.id, "--bases", "--train", "mine.jsonl")
    assert shown.code == 0, shown.err
    assert f"not fetched: the job's validation file {validation.id} is gone: give it with --validation" in shown.err
    assert "size, context, licence and tool calls are not verified at the hub" in shown.err
    openai.contract.findings.clear()


def _wants(file: str) -> Any:
    return lambda request: request.path.endswith(f"/files/{file}/content")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ftjob-of-another-project",), "SOURCE: 'ftjob-of-another-project' is not among the jobs of api.openai.com"),
        (("ft:gpt-4o-mini:other::x",), "SOURCE: 'ft:gpt-4o-mini:other::x' is not among the jobs of api.openai.com"),
        (("gpt-4o-mini",), "SOURCE: is 'gpt-4o-mini', expected a job (ftjob-…) or a tuned model"),
    ],
)
def test_a_source_that_is_not_there_is_told_and_nothing_is_written(
    words: Sequence[str], said: str, openai: World
) -> None:
    before = tree(openai.folder)
    done = openai.command("migrate", *words, *BASE, "--yes")
    assert (done.code, said in one_message(done)) == (2, True), done.err
    assert tree(openai.folder) == before


def test_a_folder_of_something_else_is_left_alone(openai: World) -> None:
    job = trained(openai)
    (openai.folder / "moved").mkdir()
    (openai.folder / "moved" / "config.yaml").write_text("mine")
    before = tree(openai.folder)
    told = one_message(openai.command("migrate", job.id, *BASE, "--output", "moved", "--yes"))
    assert told.startswith("error: --output: 'moved' exists and is no migration's folder")
    assert tree(openai.folder) == before


JOB = {"id": "ftjob-1", "model": "gpt-4o-mini", "seed": 3, "fine_tuned_model": "ft:gpt-4o-mini:acme:bikes:1"}


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ({"n_epochs": 4, "batch_size": 2, "learning_rate_multiplier": 1.8}, {"learning_rate_multiplier": 1.8}),
        ({"n_epochs": 4, "batch_size": 2, "learning_rate_multiplier": 12.0}, {}),
        ({"n_epochs": 4, "batch_size": 2, "beta": 0.3}, {"dpo": {"beta": 0.3}, "method": "dpo"}),
    ],
)
def test_settings_are_carried_over_with_what_they_mean_here(numbers: dict[str, float], kept: dict[str, Any]) -> None:
    word = "dpo" if "beta" in numbers else "supervised"
    job = JOB | {"method": {"type": word, word: {"hyperparameters": numbers}}}
    rows = {"train": Path("train.jsonl")}
    sections, said = translated(job, OpenAIConfig(), "Qwen/Qwen2.5-7B-Instruct", "azureml", rows, "moved: it")  # type: ignore[arg-type]
    assert sections["training"] == {"method": "sft", "n_epochs": 4, "batch_size": 2, "seed": 3} | kept
    assert sections["model"] == {"base": "Qwen/Qwen2.5-7B-Instruct", "quantization": "nf4"}
    assert sections["run"] == {"name": "moved-it", "suffix": "bikes"}
    assert any("multiplies 2e-4" in line for line in said) == ("learning_rate_multiplier" in numbers)


def test_bases_are_held_against_rows_and_machine() -> None:
    fitting = {fit.base.name: fit.against for fit in fits(Demand(9000, True), ThisMachine("A100", 30 * 2**30))}
    assert fitting["Qwen/Qwen2.5-7B-Instruct"] == ()
    assert fitting["HuggingFaceTB/SmolLM2-135M-Instruct"] == (
        "the longest row has about 9,000 tokens",
        "its template writes no tool calls",
    )
    assert fitting["meta-llama/Llama-3.3-70B-Instruct"] == ("too large for this A100",)
