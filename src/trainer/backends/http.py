"""Meaning of a failed call to a service: was it executed, is it worth repeating, and what people should do.

The SDKs of Azure and OpenAI repeat calls that create things, after which two exist. Here every call is made once, and
its failure is read: `unsent` and `refused` mean that nothing was done, `unknown` that it may have been.
"""

import email.utils
import math
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from trainer.errors import BackendError, ConfigError, TrainerError, quoted

T = TypeVar("T")
Say = Callable[[str], None]

_HURRIED: ContextVar[float] = ContextVar("hurried", default=math.inf)
MOST_WAIT_SECONDS = 60.0  # a Retry-After beyond it is not waited for in one go
FIRST_WAIT_SECONDS = 0.5
TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
# A service that answers with one of these has not done what was asked.
REFUSALS = frozenset(range(300, 500)) - {408, 409}
# The request did not leave this machine: azure-core's and the OpenAI SDK's (httpx's) words for it.
UNSENT = frozenset(
    {"ServiceRequestError", "ServiceRequestTimeoutError", "ConnectError", "ConnectTimeout", "UnsupportedProtocol"}
)
BROKEN = frozenset({"SSLError", "ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError"})
# Whose exceptions are failures of a call; json's, where an answer is no JSON.
CLIENTS = frozenset({"openai", "httpx", "httpx2", "httpcore", "azure", "msrest", "msal", "requests", "urllib3", "json"})
DISTRUST = re.compile(r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: ([^(]{1,200}?)(?: \(_ssl|$)")
ATTEMPTS = re.compile(r"Attempted credentials:\n(.*?)(?:\nTo mitigate this issue|\Z)", re.DOTALL)
ATTEMPT = re.compile(r"^\t(\w+): (.*?)(?=^\t\w+: |\Z)", re.DOTALL | re.MULTILINE)
SIGN_IN_REFUSED = ("AADSTS", "Authentication failed")  # in the words of a credential; others were not there
NETWORK = UNSENT | {"ServiceResponseError"}  # beneath a credential's error: the login service was not reached
NO_CREDENTIAL = frozenset({"CredentialUnavailableError", "ClientAuthenticationError", "AuthenticationRequiredError"})


@dataclass(frozen=True, slots=True)
class Failure:
    """Reading of a failed call. `wait_seconds`: as the service asks, None where it does not."""

    execution: Literal["unsent", "refused", "unknown"]
    status: int | None
    message: str
    code: str = ""
    wait_seconds: float | None = None
    is_untrusted: bool = False  # the certificate at the other end, so that nothing was sent

    @property
    def is_temporary(self) -> bool:
        """True if the same call may succeed later."""
        if self.is_untrusted:
            return False
        return self.status in TEMPORARY or (self.status is None and self.execution != "refused")

    def __str__(self) -> str:
        answered = "" if self.status is None else f"the service answered {self.status}"
        return ": ".join(filter(None, [answered, self.code, self.message])) or "the service could not be reached"


def failure_of(error: Exception) -> Failure:
    """Read an exception of the SDKs of Azure and OpenAI, or of the HTTP clients beneath them."""
    names = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    status, response = _status(error), getattr(error, "response", None)
    code, message = _words(error)
    if (problem := _distrust(error)) is not None:
        return Failure("unsent", None, f"the certificate of the service is not trusted ({problem})", is_untrusted=True)
    if status is None:
        if names & NO_CREDENTIAL and not names & NETWORK:
            return Failure("refused", None, message, code)
        # azure-core calls a connection that breaks through a proxy or within TLS ServiceRequestError too.
        broke = names & BROKEN
        return Failure("unsent" if names & UNSENT and not broke else "unknown", None, message, code)
    wait = retry_after(getattr(response, "headers", None) or {})
    return Failure("refused" if status in REFUSALS else "unknown", status, message, code, wait)


def is_failure(error: Exception) -> bool:
    """True if the exception comes from a call to a service, and not from a mistake of ours.

    A refusal in which `patiently` ends is an error of ours: nothing repeats the call.
    """
    if isinstance(error, TrainerError):
        return False
    kinds = [kind for link in _chain(error) for kind in type(link).__mro__]
    return any(
        kind.__module__.partition(".")[0] in CLIENTS or kind in (ConnectionError, TimeoutError) for kind in kinds
    )


def retry_after(headers: Mapping[str, str], clock: Callable[[], float] = time.time) -> float | None:
    """Seconds that the service asks to wait, between 0 and MOST_WAIT_SECONDS; None without a usable word of it.

    RFC 9110, 10.2.3: seconds or a date. A date is compared with the service's own Date, as our clock may be wrong.
    """
    lower = {str(key).lower(): str(value) for key, value in headers.items()}
    for name, scale in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if (text := lower.get(name, "").strip()) and (seconds := _seconds(text, scale, lower.get("date"), clock)):
            return min(max(seconds[0], 0.0), MOST_WAIT_SECONDS)
    return None


def found_or_none(call: Callable[[], T]) -> T | None:
    """Make a call once; None where the service answers 404. Other failures stay those of the client."""
    try:
        return call()
    except Exception as error:
        if not is_failure(error) or failure_of(error).status != 404:
            raise
        return None


def patiently(call: Callable[[], T], doing: str, say: Say = lambda message: None) -> T:
    """Repeat a call that changes nothing, or may be made twice, until it succeeds or the patience is at its end.

    `doing` names the call in messages: "reading the job".

    Raises: BackendError.
    """
    until, wait, said = time.monotonic() + patience_seconds(), FIRST_WAIT_SECONDS, False
    while True:
        try:
            return call()
        except Exception as error:
            if not is_failure(error):
                raise
            failure = failure_of(error)
            pause = wait if failure.wait_seconds is None else failure.wait_seconds
            if not failure.is_temporary or time.monotonic() + pause > until:
                raise refusal(failure, doing) from error
            if not said:
                say(f"{doing}: {failure}; trying again for up to {patience_seconds():.0f} s")
                said = True
            time.sleep(pause)
            wait = min(wait * 2, MOST_WAIT_SECONDS)


def found(call: Callable[[], T], doing: str, say: Say) -> T | None:
    """Ask patiently; None where the service knows no such thing. Raises: BackendError."""
    return patiently(lambda: found_or_none(call), doing, say)


def refusal(failure: Failure, doing: str, do_this: str = "") -> BackendError:
    """The one message that a failed call ends in."""
    return BackendError(f"{doing}: {str(failure).rstrip('.')}; {do_this or _advice(failure)}")


def patience_seconds() -> float:
    """Longest time in which a call is repeated, in all."""
    usual = seconds_of("TRAINER_PATIENCE_SECONDS", 120.0)
    return min(usual, _HURRIED.get())


@contextmanager
def hurried(seconds: float = 5.0) -> Iterator[None]:
    """Repeat calls for so long at most: someone waits for what is there without them."""
    token = _HURRIED.set(seconds)
    try:
        yield
    finally:
        _HURRIED.reset(token)


def timeout_seconds() -> float:
    """Longest time of one call; uploads get longer."""
    return seconds_of("TRAINER_TIMEOUT_SECONDS", 60.0)


def seconds_of(variable: str, usual: float) -> float:
    """The seconds that a variable of the environment says. Raises: ConfigError, when it says something else."""
    text = os.environ.get(variable, "")
    try:
        seconds = float(text or usual)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{variable}: is {text!r}, expected a number of seconds; correct the variable, or unset it")
    return seconds


def _advice(failure: Failure) -> str:
    if failure.is_untrusted:
        return "name a file with the certificates of your network in SSL_CERT_FILE, or correct the address"
    match failure.status:
        case 401:
            return "the credential is not accepted: sign in again, or correct the key"
        case 403:
            return "the identity lacks a role for it: ask the owner of the resource"
        case 404:
            return "correct the name, or wait a minute if it is new"
        case None if failure.execution == "refused":
            return "sign in, for example with: az login"
        case None:
            return "check the network and the address, then try again"
        case status if status in TEMPORARY:
            return "wait and try again"
    return "correct what it names and try again"


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and what it came from."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or getattr(link, "inner_exception", None) or link.__context__
    return links


def _distrust(error: Exception) -> str | None:
    """The problem with the certificate that was shown; None if that is not the reason."""
    for link in _chain(error):
        if isinstance(link, ssl.SSLCertVerificationError):
            return str(getattr(link, "verify_message", "") or link)
        if found := DISTRUST.search(str(link)):  # azure-identity puts what its credentials met into words
            return found[1]
    return None


def _status(error: Exception) -> int | None:
    """The status that refuses or fails; an answer that cannot be read is none, whatever it says above it."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status >= 300 else None


def _words(error: Exception) -> tuple[str, str]:
    """The service's own code and message, from the first lines of whatever it answered."""
    body = getattr(error, "body", None)
    inner = getattr(error, "error", None)  # azure-core: ODataV4Format
    found = body.get("error", body) if isinstance(body, dict) else inner
    code: Any = found.get("code") if isinstance(found, dict) else getattr(found, "code", None)
    message: Any = found.get("message") if isinstance(found, dict) else getattr(found, "message", None)
    text = _of_sign_in(str(message or getattr(error, "message", "") or error or type(error).__name__))
    return str(code or ""), quoted(" ".join(text.split()), 400)[1:-1]


def _of_sign_in(text: str) -> str:
    """The credential that was refused, of a list that azure-identity makes of all it has tried; other text as it is."""
    if (listed := ATTEMPTS.search(text)) is None:
        return text
    tried = [(attempt[1], attempt[2]) for attempt in ATTEMPT.finditer(listed[1])]
    refused = [f"{name}: {words.strip()}" for name, words in tried if any(word in words for word in SIGN_IN_REFUSED)]
    return "; ".join(refused) or f"no sign-in was found; tried {', '.join(name for name, _ in tried)}"


def _seconds(text: str, scale: float, date: str | None, clock: Callable[[], float]) -> tuple[float] | None:
    """A number of seconds in a tuple, so that 0 is not nothing."""
    try:
        return (float(text) * scale,) if float(text) == float(text) else None
    except ValueError:
        pass
    try:
        then = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(date) if date else datetime.fromtimestamp(clock(), UTC)
        return ((then - now).total_seconds(),)
    except (TypeError, ValueError):
        return None
