"""What the steps of a deployment ask of the service, each answer once more where the network fails."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.backends.azureml.states import word_of
from trainer.backends.azureml.submit import found_or_none
from trainer.backends.azureml.workspace import POLLING_SECONDS, Place
from trainer.backends.http import Say, failure_of, is_failure, patiently, seconds_of
from trainer.backends.idempotent import create_once
from trainer.errors import BackendError
from trainer.runs.ledger import Ledger, Thing

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

T = TypeVar("T")
ENDED = ("Succeeded", "Failed", "Canceled")
LONGEST_HOURS = 3.0  # an image is built, a machine is found, a model is loaded
LOG_LINES = 60
SHOWN_LINES = 8
CONTAINERS = ("inference-server", "storage-initializer")


def found(ask: Callable[[], T], what: str, say: Say) -> T | None:
    """What the service knows, None where it knows no such thing. Raises: BackendError."""
    return patiently(lambda: found_or_none(ask), f"looking for {what}", say)


def ensure(
    ledger: Ledger,
    thing: Thing,
    look_up: Callable[[], str | None],
    create: Callable[[], str],
    facts: Mapping[str, Any],
    say: Say,
) -> str:
    """The id of the thing, which this command, an earlier one, or another machine has made.

    Raises: BackendError.
    """

    def known(identity: str) -> dict[str, Any]:
        return {"id": identity, **facts}

    entry = ledger.find(thing.kind, thing.key)
    existing = patiently(look_up, f"looking for the {thing.kind} {thing.key!r}", say)
    if existing is None:
        return create_once(ledger, thing, look_up, create, known, say)
    if entry is None or entry.step != "exists":
        ledger.write(thing, "exists", **known(existing))
    return existing


def wait_until_ended(read: Callable[[], Any], what: str, say: Say) -> str:
    """The state in which a long operation has ended. Raises: BackendError, when it does not end."""
    until, told = time.monotonic() + LONGEST_HOURS * 3600, ""
    while True:
        state = progress_of(patiently(read, f"reading {what}", say))
        if state in ENDED:
            return state
        if state != told:
            say(f"{what} is {state}")
            told = state
        if time.monotonic() > until:
            raise BackendError(
                f"{what}: is {state} after {LONGEST_HOURS:.0f} hours, expected it to end; look in the studio"
            )
        time.sleep(polling_seconds())


def progress_of(thing: Any) -> str:
    """Of an endpoint or a deployment; one that is not told yet is about to change."""
    return word_of(thing.provisioning_state or "Updating")


def place_of(thing: Thing) -> Place:
    """The workspace that a thing of the ledger is in."""
    parts = thing.place.split("/")
    return Place(parts[2], parts[4], parts[8])


def polling_seconds() -> float:
    """Between two looks at something that takes long."""
    return seconds_of("TRAINER_POLLING_SECONDS", POLLING_SECONDS)


def container_logs(ml: "MLClient", endpoint: str, deployment: str) -> list[str]:
    """The last lines of each container, under its name; why they cannot be read, where they cannot."""
    told = []
    for container in CONTAINERS:
        try:
            text = ml.online_deployments.get_logs(deployment, endpoint, LOG_LINES, container_type=container)
        except Exception as error:
            if not is_failure(error):
                raise
            told.append(f"log of {container}: cannot be read: {failure_of(error)}")
            continue
        lines = [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
        told += [f"log of {container}:", *(f"  {line}" for line in lines)] if lines else []
    return told


def last_lines(logs: Sequence[str]) -> list[str]:
    """Of each log its heading and its end, where the reason stands."""
    shown, lines = list[str](), list[str]()
    for line in [*logs, ""]:
        if line.startswith("  "):
            lines.append(line)
            continue
        shown += [*lines[-SHOWN_LINES:], *([line] if line else [])]
        lines = []
    return shown
