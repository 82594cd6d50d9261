"""The service itself, spoken to with the real SDK and nothing of ours in between."""

import csv
import io
import json
from collections.abc import Iterator

import pytest
from openai import AzureOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI, PermissionDeniedError
from openai import RateLimitError as TooMany
from openai.types import FileObject

from tests.loopback import Loopback
from tests.openai_service.contract import Contract, Finding, document
from tests.openai_service.deviations import unexplained, unseen
from tests.openai_service.service import KEY, OLD_VERSION, Service
from tests.openai_service.state import Flavour

MODEL = "gpt-4o-mini-2024-07-18"


def rows(count: int = 12, answer: str = "answer") -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"{answer} {n}"}]}
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


FOUND: dict[Flavour, list[Finding]] = {"openai": [], "azure": []}


class Served:
    """A service and the SDK's client of it, as an application makes one."""

    def __init__(self, flavour: Flavour, loopback: Loopback, service: Service, contract: Contract) -> None:
        self.service, self.loopback, self.contract, self.flavour = service, loopback, contract, flavour
        path = "/v1" if flavour == "openai" else "/openai/v1/"
        self.client = OpenAI(api_key=KEY, base_url=loopback.url + path, max_retries=0, timeout=10)
        self.training_type = {} if flavour == "openai" else {"trainingType": "GlobalStandard"}

    def upload(self, content: bytes) -> str:
        file = self.client.files.create(file=("train.jsonl", content), purpose="fine-tune")
        self.service.advance(10)
        return file.id

    def job(self, **more: object) -> str:
        made = {"model": MODEL, "training_file": self.upload(rows()), "extra_body": self.training_type} | more
        return self.client.fine_tuning.jobs.create(**made).id  # type: ignore[arg-type]


