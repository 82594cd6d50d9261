"""A run's model behind an endpoint of the workspace twin: made once, tried, switched to, gone back from, torn down.

The endpoint's container is the scoring service of `azureml/score.py` in this process, on the model that was uploaded.
"""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml.constants._common import LROConfigurations

from tests.integration.azure_twin.fixtures import azure, here  # noqa: F401
from tests.integration.azure_twin.twin import Twin
from tests.integration.azure_twin.world import REGION, WORKSPACE_ID
from tests.loopback import Fault, Loopback, Request, Response, status
from trainer.backends.azureml.backend import AzureML
from trainer.backends.contract import DeploymentOptions, Endpoint
from trainer.config import RunConfig
from trainer.dashboard.playground.sources import DEPLOYED, LOCAL, find_endpoint, sources_of, target_of
from trainer.errors import BackendError, ConfigError, ParityError
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.scoring import Scorer
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing

MESSAGES = [{"role": "system", "content": "You count."}, {"role": "user", "content": "What is number 5?"}]
MACHINE = "Standard_NC4as_T4_v3"
STORE = "workspaceblobstore"
PLACES = (WORKSPACE_ID, f"{WORKSPACE_ID}-two")  # the newer one last


class Containers:
    """What Azure ML starts for a deployment, and the door of every endpoint."""

    def __init__(self, twin: Twin, folder: Path) -> None:
        self.twin, self.folder, self.scorers = twin, folder, dict[str, Scorer]()
        self.state, self.log = "Succeeded", ""
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.asked: list[Request] = []

    def start(self, path: str) -> Callable[[], str]:
        if path not in self.scorers and self.state == "Succeeded":
            model = self.twin.arm.resources[path]["properties"]["model"].removeprefix("azureml:")
            name = "/".join(model.split("/workspaces/")[1].split("/")[1:])
            uri = self.twin.arm.resources[name]["properties"]["modelUri"]
            target = self.folder / str(len(self.scorers)) / "model" / "1" / "adapter"
            self.twin.blobs.download(self.twin.arm.containers[STORE], uri.partition("/paths/")[2], target)
            self.scorers[path] = Scorer(target, Limits(max_requests=4, max_tokens=200))
        return lambda: self.state

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        endpoint = f"onlineEndpoints/{request.host.partition('.')[0]}"
        if request.headers.get("authorization") != f"Bearer {self.twin.arm.keys[endpoint]['primaryKey']}":
            return Response(401, {"error": {"message": "the key is wrong"}})
        traffic = self.twin.arm.resources[endpoint]["properties"]["traffic"]
        chosen = request.headers.get("azureml-model-deployment") or next(name for name in traffic if traffic[name])
        asked = request.json()
        streams = asked.pop("stream", False)
        scored = self.scorers[f"{endpoint}/deployments/{chosen}"].score(json.dumps(asked).encode())
        if streams and scored.status == 200:
            return Response(200, as_stream(scored.body), {"Content-Type": "text/event-stream"})
        body = self.change(scored.body) if scored.status == 200 else scored.body
        return Response(scored.status, body, scored.headers)


def as_stream(answer: dict[str, Any]) -> bytes:
    """As vLLM sends it, in two pieces."""
    text = answer["choices"][0]["message"]["content"]
    parts = [{"choices": [{"delta": {"content": part}}]} for part in (text[:5], text[5:])]
    return b"".join(b"data: %s\n\n" % json.dumps(part).encode() for part in parts) + b"data: [DONE]\n\n"


@pytest.fixture
def containers(here: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Containers]:
    monkeypatch.setenv("TRAINER_POLLING_SECONDS", "0.2")
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "3")
    monkeypatch.setattr(LROConfigurations, "POLL_INTERVAL", 0.2)  # of the SDK's own thread, else 5
    made, over = Containers(here, tmp_path / "nodes"), threading.Event()
    here.arm.start_deployment, here.arm.deployment_log = made.start, lambda path: made.log
    hosts = f"*.{REGION}.inference.ml.azure.com"

    def time_passes() -> None:
        """At Azure what is under way goes on whether anyone looks or not."""
        while not over.wait(0.1):
            for operation in list(here.arm.operations.values()):
                with here.arm.lock:
                    operation.poll()

    with Loopback(made, here.proxy.authority.context(hosts)) as door:
        here.proxy.routes[hosts] = door.port
        thread = threading.Thread(target=time_passes)
        thread.start()
        yield made
        over.set()
        thread.join()


