"""How failures of the SDKs are read, on real exceptions of real clients."""

import email.utils
import json
import socket
import ssl
from collections.abc import Callable
from http.client import RemoteDisconnected
from typing import Any

import pytest
import requests
from azure.core.exceptions import (
    ClientAuthenticationError,
    DecodeError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import HttpRequest, RequestsTransport

from trainer.backends import http
from trainer.backends.http import failure_of, is_failure, patiently, refusal, retry_after
from trainer.errors import BackendError, ConfigError

NOW = 1_780_000_000.0


def date(seconds: float) -> str:
    return email.utils.formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "1"}, 1.0),
        ({"retry-after": "0"}, 0.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "1000000000"}, 60.0),
        ({"Retry-After": "inf"}, 60.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": date(20)}, 20.0),
        ({"Retry-After": date(-20)}, 0.0),
        ({"Retry-After": date(86_400 * 365)}, 60.0),
        ({"Retry-After": date(3_620), "Date": date(3_600)}, 20.0),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
    ],
)
def test_what_a_service_asks_to_wait_is_read_and_capped(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, clock=lambda: NOW) == seconds


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def raised(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is what is tested
        call()
    return caught.value


def test_a_refused_connection_was_not_sent_by_either_sdk() -> None:
    import openai

    client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{closed_port()}", max_retries=0)
    first = raised(client.models.list)
    request = HttpRequest("PUT", f"http://127.0.0.1:{closed_port()}/")
    second = raised(lambda: RequestsTransport().send(request))
    assert isinstance(second, ServiceRequestError)
    for error in (first, second):
        assert is_failure(error)
        failure = failure_of(error)
        assert (failure.execution, failure.status, failure.is_temporary) == ("unsent", None, True)


def test_a_lost_answer_may_have_been_executed() -> None:
    failure = failure_of(ServiceResponseError("Connection aborted."))
    assert (failure.execution, failure.is_temporary) == ("unknown", True)


def test_a_connection_that_broke_may_have_carried_the_request_and_a_refused_one_has_not() -> None:
    """As azure-core hands on what requests makes of urllib3's word for Python's, in TLS and behind a proxy."""
    for cause, execution in (
        (RemoteDisconnected("Remote end closed connection without response"), "unknown"),
        (ConnectionRefusedError("refused"), "unsent"),
        (ssl.SSLEOFError("EOF occurred in violation of protocol"), "unknown"),
        (ssl.SSLCertVerificationError("self-signed certificate"), "unsent"),
    ):
        of_tls = isinstance(cause, ssl.SSLError)
        inner = requests.exceptions.SSLError("broken") if of_tls else requests.exceptions.ProxyError("broken")
        inner.__cause__ = cause
        assert failure_of(ServiceRequestError("broken", error=inner)).execution == execution


def test_a_missing_credential_is_a_refusal_and_not_repeated() -> None:
    failure = failure_of(ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token"))
    assert (failure.execution, failure.is_temporary) == ("refused", False)


LISTED = (
    "DefaultAzureCredential failed to retrieve a token from the included credentials.\nAttempted credentials:\n"
    "\tEnvironmentCredential: %s\n\tAzureCliCredential: %s\nTo mitigate this issue, please refer to the "
    "troubleshooting guidelines here at https://aka.ms/azsdk/python/identity/defaultazurecredential/troubleshoot."
)
UNSET = "EnvironmentCredential authentication unavailable. Variables are not configured.\nVisit https://aka.ms/x."


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ((UNSET, "CLI not found"), "no sign-in was found; tried EnvironmentCredential, AzureCliCredential"),
        ((UNSET, "ERROR: AADSTS700082: The refresh token has expired."), "AzureCliCredential: ERROR: AADSTS700082: The "
         "refresh token has expired"),
        (("Authentication failed: invalid secret", "Azure CLI not found on path"), "EnvironmentCredential: "
         "Authentication failed: invalid secret"),
    ],
)  # fmt: skip
def test_a_sign_in_that_is_refused_is_one_sentence(attempts: tuple[str, str], words: str) -> None:
    failure = failure_of(ClientAuthenticationError(LISTED % attempts))
    assert str(refusal(failure, "reading the workspace")) == (
        f"reading the workspace: {words}; sign in, for example with: az login"
    )


def test_an_answer_that_is_no_json_is_a_failure_of_the_call() -> None:
    error = raised(lambda: json.loads("<html>"))
    assert is_failure(error)
    assert failure_of(error).execution == "unknown"
    assert not is_failure(KeyError("ours"))


def test_a_login_service_that_is_not_reached_is_waited_for() -> None:
    error = ClientAuthenticationError("no token")
    error.__cause__ = ServiceRequestError("name resolution failed")
    assert failure_of(error).is_temporary


def test_a_good_answer_that_cannot_be_read_may_have_been_executed() -> None:
    error = DecodeError("JSON is invalid")
    error.status_code = 200
    failure = failure_of(error)
    assert (failure.execution, failure.status, failure.is_temporary) == ("unknown", None, True)


class Busy(ServiceResponseError):
    status_code = 503


def test_a_call_is_repeated_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.001)
    answers: list[Any] = [Busy("busy"), Busy("busy"), "done"]
    said: list[str] = []

    def call() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert patiently(call, "reading the job", said.append) == "done"
    assert said == ["reading the job: the service answered 503: busy; trying again for up to 120 s"]


def test_patience_ends_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "0.05")

    def call() -> None:
        raise Busy("busy")

    with pytest.raises(BackendError) as caught:
        patiently(call, "reading the job")
    assert str(caught.value) == "reading the job: the service answered 503: busy; wait and try again"


def test_who_only_looks_does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "30")
    with http.hurried(5):
        assert http.patience_seconds() == 5
        monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "1")
        assert http.patience_seconds() == 1
    monkeypatch.delenv("TRAINER_PATIENCE_SECONDS")
    assert http.patience_seconds() == 120


def test_our_own_mistakes_are_not_repeated() -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise KeyError("ours")

    with pytest.raises(KeyError):
        patiently(call, "reading")
    assert len(calls) == 1


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_variable_that_says_no_seconds_is_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TRAINER_TIMEOUT_SECONDS", text)
    with pytest.raises(ConfigError, match=f"^TRAINER_TIMEOUT_SECONDS: is '{text}', expected a number of seconds"):
        http.timeout_seconds()


def test_a_variable_that_says_nothing_leaves_what_is_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_TIMEOUT_SECONDS", "")
    assert http.timeout_seconds() == 60
