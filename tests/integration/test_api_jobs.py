"""Fine-tuning jobs by the methods of OpenAI's own SDK: what is asked for is trained, and told as the service tells it.

Validation and training happen in this process, when a test says so: no other process is started.
"""

import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from rich.console import Console

from tests.api_server import TINY, ApiServer, api_server
from tests.conftest import QUESTIONS
from tests.waiting import until
from trainer.api import jobs as routes
from trainer.api.admission import OFFICE, admit
from trainer.api.job import Job, held, job_by_id, shared_file
from trainer.api.results import pack
from trainer.api.settings import BaseOffer
from trainer.backends.choose import choose
from trainer.backends.contract import Screen
from trainer.errors import ExitCode
from trainer.runs import Run, flock
from trainer.runs.queue import Queue
from trainer.training.trackers import wandb_variables

OFFERS = {
    TINY: BaseOffer(base=TINY, overrides=("lora.r=4", "training.learning_rate=0.005", "evaluation.enabled=false")),
    "broken": BaseOffer(base=TINY, overrides=("lora.rank=4",)),
}


def chat_rows(first: int, last: int) -> bytes:
    rows = [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
        for ask, answer in QUESTIONS[first:last]
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pairs(first: int, last: int) -> bytes:
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": ask}]},
            "preferred_output": [{"role": "assistant", "content": answer}],
            "non_preferred_output": [{"role": "assistant", "content": "Who knows."}],
        }
        for ask, answer in QUESTIONS[first:last]
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    root = tmp_path_factory.mktemp("runs")
    office = flock.take(shared_file(root, OFFICE))
    assert office is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queue, "start_worker", lambda queue: False)
        with api_server(root, bases=OFFERS) as server:
            yield server
    os.close(office)


@pytest.fixture(scope="module")
def file_of(served: ApiServer) -> Callable[..., str]:
    def upload(content: bytes, name: str = "rows.jsonl", owner: str = "ann") -> str:
        return served.client(owner).files.create(file=(name, content), purpose="fine-tune").id

    return upload


@pytest.fixture(scope="module")
def rows(file_of: Callable[..., str]) -> str:
    return file_of(chat_rows(0, 20))


def root_of(served: ApiServer) -> Path:
    return served.server.studio.root


def job_of(served: ApiServer, id_: str) -> Job:
    job = job_by_id(root_of(served), id_)
    assert job is not None
    return job


def validate(served: ApiServer, id_: str) -> FineTuningJob:
    """What the process that validates does for this job."""
    admit(root_of(served), job_of(served, id_))
    return served.client(job_of(served, id_).owner).fine_tuning.jobs.retrieve(id_)


def train(served: ApiServer, id_: str) -> FineTuningJob:
    """What the process that the queue starts does for this job."""
    run = Run(root_of(served) / id_)
    backend = choose("local", Screen(Console(file=io.StringIO())))
    backend.resume(run, lambda message: None)
    assert backend.follow(run, lambda message: None).exit_code is ExitCode.DONE
    return served.client().fine_tuning.jobs.retrieve(id_)


def numbers(method: str, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"n_epochs": 2, "batch_size": 5, "learning_rate_multiplier": 5.0} | more
    return {"type": method, method: {"hyperparameters": settings}}


def state(job: FineTuningJob) -> str:
    return str(job.status)


