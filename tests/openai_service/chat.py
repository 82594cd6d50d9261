"""Chat completions. A tuned model has learned its rows by heart; a base model has not."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.files import messages_of
from tests.openai_service.models import Models
from tests.openai_service.state import State, placed
from tests.openai_service.wire import Refused, Route, not_found


class Chat:
    def __init__(self, state: State, models: Models) -> None:
        self.state, self.models = state, models

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/chat/completions", self.complete),
            Route("POST", "/deployments/<name>/chat/completions", self.complete),
        ]

    def complete(self, request: Request, name: str | None = None) -> Response:
        body = request.json()
        model = self._model(placed(request.host.partition(".")[0], name or body["model"]))
        answer = self._answer(model, body["messages"])
        usage = {
            "prompt_tokens": sum(len(str(message.get("content"))) // 4 for message in body["messages"]),
            "completion_tokens": len(answer) // 4 + 1,
        }
        usage["total_tokens"] = sum(usage.values())
        key = self.state.new_id("chatcmpl-")
        common = {"id": key, "created": self.state.at, "model": model, "system_fingerprint": "fp_loopback"}
        if body.get("stream"):
            return Response(200, _streamed(common, answer, body, usage), {"Content-Type": "text/event-stream"})
        message = {"role": "assistant", "content": answer, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return Response(200, common | {"object": "chat.completion", "choices": [choice], "usage": usage})

    def _model(self, name: str) -> str:
        """The model behind a name. On Azure the name is a deployment's, on OpenAI a model's."""
        if self.state.is_azure:
            deployment = self.state.deployments.get(name)
            if deployment is None or deployment.state != "Succeeded":
                raise Refused(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
            deployment.used_at = self.state.clock.now
            return deployment.model
        if name not in self.state.models and self.models.find_base(name) is None:
            raise not_found("model", name)
        return name

    def _answer(self, model: str, messages: list[dict[str, Any]]) -> str:
        question = next(str(m.get("content")) for m in reversed(messages) if m["role"] == "user")
        tuned = self.state.models.get(model)
        if tuned is None:
            return f"I am {model} and was not trained on this. You asked: {question}"
        known = {_text(row, "user"): _text(row, "assistant") for row in tuned.rows}
        return known[_nearest(question, list(known))] if known else "I have learned nothing."


def _nearest(question: str, known: list[str]) -> str:
    """The known question that shares the rarest words."""
    words = {one: set(re.findall(r"\w+", one.lower())) for one in [*known, question]}
    how_many = Counter(word for one in known for word in words[one])
    return max(known, key=lambda one: sum(1 / how_many[word] for word in words[one] & words[question]))


def _text(row: dict[str, Any], role: str) -> str:
    return next((str(message.get("content")) for message in messages_of(row) if message["role"] == role), "")


def _streamed(common: dict[str, Any], answer: str, body: dict[str, Any], usage: dict[str, int]) -> bytes:
    def chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
        found = common | {"object": "chat.completion.chunk", "choices": choices, **more}
        return b"data: " + json.dumps(found).encode() + b"\n\n"

    def chunks() -> Iterator[bytes]:
        first = True
        for word in answer.split(" "):
            delta = {"content": word if first else " " + word} | ({"role": "assistant"} if first else {})
            yield chunk([{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}])
            first = False
        yield chunk([{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}])
        if (body.get("stream_options") or {}).get("include_usage"):
            yield chunk([], usage=usage)
        yield b"data: [DONE]\n\n"

    return b"".join(chunks())
