"""Talking to a model of the service, piece by piece, or in whole answers to be measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.backends.chat_route import failures_in_words, pieces_of, reply_of, request_body
from trainer.backends.http import patiently
from trainer.backends.openai.client import FineTuningService, Record
from trainer.backends.openai.deploy import model_to_deploy
from trainer.backends.openai.endpoints import find_deployment, newest, openai_at
from trainer.errors import BackendError, ConfigError
from trainer.inference.client import ChatMessage, Piece, Reply, Sampling, Tool
from trainer.runs import Run


@dataclass(frozen=True, slots=True)
class ServiceChat:
    """A model that answers; one that cannot says in `missing` why, once it is asked."""

    service: FineTuningService
    model: str
    missing: str = ""

    @property
    def name(self) -> str:
        return self.model or "base"

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[Piece]:
        self._hold_there()
        with failures_in_words(self.model):
            yield from pieces_of(self._events(self._body(messages, sampling, tools)))

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
        return reply_of(answer, self.model)

    def _hold_there(self) -> None:
        if self.missing:
            raise ConfigError(self.missing)

    def _body(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool]) -> Record:
        limit = "max_tokens" if self.service.is_dated else "max_completion_tokens"
        return request_body(self.model, messages, sampling, tools, limit)

    def _events(self, body: Record) -> Iterator[Record]:
        heard = False
        for chunk in self.service.streaming().chat.completions.create(**body, stream=True):
            heard = True
            yield chunk.to_dict()
        if not heard:
            raise BackendError(f"asking {self.model}: the answer is no stream of pieces; check openai.base_url")


def chat_with(run: Run, endpoint: str | None, base: bool) -> ServiceChat:
    """The run's model, or the one before fine-tuning; `endpoint` names a deployment, or on OpenAI a checkpoint.

    Raises: ConfigError.
    """
    settings = run.config().openai
    if base:
        return _base(run, FineTuningService(settings))
    if settings.service != "azure":
        return ServiceChat(FineTuningService(settings), model_to_deploy(run, endpoint))
    name = endpoint or newest(run)
    if name is None:
        model_to_deploy(run)
        raise ConfigError(
            f"run {run.name!r}: its model is not deployed, expected a deployment to talk to; "
            f"make one with: trainer deploy {run.path}"
        )
    entry = find_deployment(run, name)
    service = FineTuningService(openai_at(settings, entry), has_key=entry is None or "url" not in entry.facts)
    return ServiceChat(service, name if entry is None else entry.thing.key)


def _base(run: Run, service: FineTuningService) -> ServiceChat:
    model = run.manifest().base.name
    if not service.is_azure:
        return ServiceChat(service, model)
    deployment = service.settings.base_deployment or run.status().get("base_deployment")
    missing = "" if deployment else (
        f"openai.base_deployment: is not set in {run.path}/config.yaml, expected the name of a deployment of {model!r} "
        "to compare with; set it there"
    )  # fmt: skip
    return ServiceChat(service, deployment or "", missing)
