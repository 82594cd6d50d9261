"""The real `openai` client for the service a config names, and answers read by hand.

The SDK hands on whatever a service answers: a page as a string, an object without its fields as a model with None in
them. So every answer is taken raw, and counts only when it is a JSON object that has what is asked for. Nothing is
repeated here but what the service has refused for a worn-out token.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.http import patiently, timeout_seconds
from trainer.config.openai import OpenAIConfig
from trainer.errors import ConfigError
from trainer.extras import need

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI
    from openai._types import RequestOptions

Record = dict[str, Any]

OURS, OWN_KEY, OWN_URL = "trainer", "TRAINER_API_KEY", "TRAINER_API_URL"
OPENAI_URL = "https://api.openai.com/v1"
TOKEN_SCOPE = "https://cognitiveservices.azure.com/.default"
GOVERNMENT_SCOPE = "https://cognitiveservices.azure.us/.default"
BEARER: "RequestOptions" = {"security": {"bearer_auth": True}}  # requests that the SDK has no method for
PAGE_SIZE = 100
MOST_PAGES = 1000  # a service that ignores the cursor would be read for ever


class FineTuningService:
    """One fine-tuning service. `ask` makes a single call; what may be repeated goes through `patiently`."""

    def __init__(self, settings: OpenAIConfig, has_key: bool = True) -> None:
        """`has_key`: the environment's key is this resource's; of another one Azure knows none but tokens.

        Raises: ConfigError, MissingDependency.
        """
        self.settings, self._has_key = settings, has_key
        self.url = address(settings)
        self.place = str(urlsplit(self.url).netloc)
        self.timeout = timeout_seconds()
        self._client = self._connected()

    @property
    def is_azure(self) -> bool:
        return self.settings.service == "azure"

    @property
    def is_ours(self) -> bool:
        """True for a server of this trainer, which gives the weights away."""
        return self.settings.service == OURS

    @property
    def is_dated(self) -> bool:
        """True for an older, dated version of Azure's API."""
        return self.settings.api_version is not None

    def ask(self, call: "Callable[[OpenAI], httpx2.Response]", *fields: str) -> Record:
        """Answer of one call, an object that has `fields`. A refusal is raised as the SDK raises it."""
        return as_record(self.raw(call), *fields)

    def raw(self, call: "Callable[[OpenAI], httpx2.Response]") -> "httpx2.Response":
        """The answer of one call; it is made again once with a fresh token, which a 401 says has not been executed."""
        from openai import AuthenticationError

        try:
            return call(self._client)
        except AuthenticationError:
            self._client = self._connected()
            return call(self._client)

    def _page(self, page: "Callable[[OpenAI, Mapping[str, Any]], httpx2.Response]", query: Mapping[str, Any]) -> Record:
        return self.ask(lambda client: page(client, query), "data")

    def listed(
        self, page: "Callable[[OpenAI, Mapping[str, Any]], httpx2.Response]", doing: str, num: int = PAGE_SIZE
    ) -> Iterator[Record]:
        """Every object of a list that comes in pages. `page` gets the query that leads to the next one."""
        query: dict[str, Any] = {"limit": num}
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            answer = patiently(partial(self._page, page, query), doing)
            found = [item for item in answer["data"] or [] if isinstance(item, dict)]
            fresh = [item for item in found if str(item.get("id")) not in seen]
            yield from fresh
            seen |= {str(item.get("id")) for item in fresh}
            if not answer.get("has_more") or not fresh:
                return
            query = {"limit": num, "after": str(fresh[-1].get("id"))}

    def streaming(self) -> "OpenAI":
        """The client itself, for answers that come in pieces."""
        return self._client

    def _connected(self) -> "OpenAI":
        need("the openai backend", "openai", extra="openai")
        from openai import AzureOpenAI, OpenAI

        common: dict[str, Any] = {"max_retries": 0, "timeout": self.timeout}
        if not self.is_azure:
            return OpenAI(base_url=self.url, api_key=own_key() if self.is_ours else openai_key(), **common)
        key = os.environ.get("AZURE_OPENAI_API_KEY") if self._has_key else None
        credential = key or azure_token(self.url)
        if self.settings.api_version is None:
            return OpenAI(base_url=self.url, api_key=credential, **common)
        dated: dict[str, Any] = {"base_url": self.url, "api_version": self.settings.api_version} | common
        if key:
            return AzureOpenAI(api_key=key, **dated)
        if isinstance(credential, str):
            return AzureOpenAI(azure_ad_token=credential, **dated)
        return AzureOpenAI(azure_ad_token_provider=credential, **dated)


