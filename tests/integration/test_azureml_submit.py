"""Checking and submitting with the real SDK against a service on this machine: what is asked, sent, and how often."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from tests.commands import performed
from tests.entra import CREDENTIAL, LOGIN, SECRET, Entra
from tests.loopback import Fault, Loopback, Request, Response, status
from tests.proxy import Authority, Proxy
from trainer.backends import http, idempotent
from trainer.backends.azureml import workspace
from trainer.backends.azureml.backend import AzureML
from trainer.backends.azureml.job import JobRequest
from trainer.backends.azureml.submit import preview
from trainer.backends.azureml.workspace import find_place
from trainer.backends.contract import Plan
from trainer.backends.quote import Quote
from trainer.cli.documents.runs import Runs
from trainer.config import RunConfig
from trainer.config.load import dump_config
from trainer.dashboard.deployments.bills import read_bills
from trainer.errors import BackendError, ConfigError, DataError
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger
from trainer.runs.summary import Summary

ARM, BLOB, PRICES = "management.azure.com", "account.blob.core.windows.net", "prices.azure.com"
WS = "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"
LOCATION = "/subscriptions/s/providers/Microsoft.MachineLearningServices/locations/eastus"
HOURLY = 3.0
CANARY = "canary-personal-access-token"
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
SIZES = [
    {"name": "Standard_NC24ads_A100_v4", "family": "StandardNCADSA100v4Family", "vCPUs": 24, "gpus": 1},
    {"name": "Standard_NC4as_T4_v3", "family": "Standard NCASv3_T4 Family", "vCPUs": 4, "gpus": 1},
]


class Azure:
    """A workspace: what was put is there. `limit`: cores of a family; `actions`: what the caller may do."""

    def __init__(self) -> None:
        self.entra, self.kept = Entra(), dict[str, Any]()
        self.limit, self.actions, self.job_status = 100, ["*"], "Queued"
        self.bodies: list[bytes] = []
        self.started = datetime(2026, 1, 1, tzinfo=UTC)
        self.seconds, self.error = 60, ""  # that each job ran, and what ended it

    def __call__(self, request: Request) -> Response:
        self.bodies.append(request.body)
        match request.host.partition(":")[0]:
            case host if host == LOGIN:
                return self.entra(request)
            case host if host == BLOB:
                return self._blob(request)
            case host if host == PRICES:
                item = {"retailPrice": 4.0, "meterName": "A100", "productName": "VM", "unitOfMeasure": "1 Hour"}
                return Response(200, {"Items": [item], "NextPageLink": None})
        return self._arm(request, request.path.removeprefix(WS))

    def _blob(self, request: Request) -> Response:
        if request.query.get("comp") == "list":
            empty = b'<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>'
            return Response(200, empty, {"Content-Type": "application/xml"})
        if request.method in ("HEAD", "GET"):
            return Response(404)
        return Response(200 if request.query.get("comp") == "metadata" else 201)

    def _arm(self, request: Request, path: str) -> Response:
        known: dict[str, Any] = {
            "": {"name": "w", "location": "eastus", "properties": {"discoveryUrl": f"https://{ARM}/discovery"}},
            "/providers/Microsoft.Authorization/permissions": {"value": [{"actions": self.actions, "notActions": []}]},
            f"{LOCATION}/vmSizes": {"value": SIZES},
            f"{LOCATION}/usages": {"value": [self._usage(size["family"]) for size in SIZES]},
            "/datastores/workspaceblobstore": self._datastore(),
            "/datastores/workspaceblobstore/listSecrets": {"secretsType": "AccountKey", "key": "a2V5"},
        } | self.kept
        if request.method == "PUT":
            name = path.rpartition("/")[2]
            kind = {"id": f"{WS}{path}", "name": name, "type": "x"}
            properties = request.json()["properties"]
            more = {"status": self.job_status, "services": {}, "properties": {}} if "/jobs/" in path else {}
            self.kept[path] = kind | {"properties": properties | more}
            return Response(201, self.kept[path])
        if path.endswith("/cancel"):
            self.kept[path.removesuffix("/cancel")]["properties"]["status"] = "Canceled"
            return Response(200)
        if path.endswith("/startPendingUpload"):
            uri = f"https://{BLOB}/code"
            credential = {"credentialType": "SAS", "sasUri": f"{uri}?sig=x"}
            return Response(200, {"blobReferenceForConsumption": {"blobUri": uri, "credential": credential},
                                  "pendingUploadId": "x", "pendingUploadType": "TemporaryBlobReference"})  # fmt: skip
        if request.path == "/discovery":
            return Response(200, {"history": f"https://{ARM}"})
        if path.endswith("/details"):
            has_ended = self.kept[f"/jobs/{path.split('/')[-2]}"]["properties"]["status"] in ("Canceled", "Failed")
            end = (self.started + timedelta(seconds=self.seconds)).isoformat() if has_ended else None
            return Response(200, {"startTimeUtc": self.started.isoformat(), "endTimeUtc": end, "logFiles": {},
                                  "error": {"error": {"code": self.error, "message": "for a test"}}})  # fmt: skip
        if path in known:
            return Response(200, known[path])
        if path.endswith("/versions"):
            return Response(200, {"value": self._of_hash(request.query.get("hash"))})
        return Response(404, {"error": {"code": "NotFound", "message": f"{path} was not found"}})

    def _of_hash(self, wanted: str | None) -> list[Any]:
        """Code that was uploaded before, of the whole workspace: the name that is asked for is a new one."""
        made = [body for path, body in self.kept.items() if path.startswith("/codes/")]
        return [body for body in made if body["properties"]["properties"]["hash_sha256"] == wanted]

    def _usage(self, family: str) -> dict[str, Any]:
        return {"name": {"value": family}, "limit": self.limit, "currentValue": 0}

    def _datastore(self) -> dict[str, Any]:
        properties = {"datastoreType": "AzureBlob", "accountName": "account", "containerName": "c", "protocol": "https",
                      "endpoint": "core.windows.net", "credentials": {"credentialsType": "AccountKey"}}  # fmt: skip
        name = "workspaceblobstore"
        return {"id": f"{WS}/datastores/{name}", "name": name, "type": "x", "properties": properties}

    def jobs(self) -> list[str]:
        return sorted(path.rpartition("/")[2] for path in self.kept if path.startswith("/jobs/"))


@contextmanager
def a_workspace(folder: Path) -> Iterator[tuple[Azure, Loopback]]:
    """A workspace that the SDK reaches from this process while the context lasts."""
    authority, service = Authority(folder / "authority"), Azure()
    hosts = (ARM, LOGIN, BLOB, PRICES)
    loopback = Loopback(service, authority.context(*hosts))
    with (
        loopback,
        Proxy(authority, dict.fromkeys(hosts, loopback.port)) as proxy,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        variables = {"TRAINER_PATIENCE_SECONDS": "5", "TRAINER_TIMEOUT_SECONDS": "30"}
        for name, value in (proxy.environment() | CREDENTIAL | variables).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.01)
        monkeypatch.setattr(idempotent, "FIRST_WAIT_SECONDS", 0.01)
        monkeypatch.chdir(folder)
        workspace.credential.cache_clear()
        yield service, loopback
        workspace.credential.cache_clear()


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[tuple[Azure, Loopback]]:
    with a_workspace(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def first_launch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run that was launched once for all tests, and what its workspace then kept."""
    folder = tmp_path_factory.mktemp("launched")
    with a_workspace(folder) as (service, _):
        run = launched(config(folder))
        return run.path, service.kept


