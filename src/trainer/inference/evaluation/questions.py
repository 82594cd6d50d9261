"""Held-out rows as questions, who answers them, and what is measured of an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainer.data.conversations import Conversation
from trainer.inference.client import Reply
from trainer.inference.evaluation.measures import CALL_POINTS, NAME_POINTS, ModelKey, Sums, is_right, text_measures
from trainer.inference.tool_calls import Call


@dataclass(frozen=True, slots=True)
class Reference:
    """The answer in the file. `generated` is how a local model would write it, None where its template hides that."""

    text: str
    names: tuple[str, ...] = ()  # of the tools that are called
    calls: tuple[Call, ...] | None = ()  # as an answer's are read; None where they cannot be read
    generated: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A trained answer of a row. The conversation before it is the row's own, whatever a model would have said."""

    row: int
    conversation: Conversation
    message: int
    reference: Reference


class Answerer(Protocol):
    """A run's models, wherever they answer."""

    @property
    def models(self) -> Sequence[ModelKey]:
        """In the order in which they are asked."""
        ...

    def reference(self, conversation: Conversation, message: int) -> Reference:
        """The row's own answer in the form in which the models' answers are read."""
        ...

    def replies(
        self, model: ModelKey, questions: Sequence[Question], advance: Callable[[int], None]
    ) -> Sequence[Reply]:
        """One greedy answer to each question; `advance` hears how many more are there."""
        ...

    def losses(self, model: ModelKey) -> Sequence[Sums] | None:
        """Of each row the loss and token accuracy; None where the tokens' probabilities are not to be had."""
        ...


@dataclass(frozen=True, slots=True)
class MeasuredAnswer:
    """Answer of a model to a question, and its measures."""

    reply: Reply
    measures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.reply.calls]
        said = {"text": self.reply.text, "calls": calls, "ended": self.reply.ended, "measures": dict(self.measures)}
        return said | thought_json(self.reply)


def thought_json(reply: Reply) -> dict[str, str]:
    """The thought of a reply as report.json holds it: apart, and only where there is one."""
    return {"reasoning_content": reply.thought} if reply.thought else {}


def ask(rows: Sequence[Conversation], reference: Callable[[Conversation, int], Reference]) -> list[Question]:
    """A question for each trained answer of each row, in their order."""
    return [
        Question(number, row, index, reference(row, index))
        for number, row in enumerate(rows)
        for index, message in enumerate(row.messages)
        if message.trained
    ]


def measure_answer(question: Question, reply: Reply) -> dict[str, float]:
    """The measures of one answer by name; those that do not apply to it are absent."""
    reference = question.reference
    found = {"ended": float(reply.ended)}
    if reference.names:
        found |= _call_measures(reference, reply)
    else:
        found |= text_measures(reply.text, reference.text) | {"length": float(len(reply.text))}
        found |= {"score": found["chrf"], "right": float(is_right(reply.text, reference.text))}
    if question.conversation.tools and reference.calls is not None:
        found["call_choice"] = float(bool(reply.calls) == bool(reference.names))
    return found


def _call_measures(reference: Reference, reply: Reply) -> dict[str, float]:
    """Calls count in any order. Where the template's form cannot be read, only an identical answer is right."""
    if reference.calls is None:
        right = named = reference.generated is not None and reply.generated.strip() == reference.generated.strip()
    else:
        wanted, found = (sorted(call.canonical for call in calls) for calls in (reference.calls, reply.calls))
        right, named = wanted == found, sorted(reference.names) == sorted(call.name for call in reply.calls)
    points = CALL_POINTS if right else NAME_POINTS if named else 0.0
    return {"calls": float(right), "call_names": float(named), "score": points, "right": float(right)}