@pytest.fixture
def run(tuned: Run, tmp_path: Path) -> Run:
    """The finished run in a folder of its own, since its ledger is written."""
    shutil.copytree(tuned.path, tmp_path / "runs" / "tuned")
    return Run(tmp_path / "runs" / "tuned")


def settings_of(run: Run, **deployment: Any) -> RunConfig:
    values = run.config().model_dump()
    values["backend"] = {"kind": "azureml"}
    values["azureml"] = {
        "deployment": {"instance_type": MACHINE, "price_per_hour": 0.5, "max_tokens": 200} | deployment
    }
    return RunConfig.model_validate(values)


def deploy(run: Run, said: list[str] | None = None, name: str | None = None, **deployment: Any) -> Endpoint:
    backend, say = AzureML(), (said if said is not None else []).append
    plan = backend.plan_deployment(run, settings_of(run, **deployment), DeploymentOptions(name=name), say)
    return backend.deploy(plan, run, say)


def paths(twin: Twin, part: str) -> list[str]:
    return [path for path in twin.arm.inventory() if part in path]


def open_things(run: Run) -> list[tuple[str, str]]:
    return [(entry.thing.kind, entry.thing.key) for entry in Ledger(run.path).open()]


def test_a_run_is_registered_once_with_all_that_it_was_made_of(
    here: Twin,
    containers: Containers,
    run: Run,
) -> None:
    first = AzureML().register(run, settings_of(run), None, print)
    assert AzureML().register(run, settings_of(run), None, print) == first
    (path,) = paths(here, "models/")
    name, version = first.split(":")
    assert path == f"models/{name}/versions/{version}"
    properties = here.arm.resources[path]["properties"]
    assert properties["modelType"] == "custom_model"
    manifest = run.manifest()
    kept = properties["properties"]
    assert (kept["run"], kept["base"], kept["template_sha256"]) == (
        "tuned",
        "builtin:tiny",
        manifest.template_sha256,
    )
    assert kept["validation_data_sha256"] == manifest.data[1].sha256
    assert float(kept["valid_loss"]) == pytest.approx(run.results()[-1]["valid_loss"], rel=1e-5)
    assert here.arm.created.count(path) == 1
    assert open_things(run) == [("model", first)]


def test_from_nothing_to_answers_and_back_to_nothing(here: Twin, containers: Containers, run: Run) -> None:
    said: list[str] = []
    endpoint = deploy(run, said)
    assert endpoint.url == f"https://{endpoint.name}.{REGION}.inference.ml.azure.com/score"
    (deployment,) = paths(here, "/deployments/")
    body = here.arm.resources[deployment]["properties"]
    assert body["requestSettings"] == {"requestTimeout": "PT3M", "maxConcurrentRequestsPerInstance": 1}
    assert body["environmentVariables"]["TRAINER_EXPECTED_GPUS"] == "1"
    assert here.arm.resources[deployment.partition("/deployments")[0]]["properties"]["traffic"] == {
        deployment.rpartition("/")[2]: 100
    }
    assert "4 prompts of validation.jsonl have the tokens that were trained" in said
    assert "4 of 4 greedy answers are those of the model on this machine" in said

    client = AzureML().client(run, endpoint.name, base=False)
    answer = "".join(map(str, client.stream(MESSAGES, Sampling(max_tokens=30)))).strip()
    assert answer == TunedModel(run).tuned.answer(MESSAGES, Sampling(max_tokens=30))
    with pytest.raises(ConfigError, match="is not deployed, the scoring script has the tuned model only"):
        list(AzureML().client(run, endpoint.name, base=True).stream(MESSAGES, Sampling()))

    (listed,) = AzureML().endpoints(run, print)
    assert listed.state == "Succeeded, 100 % of the traffic"
    assert listed.cost.startswith("about 0.0")
    (known,) = AzureML().known_endpoints(run)
    assert (known.name, known.state, known.hourly) == (listed.name, "exists, by the ledger", listed.hourly)
    assert (known.url, listed.url) == (endpoint.url, endpoint.url)
    target = target_of(run, f"{DEPLOYED}{known.name}")
    assert f"{target.base_url}{target.path}" == endpoint.url
    key = AzureML().key(run, listed.thing)
    assert (key.value or "").startswith("key-")
    assert key.words == f"the primary key of {endpoint.name}"

    AzureML().teardown(run, everything=True, say=said.append)
    assert here.arm.inventory() == paths(here, "codes/")  # the SDK uploads it within the deployment's own call
    assert open_things(run) == []
    assert here.blobs.names(here.arm.containers[STORE], "LocalUpload/") == []
    before = len(here.service.requests)
    AzureML().teardown(run, everything=True, say=said.append)
    assert len(here.service.requests) == before


