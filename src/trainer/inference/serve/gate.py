"""Before serving: the prompts that this server makes of the training rows are the ones that were trained."""

import json
from typing import TYPE_CHECKING, Any

from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError
from trainer.errors import ParityError
from trainer.inference.probes import request_of, rows_of
from trainer.inference.replies import ReplyReader
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.rendering import PromptRenderer
from trainer.inference.serve.requests import parse_request
from trainer.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainer.data.conversations import Conversation


async def check_prompts(run: Run, trained: Renderer, served: PromptRenderer) -> tuple[int, str]:
    """Number of prompts compared, and the rows that they are from.

    Each trained answer of the run's first rows is asked for as a client would, as JSON through the request's checks.
    Raises: ParityError, at the first prompt that is not the beginning of what was trained.
    """
    rows, reader, num_prompts = rows_of(run), ReplyReader(trained), 0
    for conversation in rows.conversations:
        try:
            expected = list(prompts_in(trained.render(conversation)))
        except RenderingError:
            continue  # such a row was not trained
        answers = [index for index, message in enumerate(conversation.messages) if message.trained]
        for index, prompt in zip(answers, expected, strict=True):
            sent = await _sent(conversation, index, served)
            if sent != prompt and not lacks_nothing(sent, prompt, reader):
                raise ParityError(
                    f"{conversation.place}: the prompt that would be served is not the trained one; "
                    f"{_difference(prompt, sent)}; nothing is served"
                )
            num_prompts += 1
    return num_prompts, rows.source


def lacks_nothing(sent: list[int] | str, prompt: list[int], reader: ReplyReader) -> bool:
    """True if only a thought of nothing stands in `prompt` behind `sent`: templates write it before a plain answer."""
    if isinstance(sent, str) or prompt[: len(sent)] != sent:
        return False
    text, opened = reader.decode(prompt[len(sent) :]), reader.thoughts.opened_by(reader.decode(sent))
    thought, answer = reader.thoughts.split(text, opened)
    return (opened or text.startswith(reader.thoughts.opening)) and not (thought or answer.strip())


def prompts_in(examples: list[Example]) -> "Iterator[list[int]]":
    """Tokens before each supervised answer."""
    for example in examples:
        labels = example.labels
        for at in range(1, len(labels)):
            if labels[at] != IGNORE_INDEX and labels[at - 1] == IGNORE_INDEX:
                yield list(example.input_ids[:at])


async def _sent(conversation: "Conversation", num_messages: int, served: PromptRenderer) -> list[int] | str:
    body: dict[str, Any] = {"model": "x"} | request_of(conversation, num_messages)
    try:
        request = parse_request(json.dumps(body).encode())
        return (await served.prompt(request.rendered_messages(), request.rendered_tools())).ids
    except Refusal as refusal:
        return refusal.message


def _difference(prompt: list[int], sent: list[int] | str) -> str:
    if isinstance(sent, str):
        return f"the server refuses it: {sent}"
    at = next((at for at, (mine, other) in enumerate(zip(prompt, sent, strict=False)) if mine != other), None)
    where = f"they differ at token {at}" if at is not None else "one is longer"
    return f"{where}, {len(prompt)} tokens were trained and {len(sent)} would be sent"
