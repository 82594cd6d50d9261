"""Warnings about what stands in the texts of a row: left-over markup, secrets, personal data."""

import re
from collections.abc import Callable, Iterator, Sequence

from trainer.data.conversations import Conversation, Message
from trainer.data.quoting import quoted
from trainer.data.rules.findings import FindingList
from trainer.data.rules.private_text import find_private, may_hold_private

TEMPLATE_MARKS = (
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<s>", "</s>", "[INST]", "[/INST]",
    "<start_of_turn>", "<end_of_turn>",
)  # fmt: skip
_FIRST_LABEL = re.compile(r"(?:\*\*|#{1,4} )?(?:[QA]\d{0,3}|Assistant)(?:\*\*)?:")
_LAST_LABEL = re.compile(r"(?<!\w)(?:\*\*)?[QA]\d{0,3}(?:\*\*)?:(?:\*\*)?$")
_NUM_END_CHARS = 16


class TextChecks:
    """Looks at the texts of one file; reports each secret or piece of personal data at its first place."""

    def __init__(self, findings: FindingList) -> None:
        self.findings = findings
        self._reported: set[int] = set()

    def check(self, conversation: Conversation) -> None:
        self.findings.line = conversation.line
        self._check_messages(conversation.messages, conversation.where)
        if conversation.non_preferred:
            self._check_messages(conversation.non_preferred, "non_preferred_output[{}]".format)

    def _check_messages(self, messages: Sequence[Message], name: Callable[[int], str]) -> None:
        for index, message in enumerate(messages):
            if message.trained and message.content:
                self._check_debris(f"{name(index)}.content", message.content)
        said = [message.content or "" for message in messages]
        said += [message.reasoning_content for message in messages if message.reasoning_content]
        said += [call.arguments for message in messages if message.tool_calls for call in message.tool_calls]
        if may_hold_private("\n".join(said)):
            for index, message in enumerate(messages):
                for where, text in _texts(message):
                    self._check_private(f"{name(index)}.{where}", text)

    def _check_debris(self, where: str, text: str) -> None:
        if debris := _debris(text.strip()):
            found = f"{debris[0]} with {quoted(debris[1])}"
            self.findings.add("DEBRIS", where, found, "an answer without markup or labels at its ends")

    def _check_private(self, where: str, text: str) -> None:
        for private in find_private(text):
            if (digest := hash(private.value)) not in self._reported:
                self._reported.add(digest)
                found = f"holds what looks like {private.kind} ({private.shown})"
                self.findings.add(private.code, where, found, "text without it")


def _texts(message: Message) -> Iterator[tuple[str, str]]:
    if message.content:
        yield "content", message.content
    if message.reasoning_content:
        yield "reasoning_content", message.reasoning_content
    for index, call in enumerate(message.tool_calls):
        yield f"tool_calls[{index}].function.arguments", call.arguments


def _debris(answer: str) -> tuple[str, str] | None:
    """Foreign text at an answer's edge: "begins" or "ends", and the text."""
    if answer.startswith(TEMPLATE_MARKS):
        return "begins", next(mark for mark in TEMPLATE_MARKS if answer.startswith(mark))
    if answer.endswith(TEMPLATE_MARKS):
        return "ends", next(mark for mark in TEMPLATE_MARKS if answer.endswith(mark))
    if label := _FIRST_LABEL.match(answer):
        return "begins", label[0]
    if label := _LAST_LABEL.search(answer[-_NUM_END_CHARS:]):
        return "ends", label[0]
    return _stray_bold(answer)


def _stray_bold(answer: str) -> tuple[str, str] | None:
    """`**` at an end that opens or closes no bold text."""
    if not answer.startswith("**") and not answer.endswith("**"):
        return None
    is_odd = answer.count("**") % 2 == 1
    if answer.startswith("**") and (is_odd or answer[2:3].isspace()):
        return "begins", "**"
    if answer.endswith("**") and (is_odd or answer[-3:-2].isspace()):
        return "ends", "**"
    return None
