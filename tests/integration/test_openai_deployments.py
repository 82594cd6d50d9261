"""Deployments of a tuned model on Azure: the real client of the control plane against a small one on 127.0.0.1."""

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.loopback import Fault, Loopback, Request, Response, status
from tests.manifests import LAUNCH, data_file, manifest, rewrite
from tests.tuning import MODEL
from trainer.backends.contract import DeploymentOptions
from trainer.backends.openai.backend import OpenAIService
from trainer.config.load import load_config
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.manifest import PinnedBase, RowCounts

TUNED = f"ft:{MODEL}:org::ftjob-1"


class ControlPlane:
    """Deployments by name. `states` is what a new one says at one look after the other."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.states = ["Creating", "Succeeded"]
        self.region = "Sweden Central"
        self.usages: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Response:
        name = request.path.rpartition("/")[2]
        assert request.headers["authorization"] == "Bearer managed"
        if name == "usages":
            assert request.path.endswith("/locations/swedencentral/usages")
            return Response(200, {"value": self.usages})
        if name == "resource":
            return Response(200, {"name": name, "kind": "OpenAI", "location": self.region, "properties": {}})
        assert request.path.startswith(
            "/subscriptions/sub/resourceGroups/group/providers/Microsoft.CognitiveServices/accounts/resource/deployments/"
        )
        match request.method:
            case "PUT":
                body = request.json()
                self.there[name] = body | {"id": request.path, "name": name}
                return Response(201, self.shown(name))
            case "DELETE":
                return Response(200 if self.there.pop(name, None) else 204)
        if name not in self.there:
            return Response(404, {"error": {"code": "NotFound", "message": "no such deployment"}})
        return Response(200, self.shown(name))

    def shown(self, name: str) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        made = self.there[name]
        return made | {"properties": made["properties"] | {"provisioningState": state}}


def quiet(message: str) -> None:
    return


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "all.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


@pytest.fixture
def management(plane: ControlPlane, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The control plane, with an identity of this machine to sign in with."""

    def identity(request: Request) -> Response:
        token = {"access_token": "managed", "expires_on": "4102444800", "token_type": "Bearer"}
        return Response(200, token | {"resource": request.query["resource"]})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Loopback(identity) as signing, Loopback(plane, https=context) as service:
        for name, value in {
            "IDENTITY_ENDPOINT": f"{signing.url}/token", "IDENTITY_HEADER": "header",
            "REQUESTS_CA_BUNDLE": str(certificate), "TRAINER_PATIENCE_SECONDS": "3", "TRAINER_TIMEOUT_SECONDS": "5",
            "AZURE_OPENAI_API_KEY": "test-key", "AZURE_CLIENT_ID": "",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        for place in ("http", "idempotent", "openai.deploy", "openai.teardown"):
            monkeypatch.setattr(f"trainer.backends.{place}.FIRST_WAIT_SECONDS", 0.01)
        yield service


@pytest.fixture
def run(tmp_path: Path, management: Loopback) -> Run:
    """A run that has succeeded."""
    run = create_run(_config(tmp_path, management.url))
    run.write_manifest(manifest(base=PinnedBase(MODEL, None, None), launch=LAUNCH))
    run.set_status("succeeded", fine_tuned_model=TUNED, job="ftjob-1")
    return run


def _config(folder: Path, url: str) -> RunConfig:
    file = folder / "config.yaml"
    file.write_text(
        f"model: {{base: {MODEL}}}\ndata: {{train: rows.jsonl}}\nbackend: {{kind: openai}}\n"
        "openai: {service: azure, base_url: 'https://resource.openai.azure.com', subscription: sub, "
        f"resource_group: group, management_url: '{url}'}}\nrun: {{root: {folder}/runs, name: one}}\n"
    )
    return load_config(file)


def plan(run: Run, **options: Any) -> Any:
    return OpenAIService().plan_deployment(run, run.config(), DeploymentOptions(**options), quiet)


def test_a_deployment_is_made_once_and_removed(run: Run, plane: ControlPlane) -> None:
    backend = OpenAIService()
    endpoint = backend.deploy(plan(run, sku="standard", capacity=10), run, quiet)
    assert (endpoint.name, endpoint.state, endpoint.model) == ("one", "Succeeded", TUNED)
    made = plane.there["one"]
    assert made["sku"] == {"name": "Standard", "capacity": 10}
    assert made["properties"]["model"] == {"format": "OpenAI", "name": TUNED, "version": "1"}
    [billing] = Ledger(run.path).billing()
    assert billing.thing.bills == "1.70 USD an hour until it is deleted"
    assert [found.state for found in backend.endpoints(run, quiet)] == ["Succeeded"]
    backend.teardown(run, False, quiet)
    assert plane.there == {}
    assert Ledger(run.path).billing() == []


def test_the_ledger_tells_of_a_deployment_without_asking_the_service(run: Run, management: Loopback) -> None:
    backend = OpenAIService()
    for sku, name in (("standard", "one"), ("developer", "two")):
        backend.deploy(plan(run, sku=sku, name=name), run, quiet)
    asked = list(management.requests)
    standard, developer = backend.known_endpoints(run)
    assert management.requests == asked
    assert (standard.state, standard.hourly, standard.deletes_at) == ("exists, by the ledger", 1.7, "")
    assert (developer.hourly, developer.cost) == (0.0, "tokens only")
    made, deleted = (datetime.datetime.fromisoformat(at) for at in (developer.made_at, developer.deletes_at))
    assert deleted - made == datetime.timedelta(hours=24)
    by_service = backend.endpoints(run, quiet)
    assert [replace(found, state="", so_far=None) for found in by_service] == [
        replace(found, state="", so_far=None) for found in (standard, developer)
    ]


def test_a_key_is_the_environments_or_there_is_none_and_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    one = Thing("openai", "deployment", "one", "/the/account")
    none = OpenAIService().key(run, one)
    assert none.value is None
    assert "Microsoft Entra ID, so that no key exists here; get a token with: az account" in none.words
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "secret-of-the-test")
    key = OpenAIService().key(run, one)
    assert (key.value, key.words) == ("secret-of-the-test", "the value of AZURE_OPENAI_API_KEY on this machine")
    assert "secret" not in repr(key)


