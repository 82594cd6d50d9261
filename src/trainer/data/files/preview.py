"""Why each token of a row is trained or not: what the previews in the terminal and in the browser show."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from trainer.data.conversations import Conversation
from trainer.data.quoting import counted
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError

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


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over rows; `silent_rows` train 0 tokens, `ends` are end-of-turn tokens that are trained."""

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    ends: int = 0
    untrained_answers: int = 0
    untrained_rows: int = 0
    silent_rows: int = 0
    split_rows: int = 0

    @property
    def trained_share(self) -> float:
        return self.trained / self.tokens if self.tokens else 0.0

    def facts(self) -> list[tuple[str, str]]:
        """What there is and what stands out, as a name and a text."""
        facts = [
            ("rows", f"{self.rows:,}"),
            ("trained", f"{self.trained:,} of {self.tokens:,} tokens ({self.trained_share:.1%})"),
            ("end markers", f"{self.ends:,} trained, one after each trained answer"),
        ]
        if self.untrained_answers:
            answers = counted(self.untrained_answers, "answer")
            facts.append(("weight 0", f"{answers} in {counted(self.untrained_rows, 'row')} only read"))
        if self.silent_rows:
            facts.append(("0 tokens", f"{counted(self.silent_rows, 'row')} without a trained token"))
        if self.split_rows:
            rewritten = "as several examples, since the chat template rewrites earlier turns"
            facts.append(("history", f"{counted(self.split_rows, 'row')} {rewritten}"))
        return facts


def count(rows: Iterable[tuple[Conversation, Sequence[Example]]], end_markers: Container[int]) -> Totals:
    """The totals of rows with their examples."""
    totals: Counter[str] = Counter()
    for conversation, examples in rows:
        num_untrained = sum(m.role == "assistant" and not m.trained for m in conversation.messages)
        labels = [label for example in examples for label in example.labels if label != IGNORE_INDEX]
        totals.update(
            rows=1,
            tokens=sum(len(example.input_ids) for example in examples),
            trained=len(labels),
            ends=sum(label in end_markers for label in labels),
            untrained_answers=num_untrained,
            untrained_rows=num_untrained > 0,
            silent_rows=not labels,
            split_rows=len(examples) > 1,
        )
    return Totals(**totals)


def explain(renderer: Renderer, conversation: Conversation, examples: Sequence[Example]) -> list[list[Span]]:
    """The spans of each example of a conversation, in order; their texts together are the rendered row."""
    if all(message.trained for message in conversation.messages if message.role == "assistant"):
        return [list(_spans(renderer, example, example.labels)) for example in examples]
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
