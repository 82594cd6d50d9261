"""A row of any recognised shape as chat rows."""

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trainer.data.json_scanner import JsonProblem
from trainer.data.layouts.call_sets import of_glaive, of_xlam
from trainer.data.layouts.columns import Columns, rows_of_columns
from trainer.data.layouts.messages import NotConvertible, Row, chat_messages, chat_tools
from trainer.data.layouts.services import of_batch, of_gemini, plain_messages, system_text
from trainer.data.layouts.thoughts import with_thoughts
from trainer.data.layouts.training_marks import UnclearMark, refuse_untrained
from trainer.data.quoting import quoted
from trainer.data.rules.findings import FindingList
from trainer.data.rules.row import ROW_KEYS, check_row
from trainer.data.rules.rule import Backend
from trainer.data.rules.tools import ToolLists
from trainer.data.strict_json import parse

Shape = Literal[
    "chat", "ShareGPT", "preference", "Alpaca", "prompt and completion", "columns",
    "batch API", "Gemini", "Glaive", "xLAM",
]  # fmt: skip
_WRITTEN_AS_TEXT = (
    "messages",
    "conversations",
    "conversation",
    "contents",
    "chosen",
    "rejected",
    "input",
    "prompt",
    "completion",
)

_LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")

# The ends that OpenAI's guide to its former prompt/completion format advised, for prompts and for completions.
PROMPT_ENDS = ("###", "->")
COMPLETION_ENDS = ("###", " END")


def shape_of(row: Mapping[str, Any], columns: Columns | None = None) -> Shape:
    """Layout of `row`, by the keys that it has; keys that hold null count as absent."""
    if columns is not None:
        return "columns"
    if "messages" in row:
        return "chat"
    if "conversations" in row or "conversation" in row:
        return "ShareGPT"
    if any(isinstance(row.get(key), dict) for key in ("body", "request", "response")):
        return "batch API"
    if isinstance(row.get("contents"), list):
        return "Gemini"
    if isinstance(chat := row.get("chat"), str) and "USER:" in chat:
        return "Glaive"
    if {"query", "answers", "tools"} <= row.keys():
        return "xLAM"
    if "preferred_output" in row or "chosen" in row:
        return "preference"
    if "instruction" in row and "output" in row:
        return "Alpaca"
    return "prompt and completion" if "prompt" in row and "completion" in row else "columns"


def convert_row(row: Mapping[str, Any], columns: Columns | None, dropped: Counter[str]) -> tuple[Shape, list[Row]]:
    """The shape of `row` and what it says as chat rows; keys without a place there are counted in `dropped`.

    Raises: NotConvertible.
    """
    present = system_text(read_lists({key: value for key, value in row.items() if value is not None}))
    shape = shape_of(present, columns)
    try:
        refuse_untrained(present)
    except UnclearMark as error:
        raise NotConvertible(str(error)) from None
    match shape:
        case "chat":
            converted = [_from_chat(present, dropped)]
        case "ShareGPT":
            converted = [_from_sharegpt(present, dropped)]
        case "preference":
            converted = [_from_preference(present, dropped)]
        case "Alpaca":
            converted = [_from_alpaca(present, dropped)]
        case "prompt and completion":
            converted = [_from_completion(present, dropped)]
        case "batch API":
            converted = [_from_chat(of_batch(present, dropped), dropped)]
        case "Gemini":
            converted = [_from_chat(of_gemini(present, dropped), dropped)]
        case "Glaive":
            converted = [_from_chat(of_glaive(present, dropped), dropped)]
        case "xLAM":
            converted = [_from_chat(of_xlam(present, dropped), dropped)]
        case "columns":
            converted = rows_of_columns(row, columns, dropped)
    return shape, converted


def repairs(row: Mapping[str, Any], backend: Backend) -> bool:
    """True if `convert_row` makes rows without a mistake of `row`, and leaves nothing of it out."""
    dropped: Counter[str] = Counter()
    findings = FindingList("", backend)
    try:
        made = convert_row(row, None, dropped)[1]
    except NotConvertible:
        return False
    for one in made:
        check_row(one, ToolLists(), findings)
    return not dropped and not findings.num_errors


def read_lists(row: Mapping[str, Any]) -> Row:
    """The row with the lists that a table holds as text."""
    return {key: _read(key, value) for key, value in row.items()}


def _read(key: str, value: object) -> object:
    """A list that a table, or a file made of one, holds as text; all else as it is.

    Python's own way to write it is what pandas puts into CSV.
    """
    if key not in _WRITTEN_AS_TEXT or not isinstance(value, str) or not _LIST_OF_OBJECTS.match(value):
        return value
    found = parse(value.strip())
    if not isinstance(found, JsonProblem):
        return found
    try:
        written = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return written if isinstance(written, list) else value


def with_system(row: Row, text: str) -> Row:
    """`row`, or the prompt of a preference row, with the system prompt `text`, unless it has one of its own."""
    if "input" in row:
        asked = with_system(row["input"], text)
        return row if asked is row["input"] else row | {"input": asked}
    messages = row["messages"]
    if any(message.get("role") in ("system", "developer") for message in messages):
        return row
    return row | {"messages": [{"role": "system", "content": text}, *messages]}


