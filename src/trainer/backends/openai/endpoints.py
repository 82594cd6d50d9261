"""A run's deployments as its ledger and the service know them: their names, states, addresses, keys and costs."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from trainer.backends.contract import BY_LEDGER, Endpoint, EndpointKey
from trainer.backends.http import Say
from trainer.backends.idempotent import LOOK_UPS, look_for
from trainer.backends.openai.account import AccountDeployment, account_at
from trainer.backends.openai.client import OURS, OWN_KEY, TOKEN_SCOPE, address
from trainer.backends.openai.names import launch_of
from trainer.backends.openai.price_list import prices_of
from trainer.backends.openai.skus import SKUS
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger, Thing

KEYS = {"azure": "AZURE_OPENAI_API_KEY", "openai": "OPENAI_API_KEY", OURS: OWN_KEY}
DEVELOPER_HOURS, IDLE_DAYS = 24, 15  # after which Azure deletes a deployment by itself


def endpoints(run: Run, say: Say) -> Iterator[Endpoint]:
    """The run's deployments as they are now; one that Azure has deleted is written down as gone."""
    settings = run.config()
    for entry in deployments_of(run):
        deployment = AccountDeployment(settings.openai, account_at(entry.thing.place), entry.thing.key)
        found = look_for(deployment.read, entry.thing, LOOK_UPS)
        if found is None:
            if entry.step == "exists":
                say(f"deployment {entry.thing.key}: is gone; Azure deletes idle ones by itself")
                Ledger(run.path).write(entry.thing, "deleted")
            continue
        yield endpoint_of(run, settings, entry, state_of_deployment(found))


def known_endpoints(run: Run) -> Iterator[Endpoint]:
    """The run's deployments by its ledger."""
    settings = run.config()
    return (endpoint_of(run, settings, entry, BY_LEDGER[entry.step]) for entry in deployments_of(run))


def deployments_of(run: Run) -> list[Entry]:
    """The deployments that the run has, or may have."""
    return [entry for entry in Ledger(run.path).open() if entry.thing.kind == "deployment"]


def newest(run: Run) -> str | None:
    """The name of the deployment that was made last and is there."""
    names = [name_of(entry) for entry in deployments_of(run) if entry.step == "exists"]
    return names[-1] if names else None


def find_deployment(run: Run, name: str) -> Entry | None:
    """The run's deployment of that name, or of the only one in another resource; None for one that is not the run's.

    Raises: ConfigError, where resources have one of it each.
    """
    entries = [entry for entry in deployments_of(run) if name in (name_of(entry), entry.thing.key)]
    exact = [entry for entry in entries if name_of(entry) == name]
    if len(entries) > 1 and not exact:
        names = " or ".join(name_of(entry) for entry in entries)
        raise ConfigError(f"--endpoint: {name!r} is in {len(entries)} resources, expected {names}; name one of them")
    found = exact or entries
    return found[-1] if found else None


def name_of(entry: Entry) -> str:
    """The name of a deployment for people: ACCOUNT/NAME in another resource than the run's own."""
    return f"{account_at(entry.thing.place).name}/{entry.thing.key}" if entry.facts.get("url") else entry.thing.key


def openai_at(settings: OpenAIConfig, entry: Entry | None) -> OpenAIConfig:
    """The settings with the address at which a deployment answers."""
    url = None if entry is None else entry.facts.get("url")
    return settings.model_copy(update={"base_url": str(url)}) if url else settings


def key_of(run: Run, deployment: Thing) -> EndpointKey:
    """The key that this machine calls a deployment of the run with."""
    settings, entry = run.config().openai, Ledger(run.path).find(*deployment.identity)
    variable = KEYS[settings.service]
    if entry is not None and entry.facts.get("url"):
        return EndpointKey(
            None,
            f"{variable} is the key of the run's own resource; get a token for this one with: "
            f"az account get-access-token --scope {TOKEN_SCOPE}",
        )
    if key := os.environ.get(variable):
        return EndpointKey(key, f"the value of {variable} on this machine")
    if settings.service != "azure":
        return EndpointKey(None, f"no key is known here: {variable} is not set")
    return EndpointKey(
        None,
        "calls are signed in with Microsoft Entra ID, so that no key exists here; get a token with: "
        f"az account get-access-token --scope {TOKEN_SCOPE}",
    )


def state_of_deployment(found: Any) -> str:
    """The service's word for it."""
    return str(getattr(found.properties, "provisioning_state", None) or "unknown")


def endpoint_of(run: Run, settings: RunConfig, entry: Entry, state: str) -> Endpoint:
    """The deployment of an entry, with its cost so far."""
    made_at = datetime.fromisoformat(entry.created_at)
    facts, is_developer = entry.facts, entry.facts.get("sku") == SKUS["developer"]
    hourly = 0.0 if is_developer else _hourly(settings, run, entry)
    until, deletes_at = f"{IDLE_DAYS} days after its last answer", ""
    if is_developer:
        end = made_at + timedelta(hours=DEVELOPER_HOURS)
        until, deletes_at = f"{end:%Y-%m-%d %H:%M} UTC", end.isoformat()
    return Endpoint(
        name_of(entry),
        entry.thing,
        run.name,
        state,
        str(facts.get("model", "")),
        "tokens only" if is_developer else _cost(entry, hourly),
        until,
        f"{address(openai_at(settings.openai, entry))}/chat/completions",
        entry.created_at,
        hourly,
        entry.cost_so_far(hourly),
        deletes_at=deletes_at,
    )


def _cost(entry: Entry, hourly: float | None) -> str:
    cost = entry.cost_so_far(hourly)
    return f"{hourly:,.2f} USD/h, about {cost:,.2f} so far" if cost is not None else "by the hour, price not known"


def _hourly(settings: RunConfig, run: Run, entry: Entry) -> float | None:
    if entry.hourly is not None:  # version 0.1.0 noted none
        return entry.hourly
    return prices_of(launch_of(run).family, settings.openai).hosting
