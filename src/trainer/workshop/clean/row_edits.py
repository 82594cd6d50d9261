"""The texts of a row, mended in place: its structure, its calls and its tools stay."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from trainer.data.quoting import quoted
from trainer.data.rules.messages import is_trained
from trainer.kinds import Method, learns_from_pairs
from trainer.workshop.clean.debris import (
    cut_answer_label,
    cut_fence,
    cut_markup,
    cut_next_question,
    cut_question_label,
)
from trainer.workshop.clean.encoding import cut_control, cut_invisible, decode_entities, mend_mojibake
from trainer.workshop.clean.kinds import KindChoice

MAX_ROUNDS = 20
_SHOWN_BEFORE, _SHOWN_AFTER = 12, 24

Part = Literal["question", "answer", "other"]
OTHER: Part = "other"


@dataclass(frozen=True, slots=True)
class Edit:
    """One kind of fault in one text; `where` names the text in its row."""

    kind: str
    where: str
    before: str
    after: str

    @property
    def found(self) -> str:
        """The fault, in words."""
        if self.before.endswith(self.after):
            return f"begins with {quoted(self.before[: len(self.before) - len(self.after)].strip())}"
        if self.before.startswith(self.after):
            return f"ends with {quoted(self.before[len(self.after) :].strip())}"
        pairs = zip(self.before, self.after, strict=False)
        at = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
        return f"holds {quoted(self.before[max(at - _SHOWN_BEFORE, 0) : at + _SHOWN_AFTER])}"


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a row: an answer is one that is trained; `asked` is the question before it."""

    message: dict[str, Any]
    where: str
    part: Part
    value: str
    asked: str = ""

    @property
    def says_something_else(self) -> bool:
        """True for a message that calls a tool or declines in a field of its own, and may be without text."""
        return any(self.message.get(key) for key in ("tool_calls", "function_call", "refusal"))

    def write(self, value: str) -> None:
        """Put `value` in place of the text; several text parts become one."""
        content = self.message["content"]
        self.message["content"] = value if isinstance(content, str) else [{"type": "text", "text": value}]


def texts_of(row: dict[str, Any], method: Method) -> Iterator[Text]:
    """The texts of a row without an error, but those of messages with images."""
    if not learns_from_pairs(method):
        yield from _texts(row["messages"], "messages", trained=True)
        return
    yield from _texts(row["input"]["messages"], "input.messages", trained=False)
    yield from _texts(row["preferred_output"], "preferred_output", trained=True)
    yield from _texts(row["non_preferred_output"], "non_preferred_output", trained=False)


def _texts(messages: list[dict[str, Any]], name: str, *, trained: bool) -> Iterator[Text]:
    asked = ""
    for index, message in enumerate(messages):
        if (value := _joined(message.get("content"))) is None:
            continue
        role, part = message["role"], OTHER
        if role == "user":
            asked, part = value, "question"
        elif trained and is_trained(message):
            part = "answer"
        yield Text(message, f"{name}[{index}].content", part, value, asked)


def _joined(content: Any) -> str | None:
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    return "".join(part["text"] for part in content) if all(part["type"] == "text" for part in content) else None


def edit_row(row: dict[str, Any], method: Method, choice: KindChoice) -> list[Edit]:
    """Mend every text of `row` in place; the edits in the order in which they were made."""
    edits: list[Edit] = []
    for text in texts_of(row, method):
        if made := _edits(text, choice):
            text.write(made[-1].after)
            edits += made
    return edits


def _edits(text: Text, choice: KindChoice) -> list[Edit]:
    """Edits of one text until nothing is left to edit; none where that has no end."""
    made: list[Edit] = []
    value = text.value
    for _ in range(MAX_ROUNDS):
        before = value
        for kind, mend in _MENDS[text.part].items():
            if kind in choice.wanted and (after := mend(value, text.asked)) != value and after.strip():
                made.append(Edit(kind, text.where, value, after))
                value = after
        if value == before:
            return made
    return []


def _alone(mend: Callable[[str], str]) -> Callable[[str, str], str]:
    return lambda text, asked: mend(text)


_ENCODING = {
    "MOJIBAKE": _alone(mend_mojibake),
    "CONTROL": _alone(cut_control),
    "INVISIBLE": _alone(cut_invisible),
}
_MENDS: dict[Part, dict[str, Callable[[str, str], str]]] = {  # in the order in which they are made
    "other": _ENCODING,
    "question": {
        **_ENCODING,
        "ENTITY": _alone(decode_entities),
        "LABEL": _alone(cut_question_label),
        "MARKUP": _alone(cut_markup),
    },
    "answer": {
        **_ENCODING,
        "ENTITY": _alone(decode_entities),
        "FENCE": _alone(cut_fence),
        "NEXT_QUESTION": _alone(cut_next_question),
        "LABEL": cut_answer_label,
        "MARKUP": _alone(cut_markup),
    },
}
