"""The answerer of models behind a chat endpoint. Probabilities of tokens do not come through it, and so no losses."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from trainer.data.conversations import Conversation
from trainer.data.render.rendering import as_object
from trainer.inference.client import Reply, ReplyClient, Sampling
from trainer.inference.evaluation.measures import ModelKey
from trainer.inference.evaluation.questions import Question, Reference
from trainer.inference.thoughts import parted
from trainer.inference.tool_calls import as_call

AT_ONCE = 4  # questions on their way to the service


@dataclass(frozen=True, slots=True)
class EndpointAnswerer:
    """Each model with the client that reaches it."""

    clients: Mapping[ModelKey, ReplyClient]
    max_new_tokens: int

    @property
    def models(self) -> tuple[ModelKey, ...]:
        return tuple(self.clients)

    def reference(self, conversation: Conversation, message: int) -> Reference:
        """Tool calls come as data and need no template."""
        answer = conversation.messages[message]
        calls = tuple(as_call({"name": call.name, "arguments": call.arguments}) for call in answer.tool_calls)
        text = parted(answer.content or "")[1].strip()
        return Reference(text, tuple(call.name for call in calls), calls)

    def replies(self, model: ModelKey, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Reply]:
        """Raises: BackendError, ConfigError."""
        client, sampling = self.clients[model], Sampling(max_tokens=self.max_new_tokens)

        def answer(question: Question) -> Reply:
            row = question.conversation
            before = [_without_nulls(as_object(said)) for said in row.messages[: question.message]]
            reply = client.reply(before, sampling, row.tools)
            advance(1)
            return Reply(reply.text.strip(), reply.calls, reply.ended, thought=reply.thought.strip())

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(answer, questions))

    def losses(self, model: ModelKey) -> None:
        return None


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}
