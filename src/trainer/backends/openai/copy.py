"""A checkpoint copied to another resource, where it stays when the one that has trained it is gone; Azure's preview."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.backends.http import Say, found_or_none, patiently
from trainer.backends.idempotent import create_once
from trainer.backends.openai.account import Account
from trainer.backends.openai.client import BEARER, FineTuningService, Record
from trainer.backends.openai.jobs import has_jobs
from trainer.backends.openai.models import checkpoint_id
from trainer.backends.openai.site import Site
from trainer.config.openai import OpenAIConfig
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

PREVIEW = {"aoai-copy-ft-checkpoints": "preview"}
DONE, FAILED = "completed", "failed"
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, COPY_SECONDS = 1.0, 20.0, 3600.0
NEEDS = (
    "the resource that has trained it needs a user-assigned identity with the role Foundry User at the target, whose "
    "public network access is enabled"
)
STAYS = "no call deletes a copy, and no list shows it; it costs nothing"


@dataclass(frozen=True, slots=True)
class CheckpointCopy:
    """A copy that a plan describes."""

    job: str
    checkpoint: str  # the service's id
    target: Account
    region: str

    @property
    def thing(self) -> Thing:
        """The copy as the ledger knows it."""
        return Thing("openai", "copy", self.checkpoint, self.target.id)


def plan_copy(run: Run, settings: OpenAIConfig, checkpoint: str | None, site: Site, say: Say) -> CheckpointCopy:
    """Hold a copy against what the service asks of both resources. Raises: ConfigError, BackendError."""
    problems = []
    if site.source is None or site.region is None:
        problems.append("--copy: is for another resource, expected --resource; name one, or remove --copy")
    if checkpoint is None:
        problems.append(
            f"--copy: copies a checkpoint, expected --checkpoint; list them: trainer checkpoints {run.path}"
        )
    if settings.api_version is not None:
        problems.append("openai.api_version: has no copies, expected none beside --copy; remove one of them")
    if problems:
        raise ConfigError(*problems)
    assert site.region is not None
    assert checkpoint is not None
    there = FineTuningService(settings.model_copy(update={"base_url": site.url}), has_key=False)
    if getattr(site.resource.properties, "public_network_access", None) == "Disabled":
        problems.append(
            f"{site.account.name!r} has no public network access, expected it for a copy; enable it meanwhile"
        )
    if not getattr(getattr(site.source_resource, "identity", None), "user_assigned_identities", None):
        problems.append("the resource that has trained it has no user-assigned identity, expected one; assign it")
    if not problems and not has_jobs(there, say):
        problems.append(f"{site.account.name!r} has tuned nothing yet, expected one job there; run one first")
    if problems:
        raise ConfigError(*(f"--copy: {problem}" for problem in problems))
    job = str(run.status().get("job"))
    return CheckpointCopy(job, checkpoint_id(run, checkpoint), site.account, site.region)


def ensure_copy(made: CheckpointCopy, settings: OpenAIConfig, run: Run, say: Say) -> None:
    """Make the copy, unless it is there, and wait until it is whole. Raises: BackendError."""
    service, ledger = FineTuningService(settings), Ledger(run.path)

    def look_up() -> str | None:
        state = _state(service, made)
        return None if state == FAILED else state

    try:
        create_once(
            ledger, made.thing, look_up, lambda: _create(service, made), lambda state: {"id": made.checkpoint}, say
        )
    except BackendError as error:
        raise BackendError(f"{error}; {NEEDS}") from error.__cause__
    _wait(service, made, ledger, say)


def _wait(service: FineTuningService, made: CheckpointCopy, ledger: Ledger, say: Say) -> None:
    until, wait = time.monotonic() + COPY_SECONDS, FIRST_WAIT_SECONDS
    say(f"copying {made.checkpoint} to {made.target.name}")
    while (state := patiently(lambda: _state(service, made), "looking at the copy", say)) != DONE:
        if state == FAILED:
            ledger.write(made.thing, "refused", reason="the copy failed")
            raise BackendError(f"copying {made.checkpoint} to {made.target.name!r}: failed, expected a copy; {NEEDS}")
        if time.monotonic() > until:
            raise BackendError(f"copying {made.checkpoint}: is {state or 'not there'}; run the same command again")
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)


def _create(service: FineTuningService, made: CheckpointCopy) -> str:
    body = {"destinationResourceId": made.target.id, "region": made.region}
    return _read(service.ask(lambda client: _send(client, made, body), "copiedAccountDetails"), made) or "inprogress"


def _state(service: FineTuningService, made: CheckpointCopy) -> str | None:
    """The copy's state in small letters; None where there is none."""
    answer = found_or_none(lambda: service.ask(lambda client: _send(client, made, None), "copiedAccountDetails"))
    return None if answer is None else _read(answer, made)


def _read(answer: Record, made: CheckpointCopy) -> str | None:
    for copied in reversed(answer["copiedAccountDetails"]):
        if str(copied.get("destinationResourceId")).lower() == made.target.id.lower():
            return str(copied.get("status")).lower()
    return None


def _send(client: "OpenAI", made: CheckpointCopy, body: Any) -> "httpx2.Response":
    import httpx2

    path = f"/fine_tuning/jobs/{made.job}/checkpoints/{made.checkpoint}/copy"
    options: Any = {**BEARER, "headers": PREVIEW}
    if body is None:
        return client.get(path, cast_to=httpx2.Response, options=options)
    return client.post(path, cast_to=httpx2.Response, body=body, options=options)