@pytest.fixture
def queued(azure: tuple[Azure, Loopback], first_launch: tuple[Path, dict[str, Any]], tmp_path: Path) -> Run:
    """A run of the test's own whose job waits in the workspace."""
    path, kept = first_launch
    azure[0].kept = copy.deepcopy(kept)
    shutil.copytree(path, tmp_path / "runs" / "one")
    return Run(tmp_path / "runs" / "one")


def config(folder: Path, **azureml: Any) -> RunConfig:
    (folder / "train.jsonl").write_text(ROW.replace('"b"', f'"{"long " * 9}"') * 1 + ROW, encoding="utf-8")
    place = {"subscription": "s", "resource_group": "r", "workspace": "w", "instance_type": "Standard_NC24ads_A100_v4"}
    return RunConfig.model_validate(
        {
            "model": {"base": "builtin:tiny"},
            "data": {"train": str(folder / "train.jsonl")},
            "backend": {"kind": "azureml"},
            "azureml": place | azureml,
            "run": {"name": "one", "root": str(folder / "runs")},
        }
    )


def quiet(message: str) -> None:
    return


def launched(settings: RunConfig) -> Run:
    """As the command does after a check, whose findings other tests look at."""
    request = JobRequest(find_place(settings.azureml), settings.azureml.instance_type, 1, 7200, HOURLY, "EUR")
    run = create_run(settings)
    AzureML().launch(Plan(settings, Quote([], ""), [], request), run, quiet)
    return run


