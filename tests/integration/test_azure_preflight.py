"""The table of a preflight: each fault of a workspace ends one check as a problem, and costs nothing."""

import json
from collections.abc import Callable

import pytest

pytest.importorskip("azure.ai.ml")

from tests.commands import Done
from tests.first_contact import shape
from tests.integration.azure_twin import resources
from tests.integration.azure_twin.commands import World
from tests.integration.azure_twin.fixtures import azure, here
from tests.integration.azure_twin.journey import CLUSTER, MACHINE
from tests.integration.azure_twin.roles import BLOB_CONTRIBUTOR, SECRETS_USER
from tests.integration.azure_twin.twin import Twin
from tests.integration.azure_twin.workspaces import hub, identity_based, isolated, refusing
from tests.integration.azure_twin.world import ACCOUNT, GROUP_ID, SUBSCRIPTION
from tests.loopback import Fault, Request, status
from tests.preflight_page import PAGE, WORKSPACES, written_again
from trainer.backends.azureml import hub_base, preflight
from trainer.backends.azureml.deploy.base import BaseFacts, with_endpoint
from trainer.backends.azureml.workspace import connect, find_place
from trainer.config.azureml import AzureMLConfig
from trainer.runs.queue import Queue

pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["azure", "here"]

CHECK = ("train", "--config", "azure.yaml", "--check")
VAULT = "azureml.key_vault=https://kv.vault.azure.net"
STORAGE = f"{GROUP_ID}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
PRINCIPAL = "11111111-aaaa-bbbb-cccc-222222222222"
HUB_BASE = "model.base=someone/Model-1B"
EVERY_CHECK = [
    "workspace", "workspace kind", "public access", "run history", "rights to train", "rights to register",
    "rights to deploy", "compute", "machine", "image and GPU", "driver", "quota", "datastore credential",
    "datastore listing",
    "identity of the job", "the job's data", "image build", "network isolation", "base", "data", "base and memory",
    "disk",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(azure: Twin, tmp_path_factory: pytest.TempPathFactory) -> World:
    azure.start_over()
    return World(azure, tmp_path_factory.mktemp("preflight") / "user")


@pytest.fixture
def world(made: World) -> World:
    made.twin.start_over()
    made.twin.arm.add_compute(CLUSTER, MACHINE)
    return made


def checks(done: Done) -> dict[str, tuple[str, str]]:
    """Outcome and words of each check by its name."""
    assert done.code == 0, done.err
    told = json.loads(done.out)["checks"]
    assert len({check["what"] for check in told}) == len(told)
    return {check["what"]: (check["outcome"], check["found"]) for check in told}


def outcomes(done: Done) -> dict[str, str]:
    return {what: outcome for what, (outcome, _) in checks(done).items()}


def test_every_check_is_in_the_table_and_in_the_document(world: World) -> None:
    told = outcomes(world.command(*CHECK, "--format", "json"))
    assert sorted(told) == sorted(EVERY_CHECK)
    assert {what for what, outcome in told.items() if outcome != "ok"} == {"driver"}
    text = world.command(*CHECK)
    assert [what for what in told if f" {what}" not in text.err] == []
    assert text.out.splitlines()[-1].startswith("ready to train")
    assert world.twin.arm.inventory() == []


def test_the_page_shows_what_three_workspaces_answer(made: World) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [shown.title for shown in WORKSPACES]
    assert shape(written_again(text, made)) == shape(text), "python -m tests.preflight_page writes it again"


def test_price_stands_below_the_checks_and_files_only_on_demand(world: World) -> None:
    done, listed = world.command(*CHECK), world.command(*CHECK, "--files")
    lines = done.err.splitlines()
    price = next(number for number, line in enumerate(lines) if line.startswith("cost"))
    assert all(" ok " not in f" {line} " for line in lines[price:])
    assert "node.py" not in done.out + done.err
    assert "node.py" in listed.out
    files = json.loads(world.command(*CHECK, "--format", "json").out)["files"]
    assert [f"{file['bytes']:>14,}  {file['path']}" for file in files] == [
        line for line in listed.out.splitlines() if line in {f"{file['bytes']:>14,}  {file['path']}" for file in files}
    ]


def test_a_grid_of_jobs_waits_under_one_cap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    grid = ("sweep", "azure.yaml", "training.n_epochs=1,2", "--format", "json")
    checked = json.loads(world.command(*grid, "--check").out)
    total = checked["quote"]["total"]
    assert 0 < total == pytest.approx(sum(run["price"] for run in checked["runs"]))
    for words, said in (((), "--cap: is not given"), (("--cap", str(0.6 * total)), "--cap: is ")):
        refused = world.command(*grid, *words, "--yes")
        assert (refused.code, len(refused.errors), refused.out) == (2, 1, "")
        assert refused.errors[0].startswith(f"error: {said}")
    done = json.loads(world.command(*grid, "--cap", str(total)).out)
    assert (done["backend"], done["num_enqueued"], [run["state"] for run in done["runs"]]) == (
        "azureml", 2, ["queued", "queued"],
    )  # fmt: skip
    assert world.twin.arm.inventory() == []


def with_registry(**properties: object) -> Callable[[Twin], None]:
    def change(twin: Twin) -> None:
        twin.arm.roles.registries["images"] = properties
        twin.arm.workspace["properties"]["containerRegistry"] = twin.arm.roles.registry_id("images")

    return change


def readable_only(twin: Twin) -> None:
    twin.arm.identity_stores = True
    twin.arm.roles.my_data = ["*/read"]


def with_identity(*given: tuple[str, str], vault: dict[str, object] | None = None) -> Callable[[Twin], None]:
    def change(twin: Twin) -> None:
        twin.arm.add_compute(CLUSTER, MACHINE, principal=PRINCIPAL)
        twin.arm.identity_stores = vault is None
        twin.arm.roles.given = [(PRINCIPAL, scope, role) for scope, role in given]
        if vault is not None:
            twin.arm.roles.vaults["kv"] = vault

    return change


def user_assigned(*given: tuple[str, str]) -> Callable[[Twin], None]:
    """A cluster whose one identity is no identity of its own."""

    def change(twin: Twin) -> None:
        with_identity(*given)(twin)
        name = f"{GROUP_ID}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one"
        identity = {
            "type": "UserAssigned",
            "userAssignedIdentities": {name: {"principalId": PRINCIPAL, "clientId": "c"}},
        }
        twin.arm.resources[f"computes/{CLUSTER}"]["identity"] = identity

    return change


def blackwell(twin: Twin) -> None:
    """A cluster of GPUs that the default image has no code for, and an image of one's own."""
    twin.arm.add_compute("blackwell", "Standard_NC128ds_xl_RTXPRO6000BSE_v6")
    path, kind = "environments/own/versions/1", "workspaces/environments/versions"
    twin.arm.resources[path] = resources.version(path, kind, {"properties": {"image": "me.azurecr.io/own:1"}})


REFUSED = [
    (blackwell, ("azureml.compute=blackwell",), "image and GPU", "has the GPU RTX PRO 6000"),
    (hub, (), "workspace kind", "is a Hub, expected one of its projects: project-one"),
    (isolated("AllowOnlyApprovedOutbound"), (HUB_BASE,), "egress to the hub", "an outbound rule for"),
    (with_registry(publicNetworkAccess="Disabled"), (), "image build", "is private and cannot build images itself"),
    (with_registry(networkRuleSet={"defaultAction": "Deny"}), (), "image build", "expected a compute that does"),
    (isolated("AllowInternetOutbound", builds="gone"), (), "image build", "'gone', which was not found"),
    (identity_based, (), "identity of the job", "keeps no key; set azureml.identity=user"),
    (with_identity(), (), "identity of the job", "keeps no key; set azureml.identity=managed"),
    (with_identity(), ("azureml.identity=managed",), "the job's data", "Storage Blob Data Contributor"),
    (user_assigned(), ("azureml.identity=managed",), "the job's data", "Storage Blob Data Contributor"),
    (identity_based, ("azureml.identity=managed",), "identity of the job", "has no identity, expected one"),
    (refusing("AuthorizationPermissionMismatch"), ("azureml.identity=user",), "datastore listing", "you lack the role"),
    (refusing("KeyBasedAuthenticationNotPermitted"), ("azureml.identity=user",), "datastore listing", "takes no keys"),
    (refusing("AuthorizationFailure"), ("azureml.identity=user",), "datastore listing", "firewall"),
    (readable_only, ("azureml.identity=user",), "your upload", "you may not write blobs"),
    (with_identity(vault={"enableRbacAuthorization": True}), (VAULT,), "the job's key vault", "Key Vault Secrets User"),
    (with_identity(vault={"accessPolicies": []}), (VAULT,), "the job's key vault", "no access policy lets"),
]


@pytest.mark.parametrize(("change", "settings", "what", "found"), REFUSED)
def test_what_a_job_would_die_of_is_a_problem_before_it_bills(
    world: World, change: Callable[[Twin], None], settings: tuple[str, ...], what: str, found: str
) -> None:
    change(world.twin)
    done = world.command(*CHECK, *settings)
    assert done.code == 2
    assert [line for line in done.errors if found in line], done.err
    told = [line for line in done.err.splitlines() if line.startswith("problem")]
    assert [line for line in told if f" {what}  " in line and found in line], done.err
    assert any(line.startswith("ok ") for line in done.err.splitlines()), "what is in order is told, too"
    assert world.twin.arm.inventory() == []


PASSED = [
    (blackwell, ("azureml.compute=blackwell", "azureml.environment=azureml:own:1"), "environment", "ok"),
    (lambda twin: twin.arm.workspace.update(kind="Project"), (), "workspace kind", "ok"),
    (isolated("AllowInternetOutbound", builds=CLUSTER), (), "image build", "ok"),
    (isolated("AllowInternetOutbound"), (), "image build", "not looked at"),
    (with_registry(publicNetworkAccess="Enabled"), (), "image build", "ok"),
    (isolated("AllowInternetOutbound", builds=CLUSTER), (), "network isolation", "ok"),
    (isolated("AllowOnlyApprovedOutbound", "huggingface.co"), (HUB_BASE,), "egress to the hub", "ok"),
    (lambda twin: twin.arm.workspace["properties"].update(publicNetworkAccess="Disabled", imageBuildCompute=CLUSTER),
     (HUB_BASE,), "egress to the hub", "not looked at"),
    (identity_based, ("azureml.identity=user",), "your upload", "ok"),
    (with_identity((STORAGE, BLOB_CONTRIBUTOR)), ("azureml.identity=managed",), "the job's data", "ok"),
    (user_assigned((STORAGE, BLOB_CONTRIBUTOR)), ("azureml.identity=managed",), "the job's data", "ok"),
    (with_identity((GROUP_ID, SECRETS_USER), vault={"enableRbacAuthorization": True}), (VAULT,), "the job's key vault",
     "ok"),
    (with_identity(vault={"accessPolicies": [{"objectId": PRINCIPAL, "permissions": {"secrets": ["Get"]}}]}), (VAULT,),
     "the job's key vault", "ok"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "settings", "what", "outcome"), PASSED)
def test_what_a_job_needs_is_found(
    world: World, change: Callable[[Twin], None], settings: tuple[str, ...], what: str, outcome: str
) -> None:
    change(world.twin)
    assert outcomes(world.command(*CHECK, *settings, "--format", "json"))[what] == outcome


def without_public_access(twin: Twin) -> None:
    twin.arm.workspace["properties"]["publicNetworkAccess"] = "Disabled"


def waiting_for_its_network(twin: Twin) -> None:
    isolated("AllowInternetOutbound", builds=CLUSTER)(twin)
    twin.arm.workspace["properties"]["managedNetwork"]["status"]["status"] = "Inactive"


AS_MANAGED, AS_USER = ("azureml.identity=managed",), ("azureml.identity=user",)
ALONE = ("azureml.compute=null", f"azureml.instance_type={MACHINE}")
WORDS = [
    (without_public_access, (), "public access", "ok", "disabled: a private network leads to it, see run history"),
    (waiting_for_its_network, (), "network isolation", "not looked at",
     "managed network, AllowInternetOutbound, is Inactive: the first job waits until it is made"),
    (lambda twin: None, (), "datastore credential", "ok", "workspaceblobstore: the workspace keeps an account key"),
    (lambda twin: None, (), "identity of the job", "ok", "the workspace's own way: keys it keeps"),
    (lambda twin: None, (), "the job's data", "ok", "read and written with the workspace's key"),
    (identity_based, AS_USER, "datastore credential", "ok",
     "workspaceblobstore: none: whoever reads it needs a role of their own"),
    (identity_based, AS_USER, "identity of the job", "ok", "yours"),
    (identity_based, AS_USER, "the job's data", "ok", "read and written as you, see datastore listing and your upload"),
    (with_identity((STORAGE, BLOB_CONTRIBUTOR)), AS_MANAGED, "identity of the job", "ok",
     f"the identity of the cluster {CLUSTER}"),
    (with_identity((STORAGE, BLOB_CONTRIBUTOR)), AS_MANAGED, "the job's data", "ok",
     f"Storage Blob Data Contributor or more on {ACCOUNT}"),
    (identity_based, (*AS_MANAGED, *ALONE), "identity of the job", "ok", "the identity of a job without a cluster"),
    (identity_based, (*AS_MANAGED, *ALONE), "the job's data", "not looked at",
     "no call tells the identity that it will have"),
    (with_identity((GROUP_ID, SECRETS_USER), vault={"enableRbacAuthorization": True}), (VAULT, *ALONE, *AS_MANAGED),
     "the job's key vault", "not looked at", "no call tells the identity that it will have"),
    (lambda twin: None, (VAULT,), "the job's key vault", "not looked at",
     f"you see no vault kv in subscription {SUBSCRIPTION}"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "settings", "what", "outcome", "found"), WORDS)
def test_a_check_says_what_it_found(
    world: World, change: Callable[[Twin], None], settings: tuple[str, ...], what: str, outcome: str, found: str
) -> None:
    change(world.twin)
    assert checks(world.command(*CHECK, *settings, "--format", "json"))[what] == (outcome, found)


@pytest.mark.parametrize("code", [403, 503])
@pytest.mark.parametrize(
    ("end", "unseen"),
    [
        ("/permissions", {"rights to train": "reading your rights in the workspace"}),
        (f"/computes/{CLUSTER}", dict.fromkeys(("compute", "identity of the job"), f"reading the cluster '{CLUSTER}'")),
        ("/vmSizes", {"machine and quota": "listing machine sizes"}),
        ("/usages", {"machine and quota": "reading quotas"}),
        ("/datastores/workspaceblobstore", {"datastore": "reading the datastore 'workspaceblobstore'"}),
    ],
)
def test_a_check_that_cannot_be_made_hides_no_other_and_says_why(
    world: World, code: int, end: str, unseen: dict[str, str]
) -> None:
    world.twin.service.faults = [Fault("", lambda request: request.path.endswith(end), answer=status(code), times=999)]
    told = checks(world.command(*CHECK, "--format", "json"))
    whys = {what: found for what, (outcome, found) in told.items() if outcome == "not looked at" and what != "driver"}
    assert {what: why.partition(": ")[0] for what, why in whys.items()} == unseen
    assert [what for what, why in whys.items() if f"refused with {code} for a test" not in why] == []


def test_a_workspace_whose_jobs_could_not_be_followed_is_told_and_refuses_no_run(world: World) -> None:
    def is_discovery(request: Request) -> bool:
        return request.path == "/discovery"

    world.twin.service.faults = [Fault("403", is_discovery, answer=status(403), times=999)]
    outcome, found = checks(world.command(*CHECK, "--format", "json"))["run history"]
    assert (outcome, found.partition(" for a test")[0][-16:]) == ("problem", "refused with 403")
    assert found.endswith("; a job would run, and could not be followed from here")


def test_a_right_that_only_a_deployment_needs_refuses_no_run(world: World) -> None:
    world.twin.arm.roles.mine = ["Microsoft.MachineLearningServices/workspaces/jobs/*", "*/read"] + [
        f"Microsoft.MachineLearningServices/workspaces/{kind}/versions/write"
        for kind in ("codes", "data", "environments")
    ]
    told = outcomes(world.command(*CHECK, "--format", "json"))
    assert {what for what, outcome in told.items() if outcome == "problem"} == {
        "rights to register",
        "rights to deploy",
    }


@pytest.mark.parametrize(
    ("gated", "settings", "outcome"),
    [(True, (), "problem"), (True, (VAULT,), "ok"), (False, (), "ok"), (None, (), "not looked at")],
)
def test_a_gated_base_needs_its_token(
    world: World, monkeypatch: pytest.MonkeyPatch, gated: bool | None, settings: tuple[str, ...], outcome: str
) -> None:
    monkeypatch.setattr(preflight, "is_gated", lambda model: gated)
    with_identity((GROUP_ID, SECRETS_USER), vault={"enableRbacAuthorization": True})(world.twin)
    done = world.command(*CHECK, HUB_BASE, *settings)
    told = [line for line in done.err.splitlines() if line.startswith(f"{outcome} ") and "  base  " in line]
    assert told, done.err
    assert done.code == (2 if outcome == "problem" else 0)


def test_the_job_of_a_project_is_followed(world: World) -> None:
    """The SDK tells no discovery address of a project or a hub."""
    world.twin.arm.workspace["kind"] = "Project"
    assert outcomes(world.command(*CHECK, "--format", "json"))["run history"] == "ok"


def test_a_hub_id_is_found_through_folders_and_runs(tmp_path: object) -> None:
    assert hub_base.hub_id("someone/Model-1B") == "someone/Model-1B"
    assert hub_base.hub_id("builtin:tiny") is None
    assert hub_base.hub_id("azureml:name:1") is None
    assert hub_base.hub_id(str(tmp_path)) is None


OWN, FIRST, SECOND = ({"principal": f"{word}-principal", "client": f"{word}-client"} for word in ("own", "one", "two"))


@pytest.mark.parametrize(
    ("own", "readers", "reads", "client"),
    [
        (True, [OWN, SECOND], True, None),
        (True, [SECOND], True, "two-client"),
        (False, [SECOND], True, "two-client"),
        (False, [], False, None),
        (True, [], False, None),
    ],
)
def test_any_identity_of_an_endpoint_may_read_the_hub_token_and_the_container_names_it(
    here: Twin, own: bool, readers: list[dict[str, str]], reads: bool, client: str | None
) -> None:
    """The rights of user-assigned identities count as those of the endpoint's own one do."""
    here.arm.roles.vaults["kv"] = {"enableRbacAuthorization": True}
    here.arm.roles.given = [(one["principal"], GROUP_ID, SECRETS_USER) for one in readers]
    found = resources.endpoint("onlineEndpoints/glossary", {"location": "eastus", "properties": {"authMode": "Key"}})
    known = f"{GROUP_ID}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    assigned = {
        f"{known}/{one['client']}": {"principalId": one["principal"], "clientId": one["client"]}
        for one in (FIRST, SECOND)
    }
    principal = {"principalId": OWN["principal"], "tenantId": "t"} if own else {}
    kind = "SystemAssigned,UserAssigned" if own else "UserAssigned"
    found["identity"] = {"type": kind, "userAssignedIdentities": assigned} | principal
    here.arm.resources["onlineEndpoints/glossary"] = found
    place = find_place(AzureMLConfig())
    existing = connect(place).online_endpoints.get("glossary")
    gated = BaseFacts("someone/Model", True, True, "https://kv.vault.azure.net", "score")
    facts = with_endpoint(gated, existing, place, print)
    assert facts is not None
    assert (facts.reads_vault, facts.client_id) == (reads, client)
