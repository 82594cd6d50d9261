"""A row of two answers, one of them preferred, in the service's preference format.

The layouts: the service's own, which Together and Fireworks share; TRL's prompt, chosen and rejected, as texts or
messages, the prompt apart or at the head of both; LLaMA-Factory's, with the prompt as ShareGPT or Alpaca has it;
ms-swift's rejected_response or rejected_messages beside messages; and the dialogues of HH-RLHF, in one text each.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from trainer.data.layouts.messages import NotConvertible, Row, chat_tools
from trainer.data.layouts.services import system_text
from trainer.data.layouts.shapes import after_system, as_messages, count_dropped, read_lists
from trainer.data.layouts.thoughts import with_thoughts
from trainer.data.layouts.training_marks import UnclearMark, refuse_untrained
from trainer.data.quoting import listed

PREFERRED = ("preferred_output", "chosen", "chosen_response")
OTHERS = ("non_preferred_output", "rejected", "rejected_response", "rejected_messages")
PROMPTS = ("input", "prompt", "conversations", "conversation", "question")
_INPUT_KEYS = {"messages", "tools", "parallel_tool_calls"}
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")  # HH-RLHF's


def pair_of(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """The preference row that `row` says; keys without a place in it are counted in `dropped`.

    Raises: NotConvertible.
    """
    present = system_text(read_lists({key: value for key, value in row.items() if value is not None}))
    try:
        refuse_untrained(present)
    except UnclearMark as error:
        raise NotConvertible(str(error)) from None
    names = _names(present)
    answers = [_answer(present, name, dropped) for name in names]
    source, prompt = _prompt(present, dropped)
    prompt, preferred, other = _divided(prompt, *answers)
    if all(message.get("role") != "user" for message in prompt):
        raise NotConvertible(
            f"has {listed(names)} without a question, expected one as input or prompt, or at the head of both"
        )
    asked: Row = {"messages": after_system(present, prompt)}
    if tools := chat_tools(source.get("tools", present.get("tools"))):
        asked["tools"] = tools
    if source.get("parallel_tool_calls") is not None:
        asked["parallel_tool_calls"] = source["parallel_tool_calls"]
    _count_others(present, source, names, dropped)
    both = {"preferred_output": preferred, "non_preferred_output": other}
    return {"input": asked} | {key: _unweighted(both[key], name) for key, name in zip(both, names, strict=True)}


def has_two_answers(row: Mapping[str, Any]) -> bool:
    """True if `row` names a preferred and another answer, in whatever layout."""
    return any(name in row for name in PREFERRED) and any(name in row for name in OTHERS)


def _names(row: Mapping[str, Any]) -> list[str]:
    """The keys of the preferred answer and of the other one. Raises: NotConvertible."""
    found = [next((name for name in names if name in row), "") for names in ((*PREFERRED, "messages"), OTHERS)]
    if not all(found):
        raise NotConvertible(
            "has no two answers, expected preferred_output and non_preferred_output, or chosen and rejected; convert "
            "rows of one answer with --to sft"
        )
    return found


def _divided(prompt: list[Row], preferred: list[Row], other: list[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Prompt, preferred and other answer: without a prompt of its own, that is all with which both begin."""
    if prompt:
        return prompt, _behind(prompt, preferred), _behind(prompt, other)
    if preferred[:1] != other[:1]:  # the other is an answer alone, to all but the last of the messages
        return preferred[:-1], preferred[-1:], other
    same = len([*takewhile(lambda both: both[0] == both[1], zip(preferred, other, strict=False))])
    return preferred[:same], preferred[same:], other[same:]


def _answer(row: Mapping[str, Any], name: str, dropped: Counter[str]) -> list[Row]:
    value = row[name]
    if isinstance(value, str) and (dialogue := _dialogue(value)):
        return dialogue
    return as_messages(value, "assistant", name, dropped)


def _dialogue(text: str) -> list[Row]:
    """The turns of a text with a speaker before each; empty where it has none."""
    if len(_TURN.findall(text)) < 2 or not _TURN.match(text):
        return []
    _, *parts = _TURN.split(text)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return with_thoughts([{"role": _SPEAKERS[speaker], "content": said.strip()} for speaker, said in turns])


def _prompt(row: Mapping[str, Any], dropped: Counter[str]) -> tuple[Mapping[str, Any], list[Row]]:
    """The object that holds the prompt with its tools, and the prompt; empty where the answers hold it."""
    if isinstance(row.get("instruction"), str):  # Alpaca's
        texts = [row["instruction"], row.get("input") or ""]
        question = "\n\n".join(text for text in texts if isinstance(text, str) and text.strip())
        return {}, [{"role": "user", "content": question}]
    name = next((name for name in PROMPTS if row.get(name) not in (None, "", [])), None)
    if name is None:
        return {}, []
    value = row[name]
    if isinstance(value, str) and (dialogue := _dialogue(value)):
        return {}, dialogue if dialogue[-1]["content"] else dialogue[:-1]
    source = value if isinstance(value, dict) and "messages" in value else {"messages": value}
    return source, as_messages(source["messages"], "user", name, dropped)


def _behind(prompt: list[Row], answer: list[Row]) -> list[Row]:
    """The answer without the prompt, where it repeats that."""
    return answer[len(prompt) :] if answer[: len(prompt)] == prompt else answer


def _unweighted(answer: list[Row], name: str) -> list[Row]:
    if any(message.get("weight") == 0 for message in answer):
        raise NotConvertible(
            f"{name or 'messages'} has an answer that is not trained, expected two that are; remove its weight"
        )
    return [{key: value for key, value in message.items() if key != "weight"} for message in answer]


def _count_others(
    row: Mapping[str, Any], source: Mapping[str, Any], names: Sequence[str], dropped: Counter[str]
) -> None:
    carried = {*names, *PROMPTS, "instruction", "system", "tools"}
    if row.get("messages") == row[names[0]]:  # as some files write the preferred dialogue twice
        carried.add("messages")
    count_dropped(row, carried, dropped)
    count_dropped(source, _INPUT_KEYS, dropped, "input.")
