"""Preview of rows: their tokens, trained or not and the reason, for the terminal and as one searchable HTML page."""

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import groupby
from typing import Any, Literal

from trainer.data.conversations import Conversation
from trainer.data.quoting import counted
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError
from trainer.errors import ConfigError

Kind = Literal["answer", "end", "thought", "rejected", "untrained", "thought-read", "prompt"]

REASONS: dict[Kind, str] = {
    "answer": "trained: the assistant's own words",
    "end": "trained: the end-of-turn token, so that the model learns to stop",
    "thought": "trained: the thought before an answer",
    "rejected": "trained: the non-preferred answer with its end-of-turn token, which becomes less likely",
    "untrained": "not trained: an answer with weight 0",
    "thought-read": "not trained: the thought before an answer",
    "prompt": "not trained: what the model reads",
}
_KINDS = list(REASONS)
TRAINED: tuple[Kind, ...] = ("answer", "end", "thought", "rejected")
MAX_PAGE_BYTES = 100 * 10**6  # a browser opens this much in seconds; beyond it tabs begin to fail


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tokens that are treated alike."""

    kind: Kind
    text: str
    num_tokens: int

    @property
    def trained(self) -> bool:
        return self.kind in TRAINED


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over rows; `silent_rows` train 0 tokens, `ends` are end-of-turn tokens that are trained.

    `pairs` are preference rows.
    """

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    ends: int = 0
    untrained_answers: int = 0
    untrained_rows: int = 0
    silent_rows: int = 0
    split_rows: int = 0
    pairs: int = 0

    @property
    def trained_share(self) -> float:
        return self.trained / self.tokens if self.tokens else 0.0

    def facts(self) -> list[tuple[str, str]]:
        """Totals and peculiarities, as a name and a text."""
        facts = [
            ("rows", f"{self.rows:,}"),
            ("trained", f"{self.trained:,} of {self.tokens:,} tokens ({self.trained_share:.1%})"),
            ("end markers", f"{self.ends:,} trained, one after each trained answer"),
        ]
        if self.pairs:
            rows = counted(self.pairs, "row")
            facts.append(("pairs", f"{rows} with a preferred answer and one that becomes less likely"))
        if self.untrained_answers:
            answers = counted(self.untrained_answers, "answer")
            facts.append(("weight 0", f"{answers} in {counted(self.untrained_rows, 'row')} only read"))
        if self.silent_rows:
            facts.append(("0 tokens", f"{counted(self.silent_rows, 'row')} without a trained token"))
        if self.split_rows:
            rewritten = "as several examples, since the chat template rewrites earlier turns"
            facts.append(("history", f"{counted(self.split_rows, 'row')} {rewritten}"))
        return facts


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A row with the spans of each of its examples."""

    place: str
    examples: Sequence[Sequence[Span]]

    def to_json(self) -> list[Any]:
        """The place, and each example as a list of [kind, number of tokens, text]."""
        spans = [[[_KINDS.index(span.kind), span.num_tokens, span.text] for span in spans] for spans in self.examples]
        return [self.place, spans]


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
            split_rows=len(examples) > 1 and not conversation.non_preferred,
            pairs=bool(conversation.non_preferred),
        )
    return Totals(**totals)


def explain(renderer: Renderer, conversation: Conversation, examples: Sequence[Example]) -> list[list[Span]]:
    """The spans of each example of a conversation, in order; their texts together are the rendered row."""
    spans = _explain(renderer, conversation, examples)
    if conversation.non_preferred:
        spans[1] = [replace(span, kind="rejected") if span.trained else span for span in spans[1]]
    return spans


def _explain(renderer: Renderer, conversation: Conversation, examples: Sequence[Example]) -> list[list[Span]]:
    if all(message.trained for message in conversation.messages if message.role == "assistant"):
        if not conversation.has_thought:
            return [list(_spans(renderer, example, example.labels, example.labels)) for example in examples]
        as_if_trained = conversation
    else:
        trained = tuple(replace(message, weight=1) for message in conversation.messages)
        as_if_trained = replace(conversation, messages=trained)
    said = _labels(renderer.training(thoughts=False), as_if_trained)
    whole = _labels(renderer.training(thoughts=True), as_if_trained) if conversation.has_thought else said
    return [
        list(_spans(renderer, each, *(known.get(each.input_ids, each.labels) for known in (whole, said))))
        for each in examples
    ]


def _labels(renderer: Renderer, conversation: Conversation) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The labels of each example, by its tokens."""
    try:
        return {example.input_ids: example.labels for example in renderer.render(conversation)}
    except RenderingError:  # an answer of weight 0 need not be one that could be trained
        return {}


def _spans(renderer: Renderer, example: Example, whole: Sequence[int], said: Sequence[int]) -> Iterator[Span]:
    """`whole` are the labels of all answers with their thoughts, `said` those without."""
    labels = zip(example.labels, whole, said, strict=True)
    kinds = [
        _kind(renderer, token, *(label != IGNORE_INDEX for label in each))
        for token, each in zip(example.input_ids, labels, strict=True)
    ]
    for kind, group in groupby(zip(kinds, example.input_ids, strict=True), key=lambda pair: pair[0]):
        ids = [token for _, token in group]
        yield Span(kind, str(renderer.tokenizer.decode(ids)), len(ids))


def _kind(renderer: Renderer, token: int, trained: bool, in_whole: bool, in_answer: bool) -> Kind:
    if in_whole and not in_answer:
        return "thought" if trained else "thought-read"
    if trained:
        return "end" if token in renderer.end_markers else "answer"
    return "untrained" if in_answer else "prompt"


def preview_page(
    title: str, model: str, totals: Totals, rows: Iterable[PreviewRow], notes: Sequence[tuple[str, str]] = ()
) -> str:
    """One HTML file that needs no other. Every text of the data is escaped; the page draws rows as they come into view.

    Raises: ConfigError, when it would hold more than a browser can open.
    """
    from jinja2 import Environment

    source = resources.files("trainer.data.files").joinpath("preview.html.jinja").read_text(encoding="utf-8")
    facts = [*totals.facts(), *notes]
    template = Environment(autoescape=True).from_string(source)
    page = template.render(
        title=title, model=model, facts=facts, totals=totals, reasons=REASONS, kinds=_KINDS, trained=TRAINED
    )
    before, _, after = page.rpartition("ROWS_AS_JSON")
    return "".join([before, *_rows_as_json(rows, totals.rows), after])


def _rows_as_json(rows: Iterable[PreviewRow], num_rows: int) -> Iterable[str]:
    """A JSON list that cannot end the script element it stands in."""
    num_bytes = 0
    yield "["
    for number, row in enumerate(rows):
        text = json.dumps(row.to_json(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        num_bytes += len(text.encode())
        if num_bytes > MAX_PAGE_BYTES:
            raise ConfigError(
                f"--html: {num_rows:,} rows make a page of more than {MAX_PAGE_BYTES // 10**6:,} MB, expected one that "
                f"a browser can open; add --rows {number} or fewer"
            )
        yield "," * (number > 0) + "\n" + text
    yield "\n]"
