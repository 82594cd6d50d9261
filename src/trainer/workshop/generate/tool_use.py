"""The kind `tool-use`: what a person wants, and the call of an operation that does it, or a question back."""

import json
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.strict_json import parse
from trainer.errors import quoted
from trainer.workshop.asking.request import digest
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.kind import Brief, Item, Kind, Row, Unusable, filled, text

TASK = """\
The source describes an operation of an API that an assistant can call as a function. Each example is what a person \
asks the assistant for, and the arguments of the one call that does it. The person does not know the API: they speak \
of what they want, and name every value that the call needs in words of their own. `arguments` is the JSON object of \
the call: values come from the person's words alone, in the form that the parameters ask for; what they leave open \
and the call does not need is left out. `reply` is empty. Only where the form of an example says that a required value \
is missing, the assistant makes no call: `arguments` is empty, and `reply` asks for that value in a short question."""
MISSING = "a request in which a required value is missing (where none is required: one with optional values)"
MOST_OTHERS = 3  # tools beside the right one, among which a model learns to choose
FORMS = (
    "a request with the values that are required only",
    "a request with optional values too",
    "a request within a sentence about something else",
    "a request as a question",
    "a request with values in everyday words, such as dates or units, that the call wants in another form",
    MISSING,
)


def _row(item: Item, verdict: Item | None, chunk: Chunk, brief: Brief) -> Row:
    (request,) = filled(item, "request")
    function = json.loads(chunk.function)
    messages = [*brief.opening, {"role": "user", "content": request}, _answer(item, function, chunk)]
    return {"messages": messages, "tools": _tools(function, chunk, brief)}


def _answer(item: Item, function: dict[str, Any], chunk: Chunk) -> dict[str, Any]:
    """The call, or the question for a value that it cannot go without. Raises: Unusable."""
    if not str(item["arguments"]).strip():
        if not (function.get("parameters") or {}).get("required"):
            raise Unusable("it asks for a value where the function requires none")
        return {"role": "assistant", "content": filled(item, "reply")[0]}
    arguments = _arguments(str(item["arguments"]), function)
    call = {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
    name = f"call_{digest(chunk.id, str(item['request']))[:12]}"
    return {"role": "assistant", "tool_calls": [{"id": name, "type": "function", "function": call}]}


def _tools(function: dict[str, Any], chunk: Chunk, brief: Brief) -> list[dict[str, Any]]:
    """The function and up to three others, drawn by the chunk, in an order that does not tell the right one."""
    others = {each["name"]: each for each in map(json.loads, brief.functions) if each["name"] != function["name"]}
    drawn = sorted(others, key=lambda name: digest("tools", chunk.id, name))[:MOST_OTHERS]
    functions = sorted([function, *(others[name] for name in drawn)], key=lambda each: str(each["name"]))
    return [{"type": "function", "function": each} for each in functions]


def _arguments(said: str, function: dict[str, Any]) -> dict[str, Any]:
    """The arguments, which the function's parameters allow. Raises: Unusable."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    value = parse(said)
    if isinstance(value, JsonProblem) or not isinstance(value, dict):
        raise Unusable("its arguments are no JSON object")
    schema = function.get("parameters") or {}
    try:
        error = best_match(Draft202012Validator(schema).iter_errors(value))
    except Exception as mistake:  # of a schema that somebody has written: an unknown type, a pattern of another dialect
        raise Unusable(f"the schema of its function cannot be used: {quoted(str(mistake), 120)[1:-1]}") from None
    if error is not None:
        raise Unusable(f"its arguments are not what the function takes: {quoted(error.message, 120)[1:-1]}")
    return value


TOOL_USE = Kind(
    name="tool-use",
    summary="requests, and the calls of an API that answer them: from OpenAPI files",
    task=lambda brief: TASK,
    fields=lambda brief: {
        "request": text("what the person asks for"),
        "arguments": text("the arguments of the call, a JSON object as text; empty where a value is missing"),
        "reply": text("the assistant's question for a value that is missing; empty where it calls"),
    },
    forms=lambda brief: FORMS,
    judged=lambda brief: (
        "An example passes only if the operation does what its request asks for, and its arguments "
        "hold every value that the request names, in the form that the source asks for, and no other value. Where the "
        "arguments are empty it passes only if the request lacks a required value and the reply asks for it."
    ),
    row=_row,
    prompt_of=lambda item, chunk: str(item["request"]),
    needs_function=True,
    row_tokens=130,
)