def test_checking_creates_nothing_and_says_what_it_costs(azure: Any, tmp_path: Path) -> None:
    service, loopback = azure
    plan = AzureML().check(config(tmp_path), quiet)
    assert service.kept == {}
    asked = [request for request in loopback.requests if request.host.startswith((ARM, BLOB))]
    assert {request.path.rpartition("/")[2] for request in asked if request.method != "GET"} == {"listSecrets"}
    assert plan.quote.total is not None
    assert {check.what for check in plan.checks if check.outcome != "ok"} == {"driver"}
    assert "Standard_NC24ads_A100_v4" in plan.text


def test_preference_training_is_checked_and_sent_with_its_settings_and_pairs(azure: Any, tmp_path: Path) -> None:
    service, _ = azure
    settings = config(tmp_path)
    pair = {"input": {"messages": [{"role": "user", "content": "a"}]}} | {
        f"{name}_output": [{"role": "assistant", "content": name}] for name in ("preferred", "non_preferred")
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train with training\.method=dpo"):
        AzureML().check(settings, quiet)
    dpo = {"method": "dpo", "dpo": {"beta": 0.3, "loss": "ipo", "reference": "base"}}
    settings = RunConfig.model_validate(settings.model_dump(exclude_unset=True) | {"training": dpo})
    plan = AzureML().check(settings, quiet)
    assert plan.quote.total is not None
    launched(settings)
    sent = b"".join(service.bodies)
    assert json.dumps(pair).encode() in sent
    training = yaml.safe_load((Run(tmp_path / "runs" / "one").path / "config.yaml").read_text())["training"]
    assert (training["method"], training["dpo"]["beta"], training["dpo"]["loss"]) == ("dpo", 0.3, "ipo")
    assert b"loss: ipo" in sent, "the job's own config"


def test_everything_that_is_wrong_is_said_at_once(azure: Any, tmp_path: Path) -> None:
    service, _ = azure
    service.actions, service.limit = ["*/read"], 10
    settings = config(tmp_path, datastore="gone", instance_type="Standard_NC24ads_A100_v4", environment="azureml:e:1",
                      key_vault="https://kv.vault.azure.net", identity="user")  # fmt: skip
    (tmp_path / "train.jsonl").write_text(ROW + '{"messages": 1}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        AzureML().check(settings, quiet)
    places = [problem.split(":")[0] for problem in caught.value.problems]
    assert [place for place in places if place.startswith("azureml")] == [
        "azureml.identity", "azureml.workspace", "azureml.instance_count", "azureml.datastore", "azureml.environment",
    ]  # fmt: skip
    assert any("train.jsonl" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("azureml", "found"),
    [
        ({"instance_type": "Standard_NC24rs_v3"}, "was retired on 2025-09-30"),
        ({"instance_type": "Standard_NC24ads_A100_v5"}, "did you mean Standard_NC24ads_A100_v4?"),
        ({"instance_type": None}, "azureml.instance_type: is not set"),
        ({"compute": "gone", "instance_type": None}, "azureml.compute: 'gone' was not found"),
    ],
)
def test_a_machine_that_cannot_be_had_is_refused(azure: Any, tmp_path: Path, azureml: Any, found: str) -> None:
    azure[0].kept["/computes"] = {"value": []}
    with pytest.raises(ConfigError, match=found.replace("?", r"\?").replace("(", r"\(")):
        AzureML().check(config(tmp_path, **azureml), quiet)


def test_a_t4_has_no_bfloat16(azure: Any, tmp_path: Path) -> None:
    settings = config(tmp_path, instance_type="Standard_NC4as_T4_v3")
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"dtype": "bfloat16"})})
    with pytest.raises(ConfigError, match=r"model\.dtype: is 'bfloat16', which the T4 .* has not"):
        AzureML().check(settings, quiet)


