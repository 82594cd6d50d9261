"""One model behind chat requests: parse, render, generate, answer. Knows nothing of HTTP."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.inference.client import Sampling
from trainer.inference.serve.answers import (
    END_OF_STREAM,
    ChatCompletion,
    FinishReason,
    Usage,
    call_deltas,
    delta_of,
    event,
)
from trainer.inference.serve.limits import Slots
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.requests import ChatRequest
from trainer.inference.serve.text import TextStream
from trainer.inference.serve.trained_prompt import TrainedPrompt
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call, typed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer.inference.serve.engine import ServingEngine
    from trainer.inference.serve.rendering import Prompt, PromptRenderer

T = TypeVar("T")


@dataclass
class _Progress:
    """State of an answer in the making."""

    num_tokens: int = 0
    last_token: int = -1
    pieces: list[Thought | str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @property
    def thought(self) -> str:
        return "".join(piece.text for piece in self.pieces if isinstance(piece, Thought))

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    def finish_reason(self, stops: list[int], stopped: bool) -> FinishReason:
        if self.calls:
            return "tool_calls"
        return "stop" if stopped or self.last_token in stops else "length"


class Service:
    """A loaded model, its tokenizer, and the limits of its use, of which `places` may be those of others too."""

    def __init__(
        self,
        name: str,
        fingerprint: str,
        engine: "ServingEngine",
        renderer: "PromptRenderer",
        tokenizer: "PreTrainedTokenizerBase",
        places: Slots,
        trained: TrainedPrompt,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """`release` lets go of what only this model needs, once it answers no more."""
        self.name, self.fingerprint = name, fingerprint
        self.engine, self.renderer, self.tokenizer = engine, renderer, tokenizer
        self.places, self.limits, self.trained, self.release = places, places.limits, trained, release

    def stop(self) -> None:
        """End the thread that generates; requests in progress fail."""
        self.engine.stop()
        self.release()

    async def prompt(self, request: ChatRequest) -> "Prompt":
        """The prompt that the model gets. Raises: Refusal."""
        messages, tools = request.rendered_messages(), request.rendered_tools()
        num_bytes = len(json.dumps([messages, tools], ensure_ascii=False).encode(errors="replace"))
        max_length = self.engine.max_length
        if num_bytes > self.limits.max_bytes_a_token * max_length:  # refused without rendering it
            message = f"the messages have {num_bytes:,} bytes, expected fewer than {max_length:,} tokens"
            raise Refusal(400, message, "context_length_exceeded", "messages")
        return await self.renderer.prompt(messages, tools)

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        """The whole answer. Raises: Refusal."""
        with self.places.one():
            async with self._in_time():
                prompt = await self.prompt(request)
                sampling = request.sampling(len(prompt.ids), self.engine.max_length, self.limits)
                stream, progress = self._text_stream(request, prompt), _Progress()
                whole = not request.stops and stream.opening is None
                async for piece in self._pieces(request, prompt, sampling, stream, progress, whole):
                    progress.pieces.append(piece)
        reason = progress.finish_reason(self.engine.stops, stream.stopped)
        usage = Usage(len(prompt.ids), progress.num_tokens, stream.num_thought_tokens)
        answer = ChatCompletion(self.name, self.fingerprint)
        return answer.whole(progress.thought, progress.text, progress.calls, reason, usage)

    async def events(self, request: ChatRequest) -> AsyncGenerator[bytes]:
        """The answer as server-sent events. The first is yielded only when generation has begun.

        Raises: Refusal, before the first event. What fails later is an event.
        """
        answer, progress = ChatCompletion(self.name, self.fingerprint), _Progress()
        with self.places.one():
            async with self._in_time():
                prompt = await self.prompt(request)
                sampling = request.sampling(len(prompt.ids), self.engine.max_length, self.limits)
            stream = self._text_stream(request, prompt)
            yield answer.chunk({"role": "assistant", "content": ""}, with_usage=request.include_usage)
            try:
                async for chunk in self._chunks(request, answer, prompt, sampling, stream, progress):
                    yield chunk
            except Refusal as refusal:
                yield event(refusal.body)
                return
        if request.include_usage:
            yield answer.usage_chunk(Usage(len(prompt.ids), progress.num_tokens, stream.num_thought_tokens))
        yield END_OF_STREAM

    async def _chunks(
        self,
        request: ChatRequest,
        answer: ChatCompletion,
        prompt: "Prompt",
        sampling: Sampling,
        stream: TextStream,
        progress: _Progress,
    ) -> AsyncGenerator[bytes]:
        with_usage = request.include_usage
        async with self._in_time(), aclosing(self._pieces(request, prompt, sampling, stream, progress)) as pieces:
            async for piece in pieces:
                yield answer.chunk(delta_of(piece), with_usage=with_usage)
        if progress.calls:
            yield answer.chunk(call_deltas(progress.calls), with_usage=with_usage)
        reason = progress.finish_reason(self.engine.stops, stream.stopped)
        yield answer.chunk({}, reason, with_usage)

    async def _pieces(
        self,
        request: ChatRequest,
        prompt: "Prompt",
        sampling: Sampling,
        stream: TextStream,
        progress: _Progress,
        whole: bool = False,
    ) -> AsyncGenerator[Thought | str]:
        """Thought and text as they can be shown; counts and calls go into `progress`."""
        async with aclosing(self.engine.tokens(prompt.ids, sampling, whole)) as batches:
            async for tokens in batches:
                progress.num_tokens += len(tokens)
                progress.last_token = tokens[-1] if tokens else progress.last_token
                for piece in _joined(stream.feed(token for token in tokens if token not in self.engine.stops)):
                    yield piece
                if stream.stopped:
                    return
        for piece in stream.finish():
            yield piece
        if stream.call_text and self.renderer.call_form is not None:
            text, calls = self.renderer.call_form.read(stream.call_text)
            progress.calls = [typed(call, request.rendered_tools() or ()) for call in calls]
            if text := text if calls else stream.call_text:  # begun as a call, and none
                yield stream.cleaned(text)

    def _text_stream(self, request: ChatRequest, prompt: "Prompt") -> TextStream:
        form = self.renderer.call_form if request.rendered_tools() else None
        opening = form.opening if form else None
        return TextStream(self.tokenizer, request.stops, opening, self.renderer.thoughts, prompt.opens_thought)

    def _in_time(self) -> "_InTime":
        return _InTime(self.limits.max_seconds)


def _joined(pieces: Iterable[Thought | str]) -> Iterator[Thought | str]:
    """Neighbours of one kind as one piece: what comes at a time is sent at a time."""
    for kind, group in groupby(pieces, key=type):
        if kind is Thought:
            yield Thought("".join(piece.text for piece in group if isinstance(piece, Thought)))
        else:
            yield "".join(piece for piece in group if isinstance(piece, str))


class _InTime:
    """A block that takes at most so many seconds. Raises: Refusal, when it takes longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exception: Any) -> None:
        try:
            await self._timeout.__aexit__(*exception)
        except TimeoutError:
            raise Refusal(
                504, f"the answer took longer than {self.seconds:g} seconds", "timeout", kind="server_error"
            ) from None


async def in_thread(work: Callable[[], T]) -> T:
    """Like asyncio.to_thread, in a thread that does not keep the process from ending.

    Raises: RuntimeError, for what would end the event loop: SystemExit, and what else is no Exception.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def body() -> None:
        result: T | None = None
        error: Exception | None = None
        try:
            result = work()
        except StopIteration as caught:  # which no future takes
            error = RuntimeError(f"StopIteration: {caught}")
        except Exception as caught:
            error = caught
        except BaseException as caught:
            error = RuntimeError(f"{type(caught).__name__}: {caught}")
            error.__cause__ = caught
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=body, daemon=True).start()
    return await future
