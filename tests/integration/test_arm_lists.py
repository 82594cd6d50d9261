"""Lists of Azure's resource manager are read to their end, which there must be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from tests.loopback import Loopback, Request, Response
from tests.proxy import Authority
from trainer.backends import arm
from trainer.errors import BackendError

PAGES = 30
SAID: list[str] = []


class Token:
    """A credential that has its token already."""

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        return AccessToken("a-token", 2**40)


class Pages:
    """A list of `PAGES` entries, one on a page; `link` makes the address of a page."""

    def __init__(self) -> None:
        self.link: Callable[[int], str | None] = lambda number: None

    def __call__(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer a-token"
        number = int(request.query.get("page", 0))
        return Response(200, {"value": [{"number": number}], "nextLink": self.link(number + 1)})


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    authority = Authority(tmp_path / "authority")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    with Loopback(Pages(), authority.context("localhost")) as loopback:
        yield loopback


def read(service: Loopback, link: Callable[[int], str | None]) -> list[dict[str, Any]]:
    assert isinstance(service.handler, Pages)
    service.handler.link = link
    return arm.read_list("/list", "2024-01-01", "reading a list", Token(), SAID.append, service.url)


def test_a_list_is_read_to_its_end(service: Loopback) -> None:
    def link(number: int) -> str | None:
        return f"{service.url}/list?page={number}" if number < PAGES else None

    assert read(service, link) == [{"number": number} for number in range(PAGES)]
    assert service.requests[0].query == {"api-version": "2024-01-01"}


def test_a_list_that_leads_back_to_itself_has_no_end(service: Loopback) -> None:
    with pytest.raises(BackendError, match="reading a list: the list has no end after 5 pages, expected one"):
        # the first page has an address of its own
        read(service, lambda number: f"{service.url}/list?page={number % 4}")


def test_a_list_without_an_end_is_given_up(service: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm, "MOST_PAGES", 25)
    with pytest.raises(BackendError, match="the list has no end after 25 pages, expected one"):
        read(service, lambda number: f"{service.url}/list?page={number}")
    assert len(service.requests) == 25


def test_the_token_is_sent_nowhere_else(service: Loopback, tmp_path: Path) -> None:
    with Loopback(Pages(), Authority(tmp_path / "other").context("localhost")) as other:
        with pytest.raises(BackendError, match=f"the list continues at '{other.url}/list', expected {service.url}"):
            read(service, lambda number: f"{other.url}/list")
        assert other.requests == []


@pytest.mark.parametrize("link", ["https://management.azure.com/a", "https://management.azure.com:443/a?b=c"])
def test_the_usual_port_may_be_written_or_not(link: str) -> None:
    assert arm._scheme_host_port(link) == arm._scheme_host_port(arm.ARM)