def test_one_job_is_created_and_everything_is_in_the_ledger(azure: Any, queued: Run, first_launch: Any) -> None:
    service, _ = azure
    run = queued
    (job,) = service.jobs()
    open_things = [(entry.thing.kind, entry.step) for entry in Ledger(run.path).open()]
    assert sorted(open_things) == [(kind, "exists") for kind in ("code", "data", "environment", "job")]
    assert run.status() | {"state": "queued", "job": job, "backend": "azureml"} == run.status()
    assert Ledger(run.path).billing()[0].thing.delete_with == f"trainer cancel {first_launch[0]}"


def test_an_image_of_one_s_own_is_the_job_s_and_none_is_registered(azure: Any, tmp_path: Path) -> None:
    service, _ = azure
    settings = config(tmp_path, environment="azureml:own:1")
    text, _ = preview(settings, JobRequest(find_place(settings.azureml), settings.azureml.instance_type, 1, 7200))
    assert yaml.safe_load(text)["environment"] == "azureml:own:1"
    launched(settings)
    (job,) = service.jobs()
    assert service.kept[f"/jobs/{job}"]["properties"]["environmentId"] == f"{WS}/environments/own/versions/1"
    assert [path for path in service.kept if path.startswith("/environments")] == []


def test_nothing_secret_and_nothing_of_the_repository_is_sent(azure: Any, tmp_path: Path) -> None:
    service, _ = azure
    for name in (".env", "id_rsa"):
        (tmp_path / name).write_text(CANARY, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    address = f"https://user:{CANARY}@example.test/x.git"
    subprocess.run(["git", "remote", "add", "origin", address], cwd=tmp_path, check=True)
    service.bodies.clear()
    launched(config(tmp_path))
    sent = b"".join(service.bodies)
    assert CANARY.encode() not in sent
    assert b"example.test" not in sent
    login = b"".join(body for body in service.bodies if b"grant_type" in body)
    assert sent.count(SECRET.encode()) == login.count(SECRET.encode())


JOB = lambda request: request.method == "PUT" and "/jobs/" in request.path  # noqa: E731
FAULTS = [
    Fault("503 before", answer=status(503, Retry_After="0")),
    Fault("503 after", commits=True, answer=status(503, Retry_After="0")),
    Fault("500 after", commits=True, answer=status(500)),
    Fault("409 with Retry-After after", commits=True, answer=status(409, Retry_After="0")),
    Fault("reset after", commits=True, broken="reset"),
    Fault("429", answer=status(429, Retry_After="0")),
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=() if fault.broken else pytest.mark.long, id=fault.name) for fault in FAULTS],
)
def test_a_lost_answer_makes_no_second_job(azure: Any, tmp_path: Path, fault: Fault) -> None:
    service, loopback = azure
    loopback.faults = [fault.fresh(JOB)]
    launched(config(tmp_path))
    assert len(service.jobs()) == 1
    puts = sum(map(JOB, loopback.requests))
    assert puts == (1 if fault.commits else 2)


