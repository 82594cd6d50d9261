"""Exactly one, whatever happens: a service with a memory, and every way in which a call to it can end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

from trainer.backends import http, idempotent
from trainer.backends.idempotent import LISTED_LOOK_UPS, create_once, delete_once
from trainer.errors import BackendError
from trainer.runs.ledger import Ledger, Thing

THING = Thing("openai", "job", "token-1", "https://example.test", "by the token")


def answered(status: int) -> HttpResponseError:
    error = HttpResponseError(f"status {status}")
    error.status_code = status
    return error


class Service:
    """Makes things; a plan says what each call ends with, before or after it is done."""

    def __init__(self, *plan: tuple[str, Exception]) -> None:
        self.plan, self.made, self.calls, self.hidden = list(plan), [], 0, 0

    def create(self) -> str:
        self.calls += 1
        when, error = self.plan.pop(0) if self.plan else ("", None)
        if when == "before":
            raise error
        self.made.append(f"id-{self.calls}")
        if when == "after":
            raise error
        return self.made[-1]

    def look_up(self) -> str | None:
        if self.hidden:
            self.hidden -= 1
            return None
        return self.made[0] if self.made else None


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(idempotent, "FIRST_WAIT_SECONDS", 0.001)


def create(service: Service, folder: Path) -> str:
    return create_once(Ledger(folder), THING, service.look_up, service.create, lambda made: {"id": made})


def step(folder: Path) -> tuple[str, Any]:
    entry = Ledger(folder).find("job")
    assert entry is not None
    return entry.step, entry.facts.get("id")


LOST = [answered(status) for status in (408, 500, 502, 503, 504)] + [ServiceResponseError("reset")]


@pytest.mark.parametrize("error", LOST, ids=str)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_makes_no_second_one(error: Exception, when: str, tmp_path: Path) -> None:
    service = Service((when, error))
    assert create(service, tmp_path) == service.made[0]
    assert len(service.made) == 1
    assert step(tmp_path) == ("exists", service.made[0])


def test_what_is_listed_late_is_still_found(tmp_path: Path) -> None:
    service = Service(("after", answered(504)))
    service.hidden = 2
    create(service, tmp_path)
    assert len(service.made) == 1


def test_a_list_is_looked_at_for_longer(tmp_path: Path) -> None:
    service = Service(("after", answered(504)))
    service.hidden = LISTED_LOOK_UPS - 1
    ledger = Ledger(tmp_path)
    create_once(ledger, THING, service.look_up, service.create, lambda made: {"id": made}, look_ups=LISTED_LOOK_UPS)
    assert len(service.made) == 1


def test_a_refusal_of_the_look_up_is_told_once_and_makes_nothing(tmp_path: Path) -> None:
    service, looks = Service(("after", answered(504))), []

    def refused() -> str:
        looks.append(1)
        return http.patiently(lambda: raising(answered(403)), "reading the list")

    with pytest.raises(BackendError, match=r"^reading the list: the service answered 403"):
        create_once(Ledger(tmp_path), THING, refused, service.create, lambda made: {"id": made})
    assert (len(looks), len(service.made), step(tmp_path)) == (1, 1, ("intended", None))


def raising(error: Exception) -> str:
    raise error


@pytest.mark.parametrize("error", [answered(429), ServiceRequestError("refused")], ids=str)
def test_what_was_not_done_is_done_again(error: Exception, tmp_path: Path) -> None:
    service = Service(("before", error), ("before", error))
    create(service, tmp_path)
    assert (service.calls, len(service.made)) == (3, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 413, 422])
def test_a_refusal_is_told_at_once_and_nothing_is_left_open(status: int, tmp_path: Path) -> None:
    service = Service(("before", answered(status)))
    with pytest.raises(BackendError, match=f"creating the job 'token-1': the service answered {status}"):
        create(service, tmp_path)
    assert (service.calls, step(tmp_path)) == (1, ("refused", None))


def test_a_name_that_is_taken_by_ours_is_ours(tmp_path: Path) -> None:
    service = Service(("after", answered(409)))
    assert create(service, tmp_path) == "id-1"
    assert step(tmp_path) == ("exists", "id-1")


def test_a_name_that_is_taken_by_another_is_a_refusal(tmp_path: Path) -> None:
    service = Service(("before", answered(409)))
    with pytest.raises(BackendError):
        create(service, tmp_path)
    assert step(tmp_path) == ("refused", None)


def test_a_service_that_stays_away_leaves_the_intent(tmp_path: Path) -> None:
    service = Service(*[("before", answered(500))] * idempotent.TRIES)
    with pytest.raises(BackendError, match="wait and try again"):
        create(service, tmp_path)
    assert step(tmp_path) == ("intended", None)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_in_the_call_makes_no_second_one(when: str, tmp_path: Path) -> None:
    service = Service((when, Killed()))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        create(service, tmp_path)
    assert step(tmp_path) == ("intended", None)
    create(service, tmp_path)
    assert len(service.made) == 1
    assert step(tmp_path) == ("exists", service.made[0])


def test_a_second_command_finds_the_first_ones(tmp_path: Path) -> None:
    service = Service()
    assert create(service, tmp_path) == create(service, tmp_path)
    assert service.calls == 1


def deleting(*errors: Exception) -> Callable[[], None]:
    left = list(errors)

    def delete() -> None:
        if left:
            raise left.pop(0)

    return delete


@pytest.mark.parametrize(
    "errors", [(), (answered(404),), (answered(503),), (ServiceResponseError("reset"), answered(404))]
)
def test_what_is_deleted_or_gone_is_written_down(errors: tuple[Exception, ...], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(THING, "exists", id="id-1")
    delete_once(ledger, THING, deleting(*errors))
    assert ledger.open() == []


def test_a_404_about_something_that_is_there_does_not_forget_it(tmp_path: Path) -> None:
    ledger, answers, there = Ledger(tmp_path), [answered(404)], [1]
    ledger.write(THING, "exists", id="id-1")

    def delete() -> None:
        if answers:
            raise answers.pop()
        there.clear()

    delete_once(ledger, THING, delete, is_there=lambda: bool(there))
    assert (there, step(tmp_path)[0]) == ([], "deleted")


def test_what_does_not_go_stays_in_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(THING, "exists", id="id-1")
    with pytest.raises(BackendError, match="still there"):
        delete_once(ledger, THING, lambda: None, is_there=lambda: True)
    assert step(tmp_path)[0] == "exists"


def test_what_could_not_be_deleted_stays_open(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(THING, "exists", id="id-1")
    with pytest.raises(BackendError, match="the identity lacks a role"):
        delete_once(ledger, THING, deleting(answered(403)))
    assert [entry.thing for entry in ledger.billing()] == [THING]