def test_a_deployment_of_another_workspace_outlives_its_namesake(here: Twin, run: Run) -> None:
    ledger = Ledger(run.path)
    things = [Thing("azureml", "deployment", "one/blue", place, "0.50 USD an hour") for place in PLACES]
    for thing in things:
        ledger.write(thing, "exists")
    titles = [f"{place.rpartition('/')[2]}/one/blue" for place in PLACES]
    assert [endpoint.name for endpoint in AzureML().known_endpoints(run)] == titles
    assert [place.value for place in sources_of(run).found] == [LOCAL, *(DEPLOYED + title for title in titles)]
    for title, thing in zip(titles, things, strict=True):
        assert (found := find_endpoint(run, title)) is not None
        assert found.thing == thing
        assert target_of(run, DEPLOYED + title).base_url.startswith("https://one.")
    for name in ("one", "one/blue"):
        with pytest.raises(ConfigError, match=f"'{name}' is in several workspaces, expected {' or '.join(titles)}"):
            AzureML().client(run, name, base=False)
    AzureML().remove(run, things[0], print)
    assert [endpoint.name for endpoint in AzureML().known_endpoints(run)] == ["one/blue"]
    assert [entry.thing.place for entry in ledger.open()] == [PLACES[1]]
    asked = {request.path.partition("/onlineEndpoints")[0] for request in here.service.requests}
    assert WORKSPACE_ID in asked
    assert PLACES[1] not in asked


@pytest.mark.long
def test_the_same_again_makes_nothing_and_another_one_leaves_the_old_for_going_back(
    here: Twin,
    containers: Containers,
    run: Run,
) -> None:
    deploy(run)
    made = list(here.arm.created)
    deploy(run)
    assert here.arm.created == made
    (old,) = (path.rpartition("/")[2] for path in paths(here, "/deployments/"))
    said: list[str] = []
    endpoint = deploy(run, said, max_tokens=100)
    names = [path.rpartition("/")[2] for path in paths(here, "/deployments/")]
    (new,) = set(names) - {old}
    traffic = here.arm.resources[f"onlineEndpoints/{endpoint.name}"]["properties"]["traffic"]
    assert {name: share for name, share in traffic.items() if share} == {new: 100}
    assert any(f'--traffic "{old}=100"' in line for line in said)
    assert any(f"az ml online-deployment delete -e {endpoint.name} -n {old} " in line for line in said)
    deploy(run)  # back to the first
    assert AzureML().client(run, endpoint.name, base=False).name == f"{endpoint.name}/{old}"
    there = Ledger(run.path).find("deployment", f"{endpoint.name}/{new}")
    assert there is not None
    AzureML().remove(run, there.thing, said.append)
    assert [path.rpartition("/")[2] for path in paths(here, "/deployments/")] == [old]
    assert [found.name for found in AzureML().known_endpoints(run)] == [f"{endpoint.name}/{old}"]
    AzureML().teardown(run, everything=False, say=said.append)
    assert here.arm.billing() == []
    assert paths(here, "onlineEndpoints") == []
    assert {kind for kind, _ in open_things(run)} == {"model", "environment", "code"}


@pytest.mark.slow
def test_a_deployment_that_fails_is_deleted_and_its_log_is_shown(
    here: Twin,
    containers: Containers,
    run: Run,
) -> None:
    containers.state, containers.log = "Failed", "loading\nOutOfMemoryError: no room\n"
    reason = "toomanyrequests: You have reached your pull rate limit."
    here.arm.deployment_error = {"code": "ImageBuildFailure", "message": reason}
    with pytest.raises(BackendError) as failed:
        deploy(run)
    text = str(failed.value)
    said = f"has failed: ImageBuildFailure: {reason.removesuffix('.')}"
    assert f"{said}; Docker Hub limits anonymous pulls: name a copy" in text
    assert "it was deleted and bills no more" in text
    assert "OutOfMemoryError: no room" in text
    assert here.arm.billing() == []
    containers.state = "Succeeded"
    deploy(run)
    assert len(here.arm.billing()) == 1


