"""The server's YAML: what may be trained, where, by whom, and up to which cost."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from trainer.api.keys import OWNER, Caller, Key, digest_of
from trainer.config.fields import Count, Folder, Positive, Section, Text, of_form, shown_form
from trainer.config.load import load_config, load_settings
from trainer.config.schema import RunConfig
from trainer.errors import Attempts, ConfigError
from trainer.inference.serve.guards import KEY_VARIABLE, api_key

DIGEST = r"[0-9a-f]{64}"
SECRET_VARIABLE = "TRAINER_WEBHOOK_SECRET"
Event = Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
EVENTS: tuple[Event, ...] = get_args(Event)
ONE_OWNER = "default"
TINY = "builtin:tiny"
ADVICE = "docs/api.md lists its settings, or leave out --config"

Owner = Annotated[str, shown_form(OWNER), of_form(OWNER, "a name of up to 40 letters, digits, - and _")]
Digest = Annotated[str, shown_form(DIGEST), of_form(DIGEST, "the 64 hexadecimal digits of: trainer api --new-key NAME")]
NAME = r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}"
ModelName = Annotated[str, shown_form(NAME), of_form(NAME, "a name such as llama or meta-llama/Llama-3.1-8B-Instruct")]
Url = Annotated[str, Field(strict=True), of_form(r"https?://[^\s\0]+", "an address that begins with https://")]
Variable = Annotated[str, Field(strict=True), of_form(r"[A-Z_][A-Z0-9_]*", "the name of an environment variable")]


class BaseOffer(Section):
    """A base that clients may name as `model`."""

    base: Text
    """Its `model.base`: a hub id, a folder, `builtin:tiny`."""

    backend: Literal["local", "azureml"] = "local"
    """The backend of its jobs."""

    overrides: tuple[Text, ...] = ()
    """Settings of its jobs, such as `lora.r=8`, as the command line takes them."""

    config: Path | None = None
    """A config to start from; its data, base and backend are replaced."""

    def run_config(self, values: Mapping[str, Any]) -> RunConfig:
        """Config of a run of this base with these settings above the offer's own, `data.train` among them.

        Raises: ConfigError.
        """
        wanted = {"model.base": self.base, "backend.kind": self.backend, **values}
        overrides = [f"{name}={json.dumps(value)}" for name, value in wanted.items()]
        return load_config(self.config, [*self.overrides, *overrides], together=False)


class KeyOffer(Section):
    """A key, and the limits of who has it. Nobody sees the files, jobs and models of another key."""

    name: Owner
    """The owner's name, a part of the names of tuned models."""

    sha256: Digest
    """The key's digest. The key itself stands nowhere; `trainer api --new-key NAME` makes both."""

    max_jobs: Count | None = None
    """Most jobs that wait or run at a time."""

    max_tokens: Annotated[int, Field(strict=True, ge=1, le=10**15)] | None = None
    """Most tokens that all of its jobs together may train."""

    max_bytes: Annotated[int, Field(strict=True, ge=1, le=10**18)] | None = None
    """Most bytes of its files and uploads."""


class Webhook(Section):
    """An address that is told when a job has ended. Requests are signed with a secret from the environment."""

    url: Url
    """The address."""

    secret_variable: Variable = SECRET_VARIABLE
    """The environment variable with the secret, which begins with `whsec_`."""

    events: tuple[Event, ...] = EVENTS
    """The events that are sent."""

    key: Owner | None = None
    """The key whose jobs it receives; without it, those of every key."""


class ServerFile(Section):
    """The server's YAML."""

    root: Folder | None = None
    """The folder of runs, files and jobs. A `--root` beside it must be the same."""

    bases: Annotated[dict[ModelName, BaseOffer], Field(min_length=1)]
    """The bases, by the name that clients send as `model`."""

    keys: tuple[KeyOffer, ...] = ()
    """Keys of those who may use the server. Without any, the key of TRAINER_API_KEY is the only one."""

    cap: Positive | None = None
    """Most that all jobs together may cost where they bill, in the currency of their quotes. Without it, jobs that bill are refused with their quote."""

    webhooks: tuple[Webhook, ...] = ()
    """Addresses that are told when a job has ended."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for what in ("name", "sha256"):
            values = [getattr(key, what) for key in self.keys]
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise PydanticCustomError("both_set", "{what} {value} stands twice; each key has its own", {
                    "what": what, "value": twice,
                })  # fmt: skip
        return self


@dataclass(frozen=True)
class ApiSettings:
    """Everything that a server of the API is told."""

    root: Path
    bases: Mapping[str, BaseOffer]
    keys: Sequence[Key] = field(repr=False, default=())
    cap: float | None = None
    webhooks: Sequence[Webhook] = ()


@dataclass(frozen=True)
class Loaded:
    """Settings, and the key that was made for them where none was given."""

    settings: ApiSettings
    new_key: str | None = None


def load_api(path: Path | None, root: Path | None, bases: Sequence[str] = ()) -> Loaded:
    """The settings of a YAML, or without one: the key of the environment, `builtin:tiny` and the named bases.

    Raises: ConfigError.
    """
    named = dict(_named(text) for text in bases)
    given = load_settings(path, ServerFile, ADVICE) if path else ServerFile(bases={TINY: BaseOffer(base=TINY)} | named)
    keys, new_key = [Key(_caller(key), key.sha256) for key in given.keys], None
    if not keys:
        key, is_new = api_key()
        keys, new_key = [Key(Caller(ONE_OWNER), digest_of(key))], key if is_new else None
    folder = root or Path(given.root or os.environ.get("TRAINER_RUNS") or "runs")
    if given.root and folder.absolute() != Path(given.root).absolute():
        raise ConfigError(f"--root: {str(folder)!r} is not the root of {path}, expected {given.root!r}; leave one out")
    offers = {**given.bases, **named}
    _check(offers, str(path or "--base"))
    return Loaded(ApiSettings(folder, offers, keys, given.cap, given.webhooks), new_key)


def _check(offers: Mapping[str, BaseOffer], place: str) -> None:
    """Raises: ConfigError, with all that is wrong in what the jobs of the bases begin with."""
    attempts = Attempts()
    for name, offer in offers.items():
        try:
            offer.run_config({"data.train": "rows.jsonl"})
        except ConfigError as error:
            found = ConfigError(*(f"{place}: bases.{name}: {problem}" for problem in error.problems))
            attempts.errors.append(found)
    attempts.end()


def _caller(key: KeyOffer) -> Caller:
    return Caller(key.name, key.max_jobs, key.max_tokens, key.max_bytes)


def _named(text: str) -> tuple[str, BaseOffer]:
    """`NAME=BASE`, or a hub id that is its own name."""
    name, equals, base = text.partition("=")
    if not re.fullmatch(NAME, name) or (equals and not base):
        raise ConfigError(f"--base: {text!r} is no base, expected a hub id or NAME=BASE, such as llama=meta-llama/…")
    return name, BaseOffer(base=base or name)


__all__ = ["KEY_VARIABLE", "ApiSettings", "BaseOffer", "Loaded", "Webhook", "load_api"]