def address(settings: OpenAIConfig) -> str:
    """Address of the API, with the path that its version has. Raises: ConfigError."""
    if settings.service == "openai":
        given = settings.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        _check_address(given, settings.base_url, "OPENAI_BASE_URL")
        return given.rstrip("/")
    if settings.service == OURS:
        return _own_address(settings)
    named = settings.base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
    if not named:
        raise ConfigError(
            "openai.base_url: is missing, expected the resource's endpoint, such as "
            "https://NAME.openai.azure.com; set it, or AZURE_OPENAI_ENDPOINT"
        )
    _check_address(named, settings.base_url, "AZURE_OPENAI_ENDPOINT")
    root = named.rstrip("/").removesuffix("/v1").removesuffix("/openai")
    return f"{root}/openai" if settings.api_version else f"{root}/openai/v1"


def _own_address(settings: OpenAIConfig) -> str:
    """A server of this trainer. Raises: ConfigError."""
    given = settings.base_url or os.environ.get(OWN_URL)
    if not given:
        raise ConfigError(
            "openai.base_url: is missing, expected the server's address, such as http://gpu-box:8000/v1; set it, or "
            f"{OWN_URL}"
        )
    _check_address(given, settings.base_url, OWN_URL)
    return given.rstrip("/") if urlsplit(given).path.strip("/") else f"{given.rstrip('/')}/v1"


def _check_address(given: str, setting: str | None, variable: str) -> None:
    """Raises: ConfigError, when it is no address of a web service."""
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        name = variable if setting is None else "openai.base_url"
        raise ConfigError(f"{name}: is {given!r}, expected an address that begins with https://; correct it")


def openai_key() -> str:
    """The key of the environment. Raises: ConfigError."""
    key = os.environ.get("OPENAI_API_KEY")
    if not key:
        raise ConfigError("OPENAI_API_KEY: is not set, expected a key of the service; set it in the environment")
    return key


def own_key() -> str:
    """The key of a server of this trainer. Raises: ConfigError."""
    key = os.environ.get(OWN_KEY)
    if not key:
        raise ConfigError(f"{OWN_KEY}: is not set, expected a key of the server; set it in the environment")
    return key


def azure_token(url: str) -> str | Callable[[], str]:
    """A token of the environment, else a provider of tokens of Microsoft Entra ID.

    Raises: MissingDependency.
    """
    if fixed := os.environ.get("AZURE_OPENAI_AD_TOKEN"):
        return fixed
    need("signing in to Azure", "azure.identity", extra="openai", otherwise="set AZURE_OPENAI_API_KEY")
    from azure.identity import DefaultAzureCredential, get_bearer_token_provider

    scope = GOVERNMENT_SCOPE if str(urlsplit(url).hostname).endswith(".azure.us") else TOKEN_SCOPE
    provider: Callable[[], str] = get_bearer_token_provider(DefaultAzureCredential(), scope)
    return provider


def as_record(response: "httpx2.Response", *fields: str) -> Record:
    """The JSON object of an answer.

    Raises: json.JSONDecodeError, as for any text that is no answer of the service, when a field is absent.
    """
    text = response.content.decode("utf-8-sig", errors="replace")
    value = json.loads(text)
    if not isinstance(value, dict) or any(value.get(field) is None for field in fields):
        raise json.JSONDecodeError(f"expected an object with {', '.join(fields) or 'fields'}", text[:200], 0)
    return value