@pytest.mark.long
def test_where_a_failed_deployment_cannot_be_deleted_the_command_is_named(
    here: Twin,
    containers: Containers,
    run: Run,
) -> None:
    containers.state = "Failed"
    here.service.faults.append(Fault("403", lambda request: request.method == "DELETE", answer=status(403), times=9))
    with pytest.raises(BackendError, match="it still bills, as it could not be deleted") as failed:
        deploy(run)
    (path,) = here.arm.billing()
    _, endpoint, _, deployment = path.split("/")
    assert f"az ml online-deployment delete -e {endpoint} -n {deployment} --subscription" in str(failed.value)
    assert [entry.thing.kind for entry in Ledger(run.path).billing()] == ["deployment"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda body: body | {"usage": body["usage"] | {"prompt_tokens": 3}},
            "the endpoint counts 3 tokens in the prompt",
        ),
        (
            lambda body: body | {"choices": [{"message": {"content": "something else"}}]},
            "0 of 4 greedy answers are those of the model on this machine",
        ),
    ],
)
def test_another_model_than_the_run_s_gets_no_traffic_and_is_deleted(
    here: Twin,
    containers: Containers,
    run: Run,
    change: Any,
    reason: str,
) -> None:
    containers.change = change
    with pytest.raises(ParityError, match=reason) as failed:
        deploy(run)
    assert "it gets no traffic; it was deleted and bills no more" in str(failed.value)
    assert here.arm.billing() == []


def creates_a_deployment(request: Request) -> bool:
    return request.method == "PUT" and "/deployments/" in request.path


def creates_an_endpoint(request: Request) -> bool:
    return request.method == "PUT" and request.path.rpartition("/")[0].endswith("/onlineEndpoints")


@pytest.mark.long
@pytest.mark.parametrize("match", [creates_a_deployment, creates_an_endpoint])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset after", commits=True, broken="reset"),
        Fault("500 after", commits=True, answer=status(500)),
        Fault("503 with Retry-After", answer=status(503, Retry_After="0")),
        Fault("429", answer=status(429, Retry_After="0")),
    ],
    ids=lambda value: value.name,
)
def test_whatever_happens_to_a_creating_call_there_is_one(
    here: Twin,
    containers: Containers,
    run: Run,
    match: Any,
    fault: Fault,
) -> None:
    here.service.faults.append(fault.fresh(match))
    deploy(run)
    assert len(here.arm.billing()) == 1
    billing = [
        f"onlineEndpoints/{key.replace('/', '/deployments/')}" for kind, key in open_things(run) if kind == "deployment"
    ]
    assert billing == here.arm.billing()
    assert max(here.arm.created.count(path) for path in here.arm.created) == 1


@pytest.mark.long
def test_when_the_network_fails_the_deployment_stays_and_the_command_goes_on_with_it(
    here: Twin, containers: Containers, run: Run
) -> None:
    def reads_it(request: Request) -> bool:
        made = any(path.count("/deployments/") for path in here.arm.created)
        return made and request.method == "GET" and "/deployments/" in request.path

    here.service.faults.append(Fault("reset", reads_it, broken="reset", times=99))
    said: list[str] = []
    with pytest.raises(BackendError):
        deploy(run, said)
    assert len(here.arm.billing()) == 1
    assert any("continues by itself and bills; follow it: the same command again" in line for line in said)
    here.service.faults.clear()
    made = list(here.arm.created)
    deploy(run)
    assert here.arm.created == made


@pytest.mark.long
def test_vllm_gets_the_same_model_and_answers_in_pieces(here: Twin, containers: Containers, run: Run) -> None:
    said: list[str] = []
    endpoint = deploy(run, said, mode="vllm", max_requests=8)
    (path,) = paths(here, "/deployments/")
    body = here.arm.resources[path]["properties"]
    assert body["requestSettings"]["maxConcurrentRequestsPerInstance"] == 8
    assert body.get("codeConfiguration") is None
    assert (body["environmentVariables"]["TRAINER_GPUS"], body["environmentVariables"]["TRAINER_MAX_REQUESTS"]) == (
        "1",
        "8",
    )
    (environment,) = paths(here, "environments/azure-llm-trainer-vllm")
    routes = here.arm.resources[environment]["properties"]["inferenceConfig"]
    assert {name: (route["path"], route["port"]) for name, route in routes.items()} == {
        "livenessRoute": ("/health", 8000),
        "readinessRoute": ("/health", 8000),
        "scoringRoute": ("/", 8000),
    }
    pieces = list(AzureML().client(run, endpoint.name, base=False).stream(MESSAGES, Sampling(max_tokens=30)))
    assert len(pieces) == 2
    assert "".join(map(str, pieces)).strip() == TunedModel(run).tuned.answer(MESSAGES, Sampling(max_tokens=30))
    assert {request.path for request in containers.asked} == {"/v1/chat/completions"}
    with pytest.raises(BackendError):
        list(AzureML().client(run, endpoint.name, base=True).stream(MESSAGES, Sampling(max_tokens=3)))
    assert containers.asked[-1].json()["model"] == "builtin:tiny"


