"""The rules of a thought: it stands in reasoning_content, and an answer begins behind it."""

from collections.abc import Mapping
from typing import Any

from trainer.data.quoting import quoted
from trainer.data.rules.findings import FindingList
from trainer.kinds import is_service

OPENS, CLOSES = "<think>", "</think>"
_FIX_FOR_SERVICES = (
    "the model will write it where people read; leave it out with: trainer data convert FILE --no-thoughts"
)


def check_thought(message: Mapping[str, Any], index: int, findings: FindingList) -> None:
    """Note what is wrong with the thought of an assistant message, in a key of its own or in the text."""
    where = f"messages[{index}].reasoning_content"
    thought = message.get("reasoning_content")
    if "reasoning_content" in message:
        if type(thought) is not str:
            findings.add("THOUGHT", where, f"is {quoted(thought)}", "a non-empty string")
        elif not thought.strip():
            found = "is only white space" if thought else "is empty"
            findings.add("THOUGHT", where, found, "a non-empty string")
        elif tag := next((tag for tag in (OPENS, CLOSES) if tag in thought), None):
            findings.add("THOUGHT", where, f"holds {tag}", "the thought without tags", "remove the tag")
        refuse_thought(message, f"messages[{index}]", findings)
    for text in _texts(message.get("content")):
        _check_text(text, f"messages[{index}].content", message, findings)


def refuse_thought(message: Any, where: str, findings: FindingList) -> None:
    """Note a thought that a service would not take."""
    if is_service(findings.backend) and type(message) is dict and "reasoning_content" in message:
        findings.add("SERVICE_THOUGHT", where, "has reasoning_content", "none on the openai backend")


def _texts(content: Any) -> list[str]:
    """The text of a message in one piece, as far as it can be read."""
    if type(content) is not list:
        return [content] if type(content) is str else []
    parts = [part.get("text") for part in content if type(part) is dict]
    return ["".join(part for part in parts if type(part) is str)]


def _check_text(text: str, where: str, message: Mapping[str, Any], findings: FindingList) -> None:
    if message.get("weight", 1) == 0 or not text.lstrip().startswith(OPENS):
        return
    if text.rfind(OPENS) > text.rfind(CLOSES):
        findings.add("OPEN_THOUGHT", where, "has <think> without an end", "</think> behind the thought")
    elif "reasoning_content" in message:
        found = "begins with <think> beside reasoning_content"
        findings.add("THOUGHT", where, found, "one thought", "remove one of the two")
    else:
        fix = _FIX_FOR_SERVICES if is_service(findings.backend) else None
        findings.add("THOUGHT_IN_TEXT", where, "begins with <think>", "the thought as reasoning_content", fix)