@pytest.fixture(params=["openai", "azure"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    contract = Contract(document())
    service = Service(request.param, watch=contract)
    with Loopback(service) as loopback:
        yield Served(request.param, loopback, service, contract)
    FOUND[request.param] += contract.findings
    assert unexplained(request.param, contract.findings) == []


def test_a_job_from_its_file_to_its_answers(served: Served) -> None:
    client, service = served.client, served.service
    hyperparameters = {"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 0.5}
    validation = served.upload(rows(10, "valid"))
    key = served.job(
        suffix="mine", seed=7, validation_file=validation, metadata={"run": "one"},
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )  # fmt: skip
    states = []
    while not states or states[-1] not in ("succeeded", "failed"):
        job = client.fine_tuning.jobs.retrieve(key)
        states += [] if states and states[-1] == job.status else [job.status]
        service.advance(1)
    first = ["validating_files", "queued"] if served.flavour == "openai" else ["pending"]
    assert states == [*first, "running", "succeeded"]
    assert (job.seed, job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (7, 2, 3)
    assert job.trained_tokens
    assert job.metadata == {"run": "one"}
    assert job.fine_tuned_model

    events = list(client.fine_tuning.jobs.list_events(key, limit=3))
    assert len(events) == len({event.id for event in events}) > 8, "pages hold every event once"
    assert [event.data["step"] for event in events if event.type == "metrics"] == list(range(8, 0, -1))  # type: ignore[index]
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(key, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [8, 4]
    result_files = job.result_files
    table = list(csv.DictReader(io.StringIO(client.files.content(result_files[0]).text)))
    assert [row["step"] for row in table] == [str(step) for step in range(1, 9)]
    assert ("validation_mean_token_accuracy" in table[0]) == (served.flavour == "azure")


def test_base_and_tuned_model_answer_differently_whole_and_streamed(served: Served) -> None:
    client, service = served.client, served.service
    key = served.job()
    service.advance(1000)
    tuned = client.fine_tuning.jobs.retrieve(key).fine_tuned_model
    names = {"base": MODEL, "tuned": str(tuned)}
    if served.flavour == "azure":
        with pytest.raises(NotFoundError, match="does not exist"):
            client.chat.completions.create(model=str(tuned), messages=[{"role": "user", "content": "question 3"}])
        for name, model in names.items():
            deploy(service, name, model)
        names = {"base": "base", "tuned": "tuned"}
    answers = {}
    for name, model in names.items():
        messages = [{"role": "user", "content": "question 3"}]
        whole = client.chat.completions.create(model=model, messages=messages)  # type: ignore[call-overload]
        pieces = client.chat.completions.create(
            model=model, messages=messages, stream=True, stream_options={"include_usage": True}
        )  # type: ignore[call-overload]
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == whole.choices[0].message.content
        answers[name] = text
    assert answers["tuned"] == "answer 3"
    assert answers["base"].startswith(f"I am {MODEL}")


def deploy(service: Service, name: str, model: str) -> None:
    from tests.openai_service.state import Deployment

    body = {"sku": {"name": "Standard", "capacity": 1}, "properties": {"model": {"name": model}}}
    now = service.state.clock.now
    service.state.deployments[name] = Deployment(name, body, now, now, "Succeeded")


def test_an_upload_in_parts_is_the_file(served: Served) -> None:
    content = rows(40)
    upload = served.client.uploads.upload_file_chunked(
        file=content, filename="big.jsonl", bytes=len(content), mime_type="application/jsonl", purpose="fine-tune",
        part_size=500,
    )  # fmt: skip
    assert upload.file is not None
    assert served.client.files.content(upload.file.id).content == content
    late = served.client.uploads.create(bytes=3, filename="a", mime_type="application/jsonl", purpose="fine-tune")
    served.service.advance(7300)
    with pytest.raises(BadRequestError, match="expired"):
        served.client.uploads.parts.create(late.id, data=b"abc")
    other = served.client.uploads.create(bytes=3, filename="a", mime_type="application/jsonl", purpose="fine-tune")
    assert served.client.uploads.cancel(other.id).status == "cancelled"


def test_a_job_is_paused_resumed_cancelled_and_leaves_what_it_made(served: Served) -> None:
    client, service = served.client, served.service
    key = served.job()
    with pytest.raises(BadRequestError, match="paused"):
        client.fine_tuning.jobs.pause(key)
    service.advance(8)
    client.fine_tuning.jobs.pause(key)
    service.advance(1)
    assert client.fine_tuning.jobs.retrieve(key).status == "paused"
    assert len(client.fine_tuning.jobs.checkpoints.list(key).data) == 1
    service.advance(100)
    assert client.fine_tuning.jobs.resume(key).status == "running"
    assert client.fine_tuning.jobs.cancel(key).status == "cancelled"
    with pytest.raises(BadRequestError, match="already completed"):
        client.fine_tuning.jobs.cancel(key)
    assert [(kept.kind, kept.bills) for kept in service.inventory()] == [("file", False), ("job", False)]


def test_bad_rows_fail_in_validation_or_processing(served: Served) -> None:
    client, service = served.client, served.service
    file = served.upload(rows().replace(b'"assistant"', b'"user"', 1))
    shown = client.files.retrieve(file)
    if served.flavour == "azure":
        assert (shown.status, "Example 1" in str(shown.status_details)) == ("error", True)
        return
    key = client.fine_tuning.jobs.create(model=MODEL, training_file=file).id
    service.advance(5)
    job = client.fine_tuning.jobs.retrieve(key)
    assert job.error is not None
    assert (job.status, job.error.code, job.error.param) == ("failed", "invalid_training_file", "training_file")


def test_harm_quota_retirement_and_a_closed_service_are_told(served: Served) -> None:
    client, service = served.client, served.service
    key = served.job(training_file=served.upload(rows(answer="harmful content for a test")))
    service.advance(5)
    job = client.fine_tuning.jobs.retrieve(key)
    assert job.status == "failed"
    assert job.error is not None
    assert "RAI checks" in job.error.message
    service.jobs.quota = 0
    with pytest.raises(TooMany, match="waiting or running"):
        served.job()
    service.jobs.quota, service.jobs.is_closed = 20, True
    with pytest.raises(PermissionDeniedError, match="may not create"):
        served.job()
    service.jobs.is_closed = False
    service.advance(3e7)
    with pytest.raises(BadRequestError, match="does not support fine-tuning"):
        served.job()


def test_files_and_models_are_deleted_but_no_model_that_is_deployed(served: Served) -> None:
    client, service = served.client, served.service
    key = served.job()
    service.advance(1000)
    tuned = str(client.fine_tuning.jobs.retrieve(key).fine_tuned_model)
    listed = {model.id for model in client.models.list()}
    assert {tuned, MODEL} <= listed
    if served.flavour == "azure":
        deploy(service, "one", tuned)
        with pytest.raises(ConflictError, match="deployed"):
            client.models.delete(tuned)
        service.state.deployments.clear()
    assert client.models.delete(tuned).deleted
    for file in client.files.list(purpose="fine-tune"):
        client.files.delete(file.id)
    if served.flavour == "azure":
        client.delete(f"/fine_tuning/jobs/{key}", cast_to=type(None))
        assert service.inventory() == []
    else:
        assert [kept.kind for kept in service.inventory()] == ["job"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"hyperparameters": {"n_epochs": "auto"}}, "expected numbers"),
        ({"method": {"type": "supervised"}}, "Unknown field 'method'"),
        ({"hyperparameters": {"n_epochs": 51}}, "n_epochs"),
        ({"suffix": "a" * 41}, "suffix"),
        ({"suffix": "a b"}, "suffix"),
        ({"model": "text-embedding-3-small"}, "does not support fine-tuning"),
        ({"training_file": "file-none"}, "no file"),
    ],
)
def test_an_old_api_version_takes_whole_numbers_and_little_else(asked: dict[str, object], words: str) -> None:
    contract = Contract(document())
    service = Service("azure", watch=contract)
    with Loopback(service) as loopback:
        client = AzureOpenAI(
            api_key=KEY, azure_endpoint=loopback.url, api_version=OLD_VERSION, max_retries=0, timeout=10
        )
        file = client.files.create(file=("train.jsonl", rows()), purpose="fine-tune")
        with pytest.raises(BadRequestError, match="not processed"):
            create(client, file.id, {})
        service.advance(10)
        create(client, file.id, {"hyperparameters": {"n_epochs": 2, "batch_size": -1}})
        with pytest.raises(BadRequestError, match=words):
            create(client, file.id, asked)
        deploy(service, "base", MODEL)
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "hello"}])
        client.delete(f"/files/{file.id}", cast_to=type(None))
    FOUND["azure"] += contract.findings
    assert unexplained("azure", contract.findings) == []


