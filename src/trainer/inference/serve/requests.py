"""The body of a chat request, checked: what is not understood or cannot be honoured is refused, never ignored."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from trainer.inference.client import Sampling
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.refusals import Refusal

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


def _without_nulls(value: Any) -> Any:
    """The official client sends an answer back with every field it has, empty ones as null."""
    return {key: field for key, field in value.items() if field is not None} if isinstance(value, dict) else value


class _Part(BaseModel):
    """Text part of a message; images, audio and files are refused, as no model here names them."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class _Function(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: FunctionName
    arguments: str


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"]
    function: _Function

    @model_validator(mode="after")
    def _arguments_are_an_object(self) -> Self:
        try:
            value = from_json(self.function.arguments)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise PydanticCustomError("arguments", "arguments are no JSON object, expected one as a string")
        return self


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise PydanticCustomError("content", "content is missing, expected text")
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("tool_calls", "tool_calls stand on a {role} message", {"role": self.role})
        if self.reasoning_content is not None and self.role != "assistant":
            raise PydanticCustomError(
                "reasoning_content", "reasoning_content stands on a {role} message", {"role": self.role}
            )
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise PydanticCustomError("tool_call_id", "tool_call_id is expected on tool messages, and on no others")
        return self

    def as_object(self) -> dict[str, Any]:
        """As it is rendered: text parts joined, as in the training data."""
        content = self.content
        text = "".join(part.text for part in content) if isinstance(content, list) else content
        calls = [call.model_dump() for call in self.tool_calls or ()]
        return {
            "role": self.role,
            "content": text,
            "reasoning_content": self.reasoning_content or None,
            "name": self.name,
            "tool_calls": calls or None,
            "tool_call_id": self.tool_call_id,
        }


class _ToolFunction(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    name: FunctionName


class _Tool(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    type: Literal["function"]
    function: _ToolFunction


def _as_it_is(value: Any) -> Any:
    """A tool that has the right form, unchanged: the order of its keys is part of what was trained."""
    _Tool.model_validate(value)
    return value


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _TextFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]


class ChatRequest(BaseModel):
    """A request to /v1/chat/completions. A field that takes one value only cannot be honoured with another."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: Annotated[list[Annotated[_Message, BeforeValidator(_without_nulls)]], Field(min_length=1)]
    tools: list[Annotated[dict[str, Any], BeforeValidator(_as_it_is)]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = None
    seed: int | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Literal[1] | None = None
    response_format: _TextFormat | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    store: Literal[False] | None = None
    parallel_tool_calls: Literal[True] | None = None
    user: str | None = None  # these two name the caller and change no answer
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if isinstance(self.stop, list) and len(self.stop) > 4:
            raise PydanticCustomError("stop", "stop has {count} strings, expected at most 4", {"count": len(self.stop)})
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise PydanticCustomError("both", "max_tokens and max_completion_tokens differ, expected one of them")
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "stream_options are given without stream")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def rendered_messages(self) -> list[dict[str, Any]]:
        return [message.as_object() for message in self.messages]

    def rendered_tools(self) -> list[dict[str, Any]] | None:
        return (self.tools or None) if self.tool_choice != "none" else None

    def sampling(self, num_prompt_tokens: int, max_length: int, limits: Limits) -> Sampling:
        """Sampling for this request. Raises: Refusal, when the prompt or the answer would be too long."""
        room = max_length - num_prompt_tokens
        if room < 1:
            message = f"the messages have {num_prompt_tokens:,} tokens, expected fewer than {max_length:,}"
            raise Refusal(400, message, "context_length_exceeded", "messages")
        asked = self.max_completion_tokens or self.max_tokens
        if asked is not None and asked > limits.max_tokens:
            message = f"max_tokens is {asked:,}, expected at most {limits.max_tokens:,} on this server"
            raise Refusal(400, message, "max_tokens_exceeded", "max_tokens")
        return Sampling(
            max_tokens=min(asked or limits.max_tokens, room),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=secrets.randbits(32) if self.seed is None else self.seed,
        )


def parse_request(body: bytes) -> ChatRequest:
    """Raises: Refusal, naming the first field that is wrong."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}", "invalid_json") from None
    try:
        return ChatRequest.model_validate(value)
    except ValidationError as error:
        raise _refusal(_deepest(error.errors(include_url=False))) from None


def _deepest(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first problem, or the one further inside where its field may have several forms."""
    place = _field_path(problems[0]["loc"])
    return max((one for one in problems if _field_path(one["loc"]).startswith(place)), key=lambda one: len(one["loc"]))


def _refusal(problem: Mapping[str, Any]) -> Refusal:
    place = _field_path(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return Refusal(400, f"{place} is not supported by this server; leave it out", "unsupported_parameter", place)
    where = f"{place}: " if place else "the body: "
    return Refusal(400, f"{where}{problem['msg']}", "invalid_value", place or None)


def _field_path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; names of alternatives, which pydantic adds for unions, are left out."""
    place = ""
    for step in location:
        if isinstance(step, int):
            place += f"[{step}]"
        elif step in _FIELDS:
            place += f".{step}" if place else step
        elif not place:
            place = str(step)[:80]
    return place


_FIELDS = {
    name
    for model in (ChatRequest, _Message, _Part, _Call, _Function, _Tool, _ToolFunction, _StreamOptions, _TextFormat)
    for name in model.model_fields
}