def test_azure_cores_own_retries_are_off(azure: Any, tmp_path: Path) -> None:
    _, loopback = azure
    fault = Fault("400 with Retry-After", answer=status(400, Retry_After="0"), times=9)
    loopback.faults = [fault.fresh(lambda request: request.method == "PUT" and "/environments/" in request.path)]
    with pytest.raises(BackendError, match="refused with 400"):
        launched(config(tmp_path))
    assert fault.times - loopback.faults[0].times == 1
    assert Run(tmp_path / "runs" / "one").state == "failed"


def test_a_refused_job_can_be_resumed_once_it_is_put_right(azure: Any, tmp_path: Path) -> None:
    service, loopback = azure
    loopback.faults = [Fault("403", answer=status(403)).fresh(JOB)]
    with pytest.raises(BackendError, match="lacks a role"):
        launched(config(tmp_path))
    run = Run(tmp_path / "runs" / "one")
    AzureML().resume(run, quiet)
    assert len(service.jobs()) == 1
    assert run.state == "queued"


def test_resuming_attaches_to_a_job_that_goes_on(azure: Any, queued: Run) -> None:
    service, loopback = azure
    run = queued
    loopback.requests.clear()
    AzureML().resume(run, quiet)
    assert len(service.jobs()) == 1
    assert [request.path for request in loopback.requests if request.method == "PUT"] == []


def ended(service: Azure, job: str, status: str) -> None:
    service.kept[f"/jobs/{job}"]["properties"]["status"] = status


def test_a_cancelled_run_bills_no_more_and_is_resumed_by_another_job(azure: Any, queued: Run) -> None:
    service, _ = azure
    run = queued
    (job,) = service.jobs()
    ended(service, job, "Canceled")
    AzureML().refresh(run, quiet)
    assert (run.state, Ledger(run.path).billing()) == ("cancelled", [])
    AzureML().resume(run, quiet)
    AzureML().resume(run, quiet)
    assert service.jobs() == [job, f"{job}-2"]
    first, second = (service.kept[f"/jobs/{name}"]["properties"] for name in service.jobs())
    assert first["outputs"]["run"]["uri"] == second["outputs"]["run"]["uri"]
    assert run.status()["attempt"] == 2


def printed(*words: str) -> str:
    """What a command prints of the runs, without asking the service."""
    with mock.patch("trainer.cli.documents.runs.refreshed", lambda run: run):
        return performed(words, lambda: 0.0).out


def cost_of(run: Run) -> tuple[float, str]:
    """Its cost so far with the currency, which the list of runs and the page tell alike."""
    (found,) = Runs.model_validate_json(printed("runs", "--root", str(run.path.parent), "--format", "json")).runs
    summary = Summary.of(run)
    assert (found.cost_so_far, found.currency) == (pytest.approx(summary.cost, abs=0.01), summary.currency)
    assert found.cost_so_far is not None
    return found.cost_so_far, summary.currency


