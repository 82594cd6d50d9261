"""Answers as JSON by a schema: a question, and the request to say it again where the answer cannot be read."""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from trainer.workshop.asking.reading import read_json
from trainer.workshop.asking.request import Answer, Request

AS_JSON = """\
Your last answer could not be used: {problem}. Give the same answer again as one JSON object of this JSON Schema, \
without a word before or after it:
{schema}"""
ONLY_JSON = """\
Answer with one JSON object and nothing else, no prose and no code fence, of this JSON Schema:
{schema}"""


class Unread(Exception):
    """An answer that cannot be used, nor the one to the request to repair it; the problem in words."""


def asked(
    request: Request, what: str, note: Callable[[Answer], None] = lambda answer: None
) -> Generator[Request, Answer, dict[str, Any]]:
    """The JSON of an answer, which may be given again once; `note` hears each answer. Raises: Unread."""
    answer = yield request
    note(answer)
    value, problem = _read(answer, request)
    if value is None and answer.ended:
        messages = to_repair([dict(each) for each in request.messages], answer.text, problem, request.schema)
        again = yield replace(request, stage="repair", messages=messages)
        note(again)
        value, problem = _read(again, request)
    if value is None:
        raise Unread(f"the answer to the request to {what} cannot be used: {problem}")
    return value


def _read(answer: Answer, request: Request) -> tuple[dict[str, Any] | None, str]:
    if not answer.ended:
        return None, f"it was cut off at {request.max_tokens:,} tokens; raise --max-tokens"
    return read_json(answer.text, request.schema)


def to_repair(messages: Sequence[dict[str, str]], said: str, problem: str, schema: object) -> list[dict[str, str]]:
    """The request to give an unreadable answer again."""
    words = AS_JSON.format(problem=problem, schema=json.dumps(schema, ensure_ascii=False))
    return [*messages, {"role": "assistant", "content": said or "(nothing)"}, {"role": "user", "content": words}]


def in_words(messages: Sequence[dict[str, str]], schema: object) -> list[dict[str, str]]:
    """The messages for an endpoint that takes no schema: it is told the form in words."""
    words = ONLY_JSON.format(schema=json.dumps(schema, ensure_ascii=False))
    first, *rest = messages
    return [{**first, "content": f"{first['content']}\n\n{words}"}, *rest]
