"""Talking to a model of the service, piece by piece, or in whole answers to be measured."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.backends.http import failure_of, is_failure, patiently, refusal
from trainer.backends.openai.client import Record, Service
from trainer.backends.openai.deployment_plan import model_to_deploy
from trainer.backends.openai.deployments import newest
from trainer.errors import BackendError, ConfigError
from trainer.inference.client import ChatMessage, Sampling, Tool
from trainer.inference.tool_calls import Call
from trainer.runs import Run


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `ended` is False where it was cut off."""

    text: str
    calls: tuple[Call, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Chat:
    """A model that answers; one that cannot says in `missing` why, once it is asked."""

    service: Service
    model: str
    missing: str = ""

    @property
    def name(self) -> str:
        return self.model or "base"

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[str | Call]:
        self._hold_there()
        try:
            yield from self._pieces(self._body(messages, sampling, tools))
        except Exception as error:
            if not is_failure(error):
                raise
            raise refusal(failure_of(error), f"asking {self.model}") from error

    def reply(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()) -> Reply:
        """The whole answer. Asked again where the network or the service stumbles. Raises: BackendError."""
        self._hold_there()
        body = self._body(messages, sampling, tools)
        answer = patiently(
            lambda: self.service.ask(
                lambda client: client.chat.completions.with_raw_response.create(**body).http_response, "choices"
            ),
            f"asking {self.model}",
        )
        choice: Record = next((item for item in answer["choices"] if isinstance(item, dict)), {})
        message: Record = choice.get("message") or {}
        calls = tuple(as_call(item.get("function") or {}) for item in message.get("tool_calls") or [])
        text = str(message.get("content") or message.get("refusal") or "")
        return Reply(text.strip(), calls, choice.get("finish_reason") != "length")

    def _hold_there(self) -> None:
        if self.missing:
            raise ConfigError(self.missing)

    def _body(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool]) -> Record:
        limit = "max_tokens" if self.service.is_dated else "max_completion_tokens"
        body: Record = {"model": self.model, "messages": [dict(message) for message in messages]}
        body |= {limit: sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p}
        body["seed"] = sampling.seed
        return body | ({"tools": [dict(tool) for tool in tools]} if tools else {})

    def _pieces(self, body: Record) -> Iterator[str | Call]:
        calls: dict[int, dict[str, str]] = {}
        heard = False
        for chunk in self.service.streaming().chat.completions.create(**body, stream=True):
            heard = True
            for choice in chunk.choices or []:  # Azure's first piece, on its content filter, has none
                delta = choice.delta
                if delta is None:
                    continue
                if text := delta.content or delta.refusal:
                    yield text
                for part in delta.tool_calls or []:
                    _add(calls.setdefault(part.index, {"name": "", "arguments": ""}), part.function)
        if not heard:
            raise BackendError(f"asking {self.model}: the answer is no stream of pieces; check openai.base_url")
        for _, found in sorted(calls.items()):
            yield as_call(found)


def chat_with(run: Run, endpoint: str | None, base: bool) -> Chat:
    """The run's model, or the one before fine-tuning; `endpoint` names a deployment, or on OpenAI a checkpoint.

    Raises: ConfigError.
    """
    settings = run.config().openai
    service = Service(settings)
    if base:
        return _base(run, service)
    if not service.is_azure:
        return Chat(service, model_to_deploy(run, endpoint))
    name = endpoint or newest(run)
    if name is None:
        model_to_deploy(run)
        raise ConfigError(
            f"run {run.name!r}: its model is not deployed, expected a deployment to talk to; "
            f"make one with: trainer deploy {run.path}"
        )
    return Chat(service, name)


def _base(run: Run, service: Service) -> Chat:
    model = str(run.manifest().get("base", {}).get("name", ""))
    if not service.is_azure:
        return Chat(service, model)
    deployment = service.settings.base_deployment or run.status().get("base_deployment")
    missing = "" if deployment else (
        f"openai.base_deployment: is not set in {run.path}/config.yaml, expected the name of a deployment of {model!r} "
        "to compare with; set it there"
    )  # fmt: skip
    return Chat(service, deployment or "", missing)


def _add(found: dict[str, str], function: Any) -> None:
    """A call comes in pieces: its name at first, then its arguments."""
    if function is not None:
        found["name"] += function.name or ""
        found["arguments"] += function.arguments or ""


def as_call(function: Record) -> Call:
    """A call; one whose arguments are no JSON object keeps them as text: so a wrong one stays wrong."""
    text = str(function.get("arguments") or "{}")
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    return Call(str(function.get("name") or ""), arguments if isinstance(arguments, dict) else {"": text})