@pytest.mark.parametrize(
    ("make", "method"),
    [(chat_rows, numbers("supervised")), (pairs, numbers("dpo", beta=0.3))],
    ids=["supervised", "dpo"],
)
def test_a_job_is_validated_queued_and_trained_and_its_results_are_files(
    served: ApiServer, file_of: Callable[..., str], make: Callable[[int, int], bytes], method: dict[str, Any]
) -> None:
    client, jobs = served.client(), served.client().fine_tuning.jobs
    train_id, held_id = file_of(make(0, 20)), file_of(make(20, 24))
    made = jobs.create(
        model=TINY, training_file=train_id, validation_file=held_id, method=method, seed=7, suffix="my test!",
        metadata={"team": "a"},
    )  # fmt: skip
    assert (state(made), made.fine_tuned_model, made.finished_at, made.result_files) == (
        "validating_files", None, None, [],
    )  # fmt: skip
    assert (made.model, made.seed, made.metadata, made.training_file, made.validation_file) == (
        TINY, 7, {"team": "a"}, train_id, held_id,
    )  # fmt: skip
    for file in (train_id, held_id):  # the job has a copy of its own
        client.files.delete(file)

    queued = validate(served, made.id)
    assert state(queued) == "queued"
    assert made.method is not None
    assert queued.method == made.method, "all numbers were asked for"
    assert [entry.run for entry in Queue(root_of(served)).entries()] == [made.id]

    done, run = train(served, made.id), Run(root_of(served) / made.id)
    name = f"ft:{TINY}:ann:my-test-:{made.id.removeprefix('ftjob-')}"
    assert (state(done), done.fine_tuned_model, done.error) == ("succeeded", name, None)
    assert done.trained_tokens == run.manifest().num_tokens * 2
    assert done.finished_at is not None
    assert run.config().training.method == ("dpo" if made.method.type == "dpo" else "sft")

    results = {found.filename: found for found in map(client.files.retrieve, done.result_files)}
    assert client.files.content(results["step_metrics.csv"].id).read() == (run.path / "results.csv").read_bytes()
    packed = client.files.content(results["adapter.zip"].id).read()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        found = {entry: archive.read(entry) for entry in archive.namelist()}
    kept = {path.relative_to(run.adapter).as_posix(): path for path in run.adapter.rglob("*") if path.is_file()}
    assert found == {place: path.read_bytes() for place, path in kept.items() if not path.name.startswith(".")}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= found.keys()
    again = root_of(served) / "again.zip"
    pack(run.adapter, again)
    assert again.read_bytes() == packed
    again.unlink()

    events = list(jobs.list_events(made.id))
    steps = [
        event.data["step"] for event in reversed(events) if event.type == "metrics" and isinstance(event.data, dict)
    ]
    assert steps == [int(row["step"]) for row in run.results()]
    assert len({event.id for event in events}) == len(events)
    assert [event.created_at for event in events] == sorted((event.created_at for event in events), reverse=True)
    assert (events[0].message, events[-1].message) == (
        "The job has successfully completed", f"Created fine-tuning job: {made.id}",
    )  # fmt: skip
    with jobs.with_streaming_response.list_events(made.id, extra_query={"stream": "true"}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    assert [FineTuningJobEvent.model_validate_json(line) for line in lines[:-1]] == events[::-1]

    kept_at = [int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")]
    checkpoints = list(jobs.checkpoints.list(made.id))
    assert [one.step_number for one in checkpoints] == sorted(kept_at, reverse=True)
    last = checkpoints[0]
    measured = {key: value for row in run.results() for key, value in row.items() if row["step"] == last.step_number}
    assert last.metrics.model_dump(exclude_none=True) == measured
    assert last.fine_tuned_model_checkpoint == f"{name}:ckpt-step-{last.step_number}"

    again_id = file_of(make(0, 20))
    further = jobs.create(
        model=last.fine_tuned_model_checkpoint, training_file=again_id, method={"type": made.method.type}
    )
    assert state(validate(served, further.id)) == "queued"
    assert job_of(served, further.id).run.config().model.base == f"{run.path.absolute()}@{last.step_number}"
    jobs.cancel(further.id)


def test_a_bad_file_fails_the_job_and_names_its_rows(served: ApiServer, file_of: Callable[..., str]) -> None:
    bad = b'{"messages": [{"role": "human", "content": "x"}]}\n'
    jobs = served.client().fine_tuning.jobs
    made = jobs.create(model=TINY, training_file=file_of(chat_rows(0, 12) + bad + bad, "mine.jsonl"))
    failed = validate(served, made.id)

    assert (state(failed), failed.fine_tuned_model) == ("failed", None)
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    head, *named, tail = failed.error.message.split("\n")
    assert head.startswith("The job failed due to an invalid training file. mine.jsonl:13: ROLE: ")
    assert [line.partition(" ")[0] for line in named] == ["mine.jsonl:14:"]
    assert tail == "all of them: findings.jsonl among the result files"
    content = served.client().files.content(failed.result_files[0]).text
    errors = [json.loads(line) for line in content.splitlines() if '"severity": "error"' in line]
    assert [(one["file"], one["line"], one["code"]) for one in errors] == [
        ("mine.jsonl", 13, "ROLE"), ("mine.jsonl", 14, "ROLE"),
    ]  # fmt: skip
    assert Queue(root_of(served)).entries() == []


def test_bad_validation_rows_are_the_validation_files(
    served: ApiServer, file_of: Callable[..., str], rows: str
) -> None:
    held = file_of(b'{"messages": []}\n', "held.jsonl")
    made = served.client().fine_tuning.jobs.create(model=TINY, training_file=rows, validation_file=held)
    error = validate(served, made.id).error
    assert error is not None
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")
    assert "held.jsonl:1: " in error.message


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "gpt-4.1-mini"}, "model", "model_not_available"),
    ({"model": f"ft:{TINY}:ann::18ec895f1ff4760f290dc09a"}, "model", "model_not_found"),
    ({"training_file": "file-unknown"}, "training_file", "file_not_found"),
    ({"validation_file": "../../etc/passwd"}, "validation_file", "file_not_found"),
    ({"seed": -1}, "seed", "invalid_value"),
    ({"suffix": ""}, "suffix", "invalid_value"),
    ({"extra_body": {"shuffle": True}}, "shuffle", "invalid_value"),
    ({"metadata": {"a" * 65: "b"}}, "metadata", "invalid_value"),
    ({"method": {"type": "reinforcement"}}, "method.type", "invalid_value"),
    ({"method": {"type": "supervised", "dpo": {}}}, "method", "invalid_value"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "invalid_value"),
    (
        {"method": numbers("dpo", beta=3.0)},
        "method.dpo.hyperparameters.beta",
        "invalid_value",
    ),
    ({"integrations": [{"type": "wandb", "wandb": {}}]}, "integrations.0.wandb.project", "invalid_value"),
]