def create(client: OpenAI, file: str, asked: dict[str, object]) -> None:
    common = {"model": MODEL, "training_file": file, "extra_body": {"trainingType": "Standard"}}
    client.fine_tuning.jobs.create(**common | asked)  # type: ignore[arg-type]


def test_a_wrong_key_is_refused(served: Served) -> None:
    from openai import AuthenticationError

    with pytest.raises(AuthenticationError):
        served.client.with_options(api_key="another").models.list()


def test_a_file_is_fetched_from_an_address_on_azure(served: Served) -> None:
    served.service.files.web["https://account.blob.core.windows.net/c/train.jsonl?sig=x"] = rows()
    body = {"purpose": "fine-tune", "filename": "train.jsonl"}
    body["content_url"] = next(iter(served.service.files.web))
    if served.flavour == "openai":
        with pytest.raises(NotFoundError):
            served.client.post("/files/import", body=body, cast_to=object)
    else:
        imported = served.client.post("/files/import", body=body, cast_to=FileObject)
        assert served.client.files.content(imported.id).content == rows()


def test_every_known_deviation_did_occur() -> None:
    if document() is None:
        pytest.skip("TRAINER_SPECS does not lead to the OpenAPI document")
    if not all(FOUND.values()):
        pytest.skip("the tests above did not run in this process")
    assert unseen(FOUND) == []