def test_the_price_and_the_end_are_said_before(run: Run) -> None:
    standard, developer = plan(run, sku="standard"), plan(run, sku="developer")
    assert standard.quote.total == 1.7
    assert developer.quote.total == 0.0
    assert dict(standard.rows)["ends"].startswith("Azure deletes it after 15 days without an answer")
    assert dict(developer.rows)["ends"].startswith("Azure deletes it 24 hours after it is made")


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("code", [500, 408, 429])
def test_a_lost_answer_makes_no_second_deployment(
    code: int, commits: bool, run: Run, plane: ControlPlane, management: Loopback
) -> None:
    planned = plan(run)
    put = Fault("lost", match=lambda request: request.method == "PUT", commits=commits, answer=status(code))
    management.faults = [put]
    OpenAIService().deploy(planned, run, quiet)
    assert list(plane.there) == ["one"]
    puts = [request for request in management.requests if request.method == "PUT"]
    assert len(puts) == (2 if not commits or code == 429 else 1)


def test_a_foreign_deployment_is_never_replaced(run: Run, plane: ControlPlane) -> None:
    plane.there["one"] = {"name": "one", "properties": {"model": {"name": "gpt-4o"}}, "tags": {}}
    with pytest.raises(ConfigError, match="is not this run's, expected a new name"):
        plan(run)


def test_one_that_azure_has_deleted_is_written_down(run: Run, plane: ControlPlane) -> None:
    backend = OpenAIService()
    backend.deploy(plan(run), run, quiet)
    plane.there.clear()
    assert backend.endpoints(run, quiet) == []
    assert Ledger(run.path).open() == []


def test_a_failed_deployment_says_so_and_stays_in_the_ledger(run: Run, plane: ControlPlane) -> None:
    plane.states = ["Creating", "Failed"]
    with pytest.raises(BackendError, match="is Failed, expected Succeeded"):
        OpenAIService().deploy(plan(run), run, quiet)
    assert len(Ledger(run.path).billing()) == 1


def test_a_missing_role_is_named(run: Run, management: Loopback) -> None:
    planned = plan(run)
    management.faults = [Fault("403", match=lambda request: request.method == "PUT", answer=status(403))]
    with pytest.raises(BackendError, match="needs the role Foundry Owner"):
        OpenAIService().deploy(planned, run, quiet)
    assert Ledger(run.path).open() == []


def test_what_is_for_another_service_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"--mode: is for Azure ML[\s\S]*--sku: is 'huge', expected one of developer"):
        plan(run, mode="vllm", sku="huge")


def test_nothing_needs_deploying_on_openai(run: Run) -> None:
    config = run.config()
    own = config.model_copy(update={"openai": config.openai.model_copy(update={"service": "openai"})})
    with pytest.raises(ConfigError, match="nothing needs deploying here"):
        OpenAIService().plan_deployment(run, own, DeploymentOptions(), quiet)


def test_the_comparison_is_quoted_with_the_deployment_unless_its_rows_have_changed(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "held_out.jsonl"
    rows.write_text(
        "".join(
            f'{{"messages": [{{"role": "user", "content": "q{n}"}}, {{"role": "assistant", "content": "a{n}"}}]}}\n'
            for n in range(3)
        )
    )
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    rewrite(run, data=(data_file(str(rows), sha256=digest),), seed=1, rows=RowCounts(10, 3))
    config = run.config()
    named = config.model_copy(update={"openai": config.openai.model_copy(update={"base_deployment": "base"})})
    planned = OpenAIService().plan_deployment(run, named, DeploymentOptions(sku="standard"), quiet)
    assert planned.quote.lines()[1].startswith("comparison: 3 answers by base and tuned model")
    rows.write_text(rows.read_text().replace("q0", "another question"))
    said: list[str] = []
    planned = OpenAIService().plan_deployment(run, named, DeploymentOptions(sku="standard"), said.append)
    assert len(planned.quote.items) == 1
    assert "has changed since the run was made" in said[0]
