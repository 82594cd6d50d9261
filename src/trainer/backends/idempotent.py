"""Create what may bill exactly once, whatever happens to the call, the answer or this process."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from trainer.backends.http import FIRST_WAIT_SECONDS, Say, failure_of, is_failure, patiently, refusal
from trainer.errors import BackendError
from trainer.runs.ledger import Ledger, Thing

T = TypeVar("T")

TRIES = 4
LOOK_UPS = 3  # after a lost answer: a service may know later of what it has just made
LISTED_LOOK_UPS = 7  # half a minute, where it can only be found in a list


def create_once(
    ledger: Ledger,
    thing: Thing,
    look_up: Callable[[], T | None],
    create: Callable[[], T],
    facts_of: Callable[[T], Mapping[str, Any]],
    say: Say = lambda message: None,
    look_ups: int = LOOK_UPS,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    """The thing, made now or by an earlier try.

    The ledger knows of it before the service does. `look_up` asks the service by the key of our choosing, before each
    try that follows another, in this process or an earlier one, `look_ups` times with a wait that doubles. `create`
    makes one call, without the SDK's retries. `known` are facts that stand in the ledger with the intent.

    Raises: BackendError; the ledger then says `refused`, or `intended` where it may exist.
    """
    doing = f"creating the {thing.kind} {thing.key!r}"
    entry = ledger.find(thing.kind, thing.key, thing.place) or ledger.find(thing.kind, thing.key)
    may_exist = entry is not None and entry.is_open

    def existing() -> T | None:
        found = look_for(look_up, thing, look_ups)
        if found is not None:
            ledger.write(thing, "exists", **facts_of(found))
        return found

    for number in range(TRIES):
        if may_exist and (found := existing()) is not None:
            return found
        ledger.write(thing, "intended", **known)
        try:
            made = create()
        except Exception as error:
            if not is_failure(error):
                raise
            failure = failure_of(error)
            conflict = failure.status == 409  # there is one of that name, or the service is busy with it
            may_exist = may_exist or (failure.execution == "unknown" and not conflict)
            if failure.is_temporary and number < TRIES - 1:
                say(f"{doing}: {failure}; trying again, after looking whether it exists")
                time.sleep(FIRST_WAIT_SECONDS * 2**number if failure.wait_seconds is None else failure.wait_seconds)
                continue
            if (may_exist or conflict) and (found := existing()) is not None:
                return found
            if not may_exist:
                ledger.write(thing, "refused", reason=str(failure))
            raise refusal(failure, doing) from error
        ledger.write(thing, "exists", **facts_of(made))
        return made
    raise AssertionError("the last try returns or raises")


def look_for(look_up: Callable[[], T | None], thing: Thing, times: int = LISTED_LOOK_UPS) -> T | None:
    """Ask several times: what was made a moment ago may not be listed yet. Raises: BackendError."""
    for number in range(times):
        found = patiently(look_up, f"looking for the {thing.kind} {thing.key!r}")
        if found is not None:
            return found
        if number < times - 1:
            time.sleep(FIRST_WAIT_SECONDS * 2**number)
    return None


def delete_once(
    ledger: Ledger,
    thing: Thing,
    delete: Callable[[], object],
    say: Say = lambda message: None,
    is_there: Callable[[], bool] = lambda: False,
) -> None:
    """Delete what may be gone already, and write down that it is.

    `is_there` asks the service afterwards: on the word of one 404 something that bills would be forgotten.

    Raises: BackendError.
    """
    doing = f"deleting the {thing.kind} {thing.key!r}"

    def gone() -> None:
        try:
            delete()
        except Exception as error:
            if not is_failure(error) or failure_of(error).status not in (404, 410):
                raise

    for number in range(TRIES):
        patiently(gone, doing, say)
        if not patiently(is_there, f"looking whether the {thing.kind} {thing.key!r} is gone", say):
            ledger.write(thing, "deleted")
            return
        time.sleep(FIRST_WAIT_SECONDS * 2**number)
    raise BackendError(f"{doing}: it is still there, expected it to be gone; run the same command again")