@pytest.mark.long
def test_an_endpoint_of_another_run_is_shared_and_left_to_it(
    here: Twin,
    containers: Containers,
    run: Run,
    tmp_path: Path,
) -> None:
    shutil.copytree(run.path, tmp_path / "runs" / "second")
    second = Run(tmp_path / "runs" / "second")
    deploy(run, name="support")
    deploy(second, name="support", max_tokens=100)
    assert {kind for kind, _ in open_things(second)} == {"model", "deployment", "environment"}
    said: list[str] = []
    AzureML().teardown(run, everything=True, say=said.append)
    assert paths(here, "onlineEndpoints") == [
        "onlineEndpoints/support",
        *(path for path in paths(here, "/deployments/")),
    ]
    assert len(here.arm.billing()) == 1
    assert any("the endpoint support stays: it still has score-" in line for line in said)
    assert any("stays: second uses it too" in line for line in said)


@pytest.mark.long
def test_no_key_is_written_and_no_call_goes_elsewhere(here: Twin, containers: Containers, run: Run) -> None:
    endpoint = deploy(run)
    list(AzureML().client(run, endpoint.name, base=False).stream(MESSAGES, Sampling(max_tokens=3)))
    key = here.arm.keys[f"onlineEndpoints/{endpoint.name}"]["primaryKey"].encode()
    assert not any(key in path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert here.proxy.refused == []


def test_everything_that_is_wrong_is_told_before_anything_is_made(
    here: Twin,
    containers: Containers,
    run: Run,
) -> None:
    options = DeploymentOptions(sku="standard", capacity=3, mode="tgi")
    values = settings_of(run, instance_type=None)
    with pytest.raises(ConfigError) as wrong:
        AzureML().plan_deployment(run, values, options, print)
    assert [problem.partition(":")[0] for problem in wrong.value.problems] == [
        "--sku",
        "--capacity",
        "--mode",
        "azureml.deployment.instance_type",
    ]
    with pytest.raises(ConfigError, match="--name: is 'a_b', expected 3 to 32 letters"):
        AzureML().plan_deployment(run, settings_of(run), DeploymentOptions(name="a_b"), print)
    AzureML().plan_deployment(run, settings_of(run), DeploymentOptions(), print)
    assert here.arm.created == []


@pytest.mark.parametrize(
    ("deployment", "limits", "reason"),
    [
        (
            {"instance_type": "Standard_NC6s_v3"},
            {},
            "NC6s_v3 was retired on 2025-09-30, expected a machine that is still",
        ),
        ({"instance_type": "Standard_NC4as_T4_v4"}, {}, "NC4as_T4_v4 is not offered in eastus, did you mean"),
        (
            {"instance_count": 2},
            {"Standard NCASv3_T4 Family": 11},
            "2 x Standard_NC4as_T4_v3 need 12 cores, and of Standard NCASv3_T4 Family 11 of 11 are free",
        ),
        ({"mode": "vllm", "instance_type": "Standard_DS3_v2"}, {}, "vllm needs a GPU, and Standard_DS3_v2 has none"),
        (
            {"instance_type": "Standard_NC128ds_xl_RTXPRO6000BSE_v6"},
            {},
            "has no code, expected an image with another build; deploy with --mode vllm, or choose another size",
        ),
        ({"tool_parser": "hermes"}, {}, "tool_parser, max_length and vllm_image are vLLM's"),
    ],
)
def test_a_machine_that_will_not_do_is_told_with_the_way_out(
    here: Twin, containers: Containers, run: Run, deployment: dict[str, Any], limits: dict[str, int], reason: str
) -> None:
    here.arm.limits = limits
    with pytest.raises(ConfigError, match=re.escape(reason)):
        AzureML().plan_deployment(run, settings_of(run, **deployment), DeploymentOptions(), print)
    assert here.arm.created == []


def test_the_price_comes_from_the_price_list_unless_it_is_given(here: Twin, containers: Containers, run: Run) -> None:
    listed = AzureML().plan_deployment(run, settings_of(run, price_per_hour=None), DeploymentOptions(), print).quote
    assert (listed.total, listed.source.partition(" on ")[0]) == (0.5, "prices.azure.com")
    own = AzureML().plan_deployment(
        run, settings_of(run, price_per_hour=0.25, instance_count=2), DeploymentOptions(), print
    )
    assert (own.quote.total, own.quote.source) == (0.5, "azureml.deployment.price_per_hour of the config")
    assert "bills around the clock until it is deleted, 12.00 USD a day" in own.quote.running[0]