@pytest.mark.parametrize(("change", "param", "code"), REFUSED, ids=[param for _, param, _ in REFUSED])
def test_what_no_job_can_be_is_refused_and_makes_none(
    served: ApiServer, rows: str, change: dict[str, Any], param: str, code: str
) -> None:
    client = served.client()
    before = [job.id for job in client.fine_tuning.jobs.list()]
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**({"model": TINY, "training_file": rows} | change))
    assert (refused.value.param, refused.value.code) == (param, code)
    assert [job.id for job in client.fine_tuning.jobs.list()] == before


def test_a_mistake_in_the_servers_yaml_is_the_servers(served: ApiServer, rows: str) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        served.client().fine_tuning.jobs.create(model="broken", training_file=rows)
    assert refused.value.code == "invalid_offer"
    assert "lora.rank" in refused.value.message


def test_nobody_sees_the_jobs_files_or_models_of_another_key(served: ApiServer, rows: str) -> None:
    made = served.client("ann").fine_tuning.jobs.create(model=TINY, training_file=rows)
    bob = served.client("bob").fine_tuning.jobs
    calls: list[Callable[[str], object]] = [
        bob.retrieve, bob.cancel, bob.pause, bob.resume, bob.list_events, bob.checkpoints.list,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(openai.NotFoundError) as refused:
            call(made.id)
        assert refused.value.code == "resource_not_found"
    assert list(bob.list()) == []
    with pytest.raises(openai.BadRequestError) as unknown:
        bob.create(model=TINY, training_file=rows)
    assert unknown.value.code == "file_not_found"
    assert state(served.client("ann").fine_tuning.jobs.cancel(made.id)) == "cancelled"


def test_lists_are_pages_of_the_newest_first_and_filter_by_metadata(
    served: ApiServer, file_of: Callable[..., str]
) -> None:
    jobs, file = served.client("bob").fine_tuning.jobs, file_of(chat_rows(0, 20), owner="bob")
    made = [
        jobs.create(model=TINY, training_file=file, metadata={"n": str(number % 2)} if number else None)
        for number in range(5)
    ]
    newest = [job.id for job in reversed(made)]
    first = jobs.list(limit=2)
    assert ([job.id for job in first.data], first.has_more) == (newest[:2], True)
    assert [job.id for job in first] == newest, "the SDK goes through all pages"
    odd = jobs.list(metadata={"n": "1"}, limit=1)
    assert [job.id for job in odd] == [made[3].id, made[1].id]
    plain = served.send("GET", "/v1/fine_tuning/jobs?metadata=null", name="bob")
    assert [job["id"] for job in json.loads(plain.body)["data"]] == [made[0].id]
    for job in made:
        jobs.cancel(job.id)


def test_a_key_has_no_more_jobs_and_tokens_than_its_quota(served: ApiServer, file_of: Callable[..., str]) -> None:
    jobs, file = served.client("small").fine_tuning.jobs, file_of(chat_rows(0, 10)[:900], owner="small")
    first = jobs.create(model=TINY, training_file=file, hyperparameters={"n_epochs": 50})
    with pytest.raises(openai.RateLimitError) as refused:
        jobs.create(model=TINY, training_file=file)
    assert refused.value.code == "job_quota_exceeded"
    jobs.cancel(first.id)
    jobs.cancel(jobs.create(model=TINY, training_file=file).id)


def test_a_repeated_request_makes_no_other_job(served: ApiServer, rows: str) -> None:
    jobs, answers = served.client().fine_tuning.jobs, list[str]()

    def ask() -> None:
        made = jobs.create(model=TINY, training_file=rows, extra_headers={"Idempotency-Key": "one"})
        answers.append(made.id)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 1
    with pytest.raises(openai.ConflictError):
        jobs.create(model=TINY, training_file=rows, seed=1, extra_headers={"Idempotency-Key": "one"})
    other = jobs.create(model=TINY, training_file=rows, extra_headers={"Idempotency-Key": "two"})
    assert [job.id for job in jobs.list(limit=2).data] == [other.id, answers[0]]
    for id_ in {other.id, *answers}:
        jobs.cancel(id_)


def test_a_waiting_job_is_paused_resumed_and_cancelled_once(served: ApiServer, rows: str) -> None:
    jobs, queue = served.client().fine_tuning.jobs, Queue(root_of(served))
    made = jobs.create(model=TINY, training_file=rows)
    with pytest.raises(openai.BadRequestError):
        jobs.pause(made.id)  # it is validated first
    validate(served, made.id)
    assert state(jobs.pause(made.id)) == "paused"
    assert queue.entries() == []
    assert state(jobs.resume(made.id)) == "queued"
    assert [entry.run for entry in queue.entries()] == [made.id]
    with pytest.raises(openai.BadRequestError):
        jobs.resume(made.id)
    ended = jobs.cancel(made.id)
    assert (state(ended), queue.entries()) == ("cancelled", [])
    assert ended.finished_at is not None
    for call in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError) as refused:
            call(made.id)
        assert "cancelled" in refused.value.message


