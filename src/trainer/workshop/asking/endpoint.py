"""Endpoint that writes: its address from what a user names, its key, and the words of its dialect of OpenAI's route."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import TypeAdapter, ValidationError

from trainer.backends.chat_endpoint import Address, ChatEndpoint
from trainer.backends.chat_route import reply_of
from trainer.backends.http import Failure
from trainer.backends.openai.client import azure_token, openai_key
from trainer.data.fetch.web import secret_of
from trainer.errors import ConfigError
from trainer.runs.files import read_record, write_json
from trainer.workshop.asking.repair import in_words
from trainer.workshop.asking.request import Answer, Request

ROUTE = "/chat/completions"
AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".azure.us")
OPENAI = "api.openai.com"
OWN_KEY = "TRAINER_API_KEY"  # of `trainer serve`
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SCHEMA_WORDS = re.compile(r"response_format|json_schema|structured output|guided", re.IGNORECASE)
UNKNOWN = re.compile(r"unsupported|unrecognized|unknown|extra|not permitted|forbidden", re.IGNORECASE)
OPTIONAL = ("temperature", "seed")


@dataclass(frozen=True, slots=True)
class ChatAddress:
    """An endpoint's chat route. `service` names whose key and prices apply; empty for a server of somebody's own."""

    url: str
    service: str = ""

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK


def place_of(endpoint: str) -> ChatAddress:
    """The chat route of an address, as people write it: the host, the API's root, or the route. Raises: ConfigError."""
    try:
        parts = urlsplit(endpoint.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # brackets that do not close, a port that is none
        parts, host = urlsplit(""), ""
    if parts.username is not None or (secret := secret_of(parts.query)) is not None:
        shown = "a user or a password" if parts.username is not None else f"the secret {secret!r}"
        raise ConfigError(
            f"--endpoint: the address of {host} holds {shown}, expected none, as it is kept beside the rows; remove it "
            "and name the variable of the environment that holds the key: --key-env VARIABLE"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"--endpoint: is {endpoint!r}, expected an address that begins with https://; correct it")
    service = "azure" if host.endswith(AZURE) else "openai" if host == OPENAI else ""
    path = parts.path.rstrip("/")
    if not path.endswith(ROUTE):
        if service == "azure":
            path = path.removesuffix("/v1").removesuffix("/openai") + "/openai/v1"
        path = (path or "/v1") + ROUTE
    return ChatAddress(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), service)


def connect(place: ChatAddress, model: str, key_variable: str | None) -> ChatEndpoint:
    """The client for a model there, with a key of the environment or Microsoft Entra ID.

    Raises: ConfigError, where a key is missing, or would be sent without TLS; MissingDependency.
    """
    key = None if key_variable is None else os.environ.get(key_variable)
    if key_variable is not None:
        if not key:
            raise ConfigError(f"{key_variable}: is not set, expected the endpoint's key; set it in the environment")
        credential: Any = key
    elif place.service == "openai":
        credential = openai_key()
    elif place.service == "azure":
        key = os.environ.get("AZURE_OPENAI_API_KEY")
        credential = key or azure_token(place.url)
    else:
        credential = os.environ.get(OWN_KEY) if place.is_local else None
    is_key = place.service == "azure" and key is not None  # an older, dated route takes a key in no other header
    if credential and place.url.startswith("http:") and not place.is_local:
        raise ConfigError(f"--endpoint: is {place.url!r}, expected https:// as a key is sent there; correct it")

    def headers() -> Mapping[str, str]:
        if credential is None:
            return {}
        if is_key:
            return {"api-key": credential}
        return {"Authorization": f"Bearer {credential if isinstance(credential, str) else credential()}"}

    return ChatEndpoint(f"{model} at {place.host}", Address(place.url, model, headers, streams=False))


@dataclass(frozen=True, slots=True)
class Dialect:
    """Parameters that the endpoint takes; what its first answers refuse is left out or said in other words."""

    takes_schema: bool = True
    limit: str = "max_tokens"
    left_out: tuple[str, ...] = ()
    is_switched: bool = False  # the word for the limit; an endpoint that takes neither is not asked in turns

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request, without the model's name."""
        messages = [dict(message) for message in request.messages]
        body: dict[str, Any] = {"messages": messages, self.limit: request.max_tokens}
        body |= {"temperature": request.temperature, "seed": request.seed}
        if self.takes_schema:
            schema = {"name": request.name, "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            body["messages"] = in_words(messages, request.schema)
        return {name: value for name, value in body.items() if name not in self.left_out}

    def adapted(self, failure: Failure) -> Self | None:
        """The dialect without what a refusal names; None where it names nothing that can go."""
        if failure.status not in (400, 404, 415, 422, 501):
            return None
        said = f"{failure.code} {failure.message}"
        if self.takes_schema and SCHEMA_WORDS.search(said):
            return replace(self, takes_schema=False)
        if failure.status == 404:
            return None
        # "Unsupported parameter: 'max_tokens' ... Use 'max_completion_tokens' instead."
        is_named = "max_completion_tokens" in said and not self.is_switched
        if self.limit == "max_tokens" and is_named:
            return replace(self, limit="max_completion_tokens", is_switched=True)
        if self.limit == "max_completion_tokens" and is_named and UNKNOWN.search(said):
            return replace(self, limit="max_tokens", is_switched=True)
        for name in OPTIONAL:
            if name not in self.left_out and re.search(rf"\b{name}\b", said):
                return replace(self, left_out=(*self.left_out, name))
        return None

    @classmethod
    def read(cls, path: Path, place: ChatAddress, model: str) -> Self:
        """The dialect that was learned before; the usual one where none was."""
        found = read_record(path)
        if (found.get("url"), found.get("model")) != (place.url, model):
            return cls(limit="max_completion_tokens" if place.service else "max_tokens")
        try:
            return TypeAdapter(cls).validate_python(found.get("dialect"))
        except ValidationError:  # damaged: it is learned again
            return cls()

    def write(self, path: Path, place: ChatAddress, model: str) -> None:
        write_json(path, {"url": place.url, "model": model, "dialect": asdict(self)})


def answer_of(record: Mapping[str, Any], name: str) -> Answer:
    """The answer within a record of the chat route. Raises: BackendError, where it holds none."""
    reply = reply_of(record, name)
    usage = record.get("usage") if isinstance(record.get("usage"), Mapping) else {}
    return Answer(reply.text, reply.ended, str(record.get("id") or ""), *(_tokens(usage, key) for key in USAGE))


USAGE = ("prompt_tokens", "completion_tokens")


def _tokens(usage: Any, name: str) -> int | None:
    found = usage.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
