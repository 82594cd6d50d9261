"""The base of a deployed model: included in the upload, or downloaded from the hub by a container that may.

A container starts before anybody can give its endpoint's identity a role, and bills while it fails. So `auto` includes
a base that needs a token, and any base where the container reaches no hub.
"""

from dataclasses import dataclass, replace
from typing import Any

from trainer.backends.azureml.access import identities_of, reads_secrets, vault_name
from trainer.backends.azureml.hub_base import is_gated
from trainer.backends.azureml.workspace import Place
from trainer.backends.contract import Check
from trainer.backends.http import Say
from trainer.config.azureml import DeploymentConfig
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run

SETTING = "azureml.deployment.include_base"


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """Facts that decide about a hub model. `is_gated` is None where the hub did not answer."""

    model: str
    is_gated: bool | None
    egress: bool
    key_vault: str | None
    mode: str
    reads_vault: bool = False  # an identity of an endpoint that exists
    client_id: str | None = None  # of that identity, where the container has to name it


def facts_of(run: Run, settings: RunConfig, chosen: DeploymentConfig) -> BaseFacts | None:
    """None for a run whose base is no hub model: it is included always."""
    base = run.manifest().base
    if base.weights_sha256 is not None:  # of a folder
        return None
    return BaseFacts(base.name, is_gated(base.name), chosen.egress, settings.azureml.key_vault, chosen.mode)


def takes_base(facts: BaseFacts | None, setting: bool | str) -> bool:
    """Decide about `auto`: include what a container may not be able to download."""
    if isinstance(setting, bool) or facts is None:
        return setting is True
    return bool(facts.is_gated) or not facts.egress or (facts.is_gated is None and facts.key_vault is not None)


def check_base(facts: BaseFacts | None, included: bool) -> Check:
    """Check that the container gets its base. Raises: ConfigError, where it certainly does not."""
    if facts is None or included:
        return Check("base", "ok", "included in the upload")
    include = f"set {SETTING}=true"
    if not facts.egress:
        raise ConfigError(
            f"azureml.deployment.egress: is false, and the container downloads {facts.model} from the hub, expected it "
            f"included; {include}"
        )
    if facts.is_gated is None:
        return Check("base", "not looked at", f"whether {facts.model} needs a token: the hub was not reached from here")
    if not facts.is_gated:
        return Check("base", "ok", f"{facts.model} is public on the hub, and downloaded by the container")
    if facts.mode == "score" and facts.reads_vault:
        return Check("base", "ok", f"{facts.model} needs a token, which the endpoint's identity may read")
    why = {
        "vllm": "vLLM's container reads no key vault",
        "score": "the endpoint's identity may read no key vault when its container starts",
    }
    raise ConfigError(
        f"{SETTING}: is false, {facts.model} needs a token of the hub, and {why[facts.mode]}, expected it included; "
        f"{include}"
    )


def with_endpoint(facts: BaseFacts | None, existing: Any, place: Place, say: Say) -> BaseFacts | None:
    """The facts with the rights of an endpoint that exists. A call that fails counts as no right."""
    identities = identities_of(existing)
    if facts is None or not facts.is_gated or facts.key_vault is None or not identities:
        return facts
    try:
        access = reads_secrets(facts.key_vault, list(identities), place, say)
    except BackendError as error:
        say(f"{error}\nwhether the endpoint's identity may read {vault_name(facts.key_vault)} is not known")
        return facts
    readers = [] if access is None else [one for one in identities if one not in access.lacking]
    return replace(facts, reads_vault=True, client_id=identities[readers[0]]) if readers else facts
