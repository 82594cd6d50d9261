"""Deployments on Azure: what makes a tuned model answer, and what bills by the hour until it is gone."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from trainer.backends.contract import DeploymentPlan, Endpoint
from trainer.backends.http import Say, failure_of, is_failure, patiently, refusal
from trainer.backends.idempotent import LOOK_UPS, create_once, delete_once, look_for
from trainer.backends.openai.client import address
from trainer.backends.openai.deployment_plan import DEVELOPER_HOURS, IDLE_DAYS, SKUS, TuningDeployment, find_deployment
from trainer.backends.openai.management import PROVIDER, account_at, connect, or_none
from trainer.backends.openai.names import TOKEN_KEY, deployment_thing, launch_of, token_of
from trainer.backends.openai.prices import prices_of
from trainer.config.schema import RunConfig
from trainer.errors import BackendError
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

READY, BROKEN = "Succeeded", frozenset({"Failed", "Canceled", "Disabled"})
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, CREATION_SECONDS = 1.0, 20.0, 3600.0


def deploy(plan: DeploymentPlan[TuningDeployment], run: Run, say: Say) -> Endpoint:
    """Make the deployment, unless it is there, and wait until it answers. Raises: BackendError."""
    made = plan.details
    settings = made.settings
    ledger = Ledger(run.path)
    thing = deployment_thing(run, made.name, made.account.id, made.bills)
    deployments = connect(settings.openai, made.account).deployments
    place = (made.account.resource_group, made.account.name, made.name)

    def create() -> Any:
        return deployments.begin_create_or_update(*place, _body(run, made), polling=False).result()

    try:
        create_once(
            ledger,
            thing,
            look_up=lambda: or_none(lambda: deployments.get(*place)),
            create=create,
            facts_of=lambda found: {"id": str(found.id or made.name), "model": made.model, "sku": made.sku},
            say=say,
        )
    except BackendError as error:
        raise _explained(error) from error.__cause__
    _wait(deployments, place, say)
    entry = ledger.find("deployment", made.name)
    assert entry is not None
    return _endpoint(run, settings, entry, READY)


def endpoints(run: Run, say: Say) -> Iterator[Endpoint]:
    """The run's deployments as they are now; one that Azure has deleted is written down as gone."""
    settings = run.config()
    for entry in _open(run):
        account = account_at(entry.thing.place)
        found = look_for(lambda: find_deployment(settings, account, entry.thing.key), entry.thing, LOOK_UPS)  # noqa: B023
        if found is None:
            if entry.step == "exists":
                say(f"deployment {entry.thing.key}: is gone; Azure deletes idle ones by itself")
                Ledger(run.path).write(entry.thing, "deleted")
            continue
        yield _endpoint(run, settings, entry, _state(found))


def remove_deployments(run: Run, say: Say) -> None:
    """Delete the run's deployments, so that they bill no more, and wait until they are gone."""
    settings = run.config()
    for entry in _open(run):
        account, name = account_at(entry.thing.place), entry.thing.key
        deployments = connect(settings.openai, account).deployments
        place = (account.resource_group, account.name, name)

        def is_there() -> bool:
            return or_none(lambda: deployments.get(*place)) is not None  # noqa: B023

        delete_once(Ledger(run.path), entry.thing, lambda: _delete(deployments, place, say), say, is_there)  # noqa: B023
        say(f"deployment {name}: deleted; it bills no more")


def newest(run: Run) -> str | None:
    """The name of the deployment that was made last and is there."""
    names = [entry.thing.key for entry in _open(run) if entry.step == "exists"]
    return names[-1] if names else None


def _open(run: Run) -> list[Entry]:
    return [entry for entry in Ledger(run.path).open() if entry.thing.kind == "deployment"]


def _body(run: Run, made: TuningDeployment) -> Any:
    from azure.mgmt.cognitiveservices.models import Deployment as Body
    from azure.mgmt.cognitiveservices.models import DeploymentModel, DeploymentProperties, Sku

    model = DeploymentModel(format="OpenAI", name=made.model, version="1")
    return Body(
        sku=Sku(name=made.sku, capacity=made.capacity),
        properties=DeploymentProperties(model=model, version_upgrade_option="NoAutoUpgrade"),
        tags={TOKEN_KEY: token_of(run)},
    )


def _wait(deployments: Any, place: tuple[str, str, str], say: Say) -> None:
    """Raises: BackendError, when it fails or takes too long; it may bill then."""
    until, wait = time.monotonic() + CREATION_SECONDS, FIRST_WAIT_SECONDS
    while True:
        found = patiently(lambda: or_none(lambda: deployments.get(*place)), "looking at the deployment", say)
        state = "Creating" if found is None else _state(found)
        if state == READY:
            return
        if state in BROKEN or time.monotonic() > until:
            raise BackendError(
                f"deployment {place[2]!r}: is {state}, expected Succeeded; look at it in the portal, and remove it "
                "with trainer teardown"
            )
        say(f"deployment {place[2]}: {state}")
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)


def _delete(deployments: Any, place: tuple[str, str, str], say: Say) -> None:
    """Delete a deployment and wait until it is gone: a model cannot be deleted before.

    One that is still being made refuses it, and is asked again.
    """
    until, wait, asked = time.monotonic() + CREATION_SECONDS, FIRST_WAIT_SECONDS / 4, False
    while True:
        asked = asked or _asked_to_go(deployments, place)
        there = patiently(lambda: or_none(lambda: deployments.get(*place)), "looking at the deployment", say)
        if there is None and asked:
            return
        if time.monotonic() > until:
            raise BackendError(f"deployment {place[2]!r}: is still there; look at it in the portal, and try again")
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)


def _asked_to_go(deployments: Any, place: tuple[str, str, str]) -> bool:
    try:
        deployments.begin_delete(*place, polling=False).result()
    except Exception as error:
        if not is_failure(error) or failure_of(error).status != 409:
            raise
        return False
    return True


def _state(found: Any) -> str:
    return str(getattr(found.properties, "provisioning_state", None) or "unknown")


def _endpoint(run: Run, settings: RunConfig, entry: Entry, state: str) -> Endpoint:
    made_at = datetime.fromisoformat(entry.created_at)
    facts, sku = entry.facts, str(entry.facts.get("sku", ""))
    until = f"{IDLE_DAYS} days after its last answer"
    if sku == SKUS["developer"]:
        until = f"{made_at + timedelta(hours=DEVELOPER_HOURS):%Y-%m-%d %H:%M} UTC"
    return Endpoint(
        entry.thing.key,
        run.name,
        state,
        str(facts.get("model", "")),
        _so_far(settings, run, sku, made_at),
        until,
        f"{address(settings.openai)}/chat/completions",
    )


def _so_far(settings: RunConfig, run: Run, sku: str, made_at: datetime) -> str:
    if sku == SKUS["developer"]:
        return "tokens only"
    hourly = prices_of(launch_of(run).family, settings.openai).hosting
    if hourly is None:
        return "by the hour, price not known"
    hours = (datetime.now(UTC) - made_at).total_seconds() / 3600
    return f"{hourly:,.2f} USD/h, about {hours * hourly:,.2f} so far"


def _explained(error: BackendError) -> BackendError:
    cause = error.__cause__
    if isinstance(cause, Exception) and failure_of(cause).status == 403:
        hint = f"deploying needs the role Foundry Owner, or the right {PROVIDER}/accounts/deployments/write"
        return refusal(failure_of(cause), "creating the deployment", hint)
    return error