def test_a_job_costs_from_its_start_to_its_end_at_the_price_that_was_quoted(
    azure: Any, queued: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = azure
    (job,) = service.jobs()
    assert cost_of(queued) == (0.0, "EUR"), "a job that waits costs nothing"
    service.kept[f"/jobs/{job}"]["properties"]["status"] = "Running"
    service.started = datetime.now(UTC) - timedelta(hours=2)
    AzureML().refresh(queued, quiet)
    AzureML().refresh(queued, quiet)
    assert cost_of(queued) == (pytest.approx(2 * HOURLY, abs=0.1), "EUR")
    (bill,) = read_bills(queued.path.parent).found
    assert (bill.hourly, bill.so_far) == (HOURLY, pytest.approx(2 * HOURLY, abs=0.1))
    assert "3.00 EUR an hour" in bill.words
    assert "cost so far  about 6.0" in printed("show", str(queued.path))
    monkeypatch.setenv("COLUMNS", "200")
    assert re.search(r" cost so far .*\n.* 6\.0\d EUR ", printed("runs", "--root", str(queued.path.parent)))
    ended(service, job, "Canceled")
    service.seconds = 1800
    AzureML().refresh(queued, quiet)
    assert cost_of(queued) == (HOURLY / 2, "EUR"), "it costs no more once it has ended"
    AzureML().resume(queued, quiet)
    ended(service, f"{job}-2", "Canceled")
    AzureML().refresh(queued, quiet)
    assert cost_of(queued) == (HOURLY, "EUR"), "each of its jobs costs"


def test_a_job_whose_history_cannot_be_read_costs_from_the_first_look_at_it_running(azure: Any, queued: Run) -> None:
    service, loopback = azure
    loopback.faults = [Fault("403", answer=status(403), times=99).fresh(lambda one: one.path.endswith("/details"))]
    (job,) = service.jobs()
    for word, has_begun in (("Queued", False), ("Running", True), ("Canceled", True)):
        service.kept[f"/jobs/{job}"]["properties"]["status"] = word
        AzureML().refresh(queued, quiet)
        entry = Ledger(queued.path).find("job")
        assert entry is not None
        assert (entry.facts["started_at"] is not None) == has_begun, word
    assert 0 < cost_of(queued)[0] < 0.5


def test_cancelling_ends_the_job_and_the_bill(azure: Any, queued: Run) -> None:
    _, loopback = azure
    run = queued
    AzureML().cancel(run, quiet)
    assert (run.state, Ledger(run.path).billing()) == ("cancelled", [])
    loopback.requests.clear()
    AzureML().cancel(run, quiet)
    assert [request.path for request in loopback.requests if request.path.endswith("/cancel")] == []
    assert run.state == "cancelled"


def test_attempts_share_the_time_limit(azure: Any, queued: Run) -> None:
    service, _ = azure
    run = queued
    (job,) = service.jobs()
    ended(service, job, "Canceled")
    service.seconds = 5400
    AzureML().resume(run, quiet)
    assert service.kept[f"/jobs/{job}-2"]["properties"]["limits"]["timeout"] == "PT30M"
    ended(service, f"{job}-2", "Canceled")
    with pytest.raises(ConfigError, match=r"its jobs have used 3\.0 of 2\.0 hours"):
        AzureML().resume(run, quiet)
    assert len(service.jobs()) == 2


@pytest.mark.parametrize(("most", "jobs", "state"), [(3, 2, "cancelled"), (1, 1, "paused")])
def test_a_lost_machine_is_answered_by_another_job_as_often_as_allowed(
    azure: Any, queued: Run, monkeypatch: pytest.MonkeyPatch, most: int, jobs: int, state: str
) -> None:
    service, _ = azure
    monkeypatch.setenv("TRAINER_POLLING_SECONDS", "0.05")
    run = queued
    settings = run.config()
    allowed = settings.model_copy(update={"azureml": settings.azureml.model_copy(update={"max_attempts": most})})
    (run.path / "config.yaml").write_text(dump_config(allowed), encoding="utf-8")
    ended(service, service.jobs()[0], "Failed")
    service.error, service.job_status = "PreemptionError", "Canceled"
    outcome = AzureML().follow(run, quiet)
    assert (len(service.jobs()), run.state) == (jobs, state)
    assert outcome.exit_code == (75 if state == "paused" else 1)


def test_a_job_that_somebody_deleted_is_replaced(azure: Any, queued: Run) -> None:
    service, _ = azure
    run = queued
    (job,) = service.jobs()
    del service.kept[f"/jobs/{job}"]
    AzureML().resume(run, quiet)
    assert service.jobs() == [f"{job}-2"]


def test_an_interrupted_launch_is_finished_with_the_same_job(azure: Any, queued: Run) -> None:
    """As after kill -9 between the answer and its line in the ledger."""
    service, _ = azure
    run = queued
    (job,) = service.jobs()
    ledger = run.path / "ledger.jsonl"
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if '"intended"' in line)
    ledger.write_text("".join(lines[: last + 1]), encoding="utf-8")
    AzureML().resume(run, quiet)
    assert service.jobs() == [job]
    assert [(entry.thing.kind, entry.step) for entry in Ledger(run.path).open()][-1] == ("job", "exists")


def test_pausing_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer cancel .* keeps its checkpoints, and trainer resume"):
        AzureML().pause(create_run(config(tmp_path)), quiet)
