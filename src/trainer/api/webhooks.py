"""Webhooks: an address of the owner's is told that a job has ended, signed, at least once, until it has answered.

The signature is that of the Standard Webhooks form, which the SDK's `client.webhooks.unwrap` verifies. Addresses stand
in the server's YAML alone: no caller can have this machine send anything anywhere.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from trainer.api.job import OUTCOME, Job
from trainer.api.settings import Webhook
from trainer.errors import ConfigError
from trainer.runs import files

SECRET_PREFIX = "whsec_"
TIMEOUT_SECONDS = 10.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 3600.0
GIVE_UP_SECONDS = 72 * 3600.0  # as the service does


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would lead where the owner has not."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def secret_of(webhook: Webhook) -> bytes:
    """The secret from the environment. Raises: ConfigError, where there is none."""
    text = os.environ.get(webhook.secret_variable, "")
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(SECRET_PREFIX) or not secret:
        found = "is not set" if not text else "holds something else"
        raise ConfigError(
            f"webhooks: {webhook.secret_variable} {found}, expected {SECRET_PREFIX} and base64; make one with: "
            "python -c 'import base64, secrets; print(\"whsec_\" + base64.b64encode(secrets.token_bytes(32)).decode())'"
        )
    return secret


def wants(webhook: Webhook, job: Job, state: str) -> bool:
    """True where the address is told of this job's end."""
    return f"fine_tuning.job.{state}" in webhook.events and webhook.key in (None, job.owner)


def deliver_due(
    job: Job, webhooks: Sequence[Webhook], silent: set[str], tell: Callable[[str], None] = lambda words: None
) -> bool:
    """Send what is due of a settled job; False once nothing is left to send, now or later.

    Addresses in `silent` have not answered in this round; those that do not are added.

    The note that an address has answered is written after its answer: killed in between, it is sent again.
    """
    outcome = job.outcome()
    end, sent = outcome["end"], outcome.get("webhooks", {})
    is_left = False
    for webhook in webhooks:
        if not wants(webhook, job, end["state"]):
            continue
        name = hashlib.sha256(f"{webhook.url} {end['at']}".encode()).hexdigest()[:16]
        attempt = sent.get(name, {"attempts": 0, "next": 0.0})
        is_old = time.time() - outcome["finished_at"] > GIVE_UP_SECONDS  # as of a webhook that is new
        if attempt.get("done") or (is_old and not attempt["attempts"]):
            continue
        if webhook.url not in silent and time.time() >= attempt["next"]:
            sent[name] = attempt = _attempted(job, webhook, outcome, attempt, tell)
            files.write_json(job.run.path / OUTCOME, outcome | {"webhooks": sent})
            silent |= {webhook.url} if "problem" in attempt else set()
        is_left |= not attempt.get("done")
    return is_left


def _attempted(
    job: Job, webhook: Webhook, outcome: dict[str, Any], attempt: dict[str, Any], tell: Callable[[str], None]
) -> dict[str, Any]:
    number = attempt["attempts"] + 1
    problem = send(job, webhook, outcome)
    if problem is None:
        return {"attempts": number, "done": time.time(), "next": 0.0}
    if time.time() - outcome["finished_at"] > GIVE_UP_SECONDS:
        tell(f"webhooks: {webhook.url} was told of {job.id} {number} times and has not taken it: {problem}")
        return {"attempts": number, "done": time.time(), "next": 0.0, "problem": problem}
    wait = min(FIRST_WAIT_SECONDS * 2 ** (number - 1), LONGEST_WAIT_SECONDS)
    return {"attempts": number, "next": time.time() + wait, "problem": problem}


def send(job: Job, webhook: Webhook, outcome: dict[str, Any]) -> str | None:
    """Tell one address once; why it has not taken it, None where it has."""
    end = outcome["end"]
    digest = hashlib.sha256(f"{job.id} {end['state']} {end['at']}".encode()).hexdigest()[:24]
    event = {
        "object": "event",
        "id": f"evt_{digest}",
        "type": f"fine_tuning.job.{end['state']}",
        "created_at": outcome["finished_at"],
        "data": {"id": job.id},
    }
    body, at = json.dumps(event).encode(), str(int(time.time()))
    try:
        signature = signed(secret_of(webhook), f"wh_{digest}", at, body)
    except ConfigError as error:
        return str(error)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "azure-llm-trainer",
        "webhook-id": f"wh_{digest}",
        "webhook-timestamp": at,
        "webhook-signature": signature,
    }
    try:
        request = urllib.request.Request(webhook.url, body, headers, method="POST")  # noqa: S310  # from the YAML
        with _opener.open(request, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {getattr(error, 'reason', error)}"


def signed(secret: bytes, id_: str, at: str, body: bytes) -> str:
    """The header `webhook-signature`."""
    mac = hmac.new(secret, b".".join((id_.encode(), at.encode(), body)), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"
