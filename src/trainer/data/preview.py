"""Why each token of a row is trained or not: what the previews in the terminal and in the browser show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from trainer.data.conversations import Conversation
from trainer.data.rendering import IGNORE_INDEX, Example, Renderer, RenderingError

Kind = Literal["answer", "end", "untrained", "prompt"]

REASONS: dict[Kind, str] = {
    "answer": "trained: the assistant's own words",
    "end": "trained: the end-of-turn token, so that the model learns to stop",
    "untrained": "not trained: an answer with weight 0",
    "prompt": "not trained: what the model reads",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tokens that are treated alike."""

    kind: Kind
    text: str
    num_tokens: int

    @property
    def trained(self) -> bool:
        return self.kind in ("answer", "end")


def explain(renderer: Renderer, conversation: Conversation, examples: Sequence[Example]) -> list[list[Span]]:
    """The spans of each example of a conversation, in order; their texts together are the rendered row."""
    as_if_trained = replace(conversation, messages=tuple(replace(m, weight=1) for m in conversation.messages))
    try:
        answers = {example.input_ids: example.labels for example in renderer.render(as_if_trained)}
    except RenderingError:  # an answer of weight 0 need not be one that could be trained
        answers = {}
    return [list(_spans(renderer, example, answers.get(example.input_ids, example.labels))) for example in examples]


def _spans(renderer: Renderer, example: Example, all_answers: Sequence[int]) -> Iterator[Span]:
    kinds = [
        _kind(renderer, token, label != IGNORE_INDEX, answer != IGNORE_INDEX)
        for token, label, answer in zip(example.input_ids, example.labels, all_answers, strict=True)
    ]
    for kind, group in groupby(zip(kinds, example.input_ids, strict=True), key=lambda pair: pair[0]):
        ids = [token for _, token in group]
        yield Span(kind, str(renderer.tokenizer.decode(ids)), len(ids))


def _kind(renderer: Renderer, token: int, trained: bool, in_answer: bool) -> Kind:
    if trained:
        return "end" if token in renderer.end_markers else "answer"
    return "untrained" if in_answer else "prompt"