def test_a_job_is_cancelled_while_it_is_validated(
    served: ApiServer, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = served.client().fine_tuning.jobs
    made = jobs.create(model=TINY, training_file=rows)
    job = job_of(served, made.id)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.2)
    with held(job):  # as the process that validates does
        assert state(jobs.cancel(made.id)) == "validating_files"
    assert state(validate(served, made.id)) == "cancelled"
    assert job.run.asked() is None


def test_azures_address_and_header_reach_the_same_jobs(served: ApiServer, rows: str) -> None:
    made = served.client(below="/openai/v1").fine_tuning.jobs.create(model=TINY, training_file=rows)
    found = served.http.send("GET", f"/openai/v1/fine_tuning/jobs/{made.id}", {"api-key": "key-of-ann"})
    assert json.loads(found.body)["id"] == made.id
    served.client().fine_tuning.jobs.cancel(made.id)
    until(lambda: state(served.client().fine_tuning.jobs.retrieve(made.id)) == "cancelled", "the end", 10)


def test_an_integration_names_the_run_at_its_tracker(served: ApiServer, rows: str) -> None:
    wandb = {"project": "own", "entity": "team", "name": "first", "tags": ["a", "b"]}
    jobs = served.client().fine_tuning.jobs
    made = jobs.create(model=TINY, training_file=rows, integrations=[{"type": "wandb", "wandb": wandb}])
    assert [one.wandb.model_dump() for one in made.integrations or ()] == [wandb]
    tracking = job_of(served, made.id).run.config().tracking
    assert (tracking.report_to, tracking.wandb.model_dump()) == (["wandb"], wandb)
    assert wandb_variables(tracking.wandb) == {"WANDB_PROJECT": "own", "WANDB_ENTITY": "team", "WANDB_TAGS": "a,b"}
    jobs.cancel(made.id)
