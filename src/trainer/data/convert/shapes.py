"""A row of any recognised shape as chat rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trainer.data.convert.columns import Columns, rows_of_columns
from trainer.data.convert.messages import NotConvertible, Row, chat_messages, chat_tools
from trainer.data.convert.training_marks import UnclearMark, refuse_untrained
from trainer.data.quoting import quoted
from trainer.data.rules.row import ROW_KEYS

Shape = Literal["chat", "ShareGPT", "preference", "Alpaca", "prompt and completion", "columns"]

# The ends that OpenAI's guide to its former prompt/completion format advised, for prompts and for completions.
PROMPT_ENDS = ("###", "->")
COMPLETION_ENDS = ("###", " END")


def shape_of(row: Mapping[str, Any], columns: Columns | None = None) -> Shape:
    """What `row` is written as, by the keys that it has; keys that hold null count as absent."""
    if columns is not None:
        return "columns"
    if "messages" in row:
        return "chat"
    if "conversations" in row or "conversation" in row:
        return "ShareGPT"
    if "preferred_output" in row or "chosen" in row:
        return "preference"
    if "instruction" in row and "output" in row:
        return "Alpaca"
    return "prompt and completion" if "prompt" in row and "completion" in row else "columns"


def convert_row(row: Mapping[str, Any], columns: Columns | None, dropped: Counter[str]) -> tuple[Shape, list[Row]]:
    """The shape of `row` and what it says as chat rows; keys without a place there are counted in `dropped`.

    Raises: NotConvertible.
    """
    present = {key: value for key, value in row.items() if value is not None}
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
        case "columns":
            converted = rows_of_columns(row, columns, dropped)
    return shape, converted


def with_system(row: Row, text: str) -> Row:
    """`row` with the system prompt `text`, unless it has one of its own."""
    messages = row["messages"]
    if any(message.get("role") in ("system", "developer") for message in messages):
        return row
    return row | {"messages": [{"role": "system", "content": text}, *messages]}


def _from_chat(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    kept = _with_tools(row, {"messages": chat_messages(row["messages"], dropped)})
    kept |= {key: row[key] for key in ROW_KEYS - {"messages", "tools"} if key in row}
    _count(row, ROW_KEYS, dropped)
    return kept


def _from_sharegpt(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    name = "conversations" if "conversations" in row else "conversation"
    _count(row, {name, "system", "tools"}, dropped)
    messages = chat_messages(row[name], dropped, name)
    return _with_tools(row, {"messages": _after_system(row, messages)})


def _from_preference(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """The prompt and the preferred answer; earlier answers are context, as they are in preference training."""
    source = row.get("input", row.get("prompt"))
    source = source if isinstance(source, dict) and "messages" in source else {"messages": source}
    name = "preferred_output" if "preferred_output" in row else "chosen"
    answer = _as_messages(row[name], "assistant", name, dropped)
    asked = source["messages"]
    prompt = _as_messages(asked, "user", "input", dropped) if asked is not None else []
    if answer[: len(prompt)] == prompt:  # as some files repeat the prompt before each answer
        prompt, answer = answer[: _start_of_answer(answer)], answer[_start_of_answer(answer) :]
    if all(message.get("role") != "user" for message in prompt):
        raise NotConvertible(f"has {name} without a question, expected one as input or prompt, or in {name} itself")
    _count(row, {"input", "prompt", "system", "tools", name}, dropped)
    _count(source, {"messages", "tools", "parallel_tool_calls"}, dropped, "input.")
    made = _with_tools({**row, **source}, {"messages": _after_system(row, [*map(_untrained, prompt), *answer])})
    return made | {key: source[key] for key in ("parallel_tool_calls",) if source.get(key) is not None}


def _start_of_answer(messages: Sequence[Row]) -> int:
    """Where the answer to the last question begins."""
    return 1 + max((i for i, message in enumerate(messages) if message.get("role") != "assistant"), default=-1)


def _from_alpaca(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    texts = {name: _string(row, name) for name in ("instruction", "input", "output")}
    context = _string(row, "context")
    question = "\n\n".join(text for text in (texts["instruction"], texts["input"], context) if text.strip())
    turns = [_pair(turn, index) for index, turn in enumerate(row.get("history") or [])]
    _count(row, {"instruction", "input", "context", "output", "history", "system"}, dropped)
    pairs = [*turns, (question, texts["output"])]
    return {"messages": _after_system(row, [message for pair in pairs for message in _turn(*pair)])}


def _pair(turn: object, index: int) -> tuple[str, str]:
    if isinstance(turn, list) and len(turn) == 2 and isinstance(turn[0], str) and isinstance(turn[1], str):
        return turn[0], turn[1]
    raise NotConvertible(f"history[{index}] is {quoted(turn)}, expected a list of a question and its answer")


def _turn(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _from_completion(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """Where both are texts, the marks of the former format at their ends and the white space around them go."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        prompt = _without_end(prompt, PROMPT_ENDS, "prompt", dropped)
        completion = _without_end(completion, COMPLETION_ENDS, "completion", dropped)
        if (context := _string(row, "context")).strip():
            prompt = f"{prompt}\n\n{context}"
    asked = _as_messages(prompt, "user", "prompt", dropped)
    answer = _as_messages(completion, "assistant", "completion", dropped)
    with_context = {"context"} if isinstance(row["prompt"], str) and isinstance(row["completion"], str) else set()
    _count(row, {"prompt", "completion", "system", "tools", *with_context}, dropped)
    return _with_tools(row, {"messages": _after_system(row, [*map(_untrained, asked), *answer])})


def _without_end(text: str, ends: Sequence[str], name: str, dropped: Counter[str]) -> str:
    stripped = text.strip()
    if stripped != text:
        dropped[f"white space around {name}"] += 1
    for end in ends:
        if stripped.endswith(end):
            dropped[f"{end.strip()} at the end of {name}"] += 1
            return stripped.removesuffix(end).rstrip()
    return stripped


def _as_messages(value: object, role: str, name: str, dropped: Counter[str]) -> list[Row]:
    """A text as a message of `role`, a list or a single message as it is."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return chat_messages([value] if isinstance(value, dict) else value, dropped, name)


def _untrained(message: Row) -> Row:
    return message | {"weight": 0} if message.get("role") == "assistant" else message


def _after_system(row: Mapping[str, Any], messages: list[Row]) -> list[Row]:
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


def _count(
    row: Mapping[str, Any], carried: "set[str] | frozenset[str]", dropped: Counter[str], prefix: str = ""
) -> None:
    for key in row.keys() - carried:
        if row[key] not in (None, "", [], {}):
            dropped[prefix + key] += 1