def _from_chat(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    messages = chat_messages(plain_messages(row["messages"], dropped), dropped)
    kept = _with_tools(row, {"messages": after_system(row, messages)})
    kept |= {key: row[key] for key in ROW_KEYS - {"messages", "tools"} if key in row}
    count_dropped(row, ROW_KEYS | {"system"}, dropped)
    return kept


def _from_sharegpt(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    name = "conversations" if "conversations" in row else "conversation"
    count_dropped(row, {name, "system", "tools"}, dropped)
    messages = chat_messages(plain_messages(row[name], dropped), dropped, name)
    return _with_tools(row, {"messages": after_system(row, messages)})


def _from_preference(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """The prompt and the preferred answer; earlier answers are context, as they are in preference training."""
    source = row.get("input", row.get("prompt"))
    source = source if isinstance(source, dict) and "messages" in source else {"messages": source}
    name = "preferred_output" if "preferred_output" in row else "chosen"
    answer = as_messages(row[name], "assistant", name, dropped)
    asked = source["messages"]
    prompt = as_messages(asked, "user", "input", dropped) if asked is not None else []
    if answer[: len(prompt)] == prompt:  # as some files repeat the prompt before each answer
        prompt, answer = answer[: _start_of_answer(answer)], answer[_start_of_answer(answer) :]
    if all(message.get("role") != "user" for message in prompt):
        raise NotConvertible(f"has {name} without a question, expected one as input or prompt, or in {name} itself")
    count_dropped(row, {"input", "prompt", "system", "tools", name}, dropped)
    count_dropped(source, {"messages", "tools", "parallel_tool_calls"}, dropped, "input.")
    made = _with_tools({**row, **source}, {"messages": after_system(row, [*map(_untrained, prompt), *answer])})
    return made | {key: source[key] for key in ("parallel_tool_calls",) if source.get(key) is not None}


def _start_of_answer(messages: Sequence[Row]) -> int:
    """Index of the first message that answers the last question."""
    return 1 + max((i for i, message in enumerate(messages) if message.get("role") != "assistant"), default=-1)


def _from_alpaca(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    texts = {name: _string(row, name) for name in ("instruction", "input", "output")}
    context = _string(row, "context")
    question = "\n\n".join(text for text in (texts["instruction"], texts["input"], context) if text.strip())
    turns = [_pair(turn, index) for index, turn in enumerate(row.get("history") or [])]
    count_dropped(row, {"instruction", "input", "context", "output", "history", "system"}, dropped)
    pairs = [*turns, (question, texts["output"])]
    return {"messages": after_system(row, [message for pair in pairs for message in _turn(*pair)])}


def _pair(turn: object, index: int) -> tuple[str, str]:
    if isinstance(turn, list) and len(turn) == 2 and isinstance(turn[0], str) and isinstance(turn[1], str):
        return turn[0], turn[1]
    raise NotConvertible(f"history[{index}] is {quoted(turn)}, expected a list of a question and its answer")


def _turn(question: str, answer: str) -> list[Row]:
    return with_thoughts([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def _from_completion(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """Strip the former format's marks at the ends, and the white space around them, if both are texts."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        prompt = _without_end(prompt, PROMPT_ENDS, "prompt", dropped)
        completion = _without_end(completion, COMPLETION_ENDS, "completion", dropped)
        if (context := _string(row, "context")).strip():
            prompt = f"{prompt}\n\n{context}"
    asked = as_messages(prompt, "user", "prompt", dropped)
    answer = as_messages(completion, "assistant", "completion", dropped)
    with_context = {"context"} if isinstance(row["prompt"], str) and isinstance(row["completion"], str) else set()
    count_dropped(row, {"prompt", "completion", "system", "tools", *with_context}, dropped)
    return _with_tools(row, {"messages": after_system(row, [*map(_untrained, asked), *answer])})


def _without_end(text: str, ends: Sequence[str], name: str, dropped: Counter[str]) -> str:
    stripped = text.strip()
    if stripped != text:
        dropped[f"white space around {name}"] += 1
    for end in ends:
        if stripped.endswith(end):
            dropped[f"{end.strip()} at the end of {name}"] += 1
            return stripped.removesuffix(end).rstrip()
    return stripped


def as_messages(value: object, role: str, name: str, dropped: Counter[str]) -> list[Row]:
    """A text as a message of `role`, a list or a single message as it is."""
    if isinstance(value, str):
        return with_thoughts([{"role": role, "content": value}])
    listed = [value] if isinstance(value, dict) else value
    return chat_messages(plain_messages(listed, dropped), dropped, name)


def _untrained(message: Row) -> Row:
    return message | {"weight": 0} if message.get("role") == "assistant" else message


def after_system(row: Mapping[str, Any], messages: list[Row]) -> list[Row]:
    """`messages` behind the row's own key `system`."""
    text = _string(row, "system")
    first = messages[0]
    if not text.strip() or (first.get("role") == "system" and first.get("content") == text):
        return messages
    if first.get("role") in ("system", "developer"):
        raise NotConvertible("has a system message and another text as system, expected one of the two; remove one")
    return [{"role": "system", "content": text}, *messages]


def _with_tools(row: Mapping[str, Any], made: Row) -> Row:
    tools = chat_tools(row.get("tools"))
    return made if tools is None else made | {"tools": tools}


def _string(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise NotConvertible(f"{name} is {quoted(value)}, expected a text")
    return value


def count_dropped(
    row: Mapping[str, Any], carried: "set[str] | frozenset[str]", dropped: Counter[str], prefix: str = ""
) -> None:
    """Count the keys of `row` that hold something and are not `carried`."""
    for key in row.keys() - carried:
        if row[key] not in (None, "", [], {}):
            dropped[prefix + key] += 1
