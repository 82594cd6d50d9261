"""Held-out rows as questions: what serving would send before each answer, and the answer that is expected."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.render.rendering import Renderer, as_object
from trainer.inference.evaluation.measures import CALL_POINTS, NAME_POINTS, text_measures
from trainer.inference.evaluation.rightness import is_right
from trainer.inference.replies import ReplyReader, Spoken
from trainer.inference.tool_calls import without_thinking
from trainer.training.dataset import Row


@dataclass(frozen=True, slots=True)
class Reference:
    """The answer in the file. `generated` is how the model would write it; None where the template does not tell."""

    text: str
    names: tuple[str, ...]  # of the tools that are called
    generated: str | None
    spoken: Spoken | None  # `generated` as it is read back; None where its calls cannot be read


@dataclass(frozen=True, slots=True)
class Question:
    """A trained answer of a row. The conversation before it is the row's own, whatever a model would have said."""

    row: int
    message: int
    prompt: str
    prompt_ids: tuple[int, ...]
    reference: Reference
    has_tools: bool


def ask(rows: Sequence[Row], renderer: Renderer, reader: ReplyReader) -> list[Question]:
    """A question for each trained answer of each row, in their order."""
    return [
        _question(number, index, row, renderer, reader)
        for number, row in enumerate(rows)
        for index, message in enumerate(row.conversation.messages)
        if message.trained
    ]


def _question(number: int, index: int, row: Row, renderer: Renderer, reader: ReplyReader) -> Question:
    messages = [renderer.template.adapt(as_object(message)) for message in row.conversation.messages[: index + 1]]
    tools = [dict(tool) for tool in row.conversation.tools] or None
    prompt = renderer.template.encode(messages[:-1], tools, prompt=True)
    answer = row.conversation.messages[index]
    names = tuple(call.name for call in answer.tool_calls)
    generated = reader.rendered(messages, tools) if names else None
    spoken = reader.read(generated, prompt.text) if generated is not None else None
    if spoken is not None and sorted(call.name for call in spoken.calls) != sorted(names):
        spoken = None
    text = without_thinking(answer.content or "").strip()
    reference = Reference(text, names, generated, spoken)
    return Question(number, index, prompt.text, tuple(prompt.ids), reference, has_tools=tools is not None)


def measure_answer(question: Question, generated: str, spoken: Spoken, ended: bool) -> dict[str, float]:
    """The measures of one answer by name; those that do not apply to it are absent."""
    reference = question.reference
    found = {"ended": float(ended)}
    if reference.names:
        found |= _call_measures(reference, generated, spoken)
    else:
        found |= text_measures(spoken.text, reference.text) | {"length": float(len(spoken.text))}
        found |= {"score": found["chrf"], "right": float(is_right(spoken.text, reference.text))}
    if question.has_tools and not (reference.names and reference.spoken is None):
        found["call_choice"] = float(bool(spoken.calls) == bool(reference.names))
    return found


def _call_measures(reference: Reference, generated: str, spoken: Spoken) -> dict[str, float]:
    """Calls count in any order. Where the template's form cannot be read, only an identical answer is right."""
    if reference.spoken is None:
        right = named = reference.generated is not None and generated.strip() == reference.generated.strip()
    else:
        wanted, found = (sorted(call.canonical for call in calls) for calls in (reference.spoken.calls, spoken.calls))
        right, named = wanted == found, sorted(reference.names) == sorted(call.name for call in spoken.calls)
    points = CALL_POINTS if right else NAME_POINTS if named else 0.0
    return {"calls": float(right), "call_names": float(named), "score": points, "right": float(right)}
