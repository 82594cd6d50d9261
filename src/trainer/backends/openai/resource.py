"""What Azure's control plane says of the resource before anything is created: where it is, and what you may do."""

import os
from dataclasses import dataclass

from trainer.backends.arm import allows, read_permissions
from trainer.backends.http import Say, hurried, patiently
from trainer.backends.openai.management import connect, known_account
from trainer.config.openai import OpenAIConfig
from trainer.errors import BackendError, MissingDependency

TRAIN = "Microsoft.CognitiveServices/accounts/OpenAI/fine-tunes/write"
DEPLOY = "Microsoft.CognitiveServices/accounts/deployments/write"
KINDS = ("OpenAI", "AIServices")


@dataclass(frozen=True, slots=True)
class Resource:
    """A line for people, and what is wrong."""

    told: str
    problems: tuple[str, ...] = ()


def look_at_resource(settings: OpenAIConfig, say: Say) -> Resource:
    """Region, state, kind and rights; what cannot be asked is said to be not verified."""
    account = known_account(settings)
    if account is None:
        return Resource("region and rights not verified: openai.subscription and openai.resource_group are not given")
    try:
        with hurried():
            return _look(settings, account.id, account.name, account.resource_group, say)
    except (BackendError, MissingDependency) as error:
        return Resource(f"region and rights not verified: {error}")


def _look(settings: OpenAIConfig, address: str, name: str, group: str, say: Say) -> Resource:
    account = known_account(settings)
    assert account is not None
    client = connect(settings, account)
    from azure.identity import DefaultAzureCredential

    found = patiently(lambda: client.accounts.get(group, name), f"reading the resource {name!r}", say)
    arm = settings.management_url.rstrip("/")
    doing = f"reading your rights at {name!r}"
    roles = read_permissions(address, doing, DefaultAzureCredential(), say, arm)
    has_key = bool(os.environ.get("AZURE_OPENAI_API_KEY"))
    problems = list(_wrong_account(name, str(found.kind), str(found.properties.provisioning_state)))
    if has_key and found.properties.disable_local_auth:
        problems.append(f"AZURE_OPENAI_API_KEY: is set, and {name!r} takes no keys; unset it and sign in: az login")
    if not has_key and not allows(roles, TRAIN, "dataActions"):
        problems.append(
            f"{name!r}: you may not train there, expected a role with {TRAIN}; "
            "ask for Cognitive Services OpenAI Contributor or Foundry User"
        )
    may = "and deploy" if allows(roles, DEPLOY) else f"and not deploy, which takes a role with {DEPLOY}"
    return Resource(f"{name} ({found.kind}) in {found.location}; you may train {may}", tuple(problems))


def _wrong_account(name: str, kind: str, state: str) -> list[str]:
    problems = []
    if kind not in KINDS:
        problems.append(f"{name!r}: is a resource of kind {kind!r}, expected {' or '.join(KINDS)}; choose another")
    if state != "Succeeded":
        problems.append(f"{name!r}: is in state {state!r}, expected 'Succeeded'; wait, or choose another")
    return problems
