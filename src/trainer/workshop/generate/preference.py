"""The kind `preference`: a question with two answers, of which the judge prefers the one meant to be better."""

import json

from trainer.workshop.asking.request import digest
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.kind import Brief, Item, Kind, Row, Unusable, filled, text
from trainer.workshop.generate.qa import FORMS

TASK = """\
Each example is a question that a person asks an assistant, and two answers. The person does not see the source: name \
the subject, and never speak of "the text" or "the source"; nor do the answers. `better` is complete and says only \
what the source says. `weaker` is what a hasty assistant could have said, of about the same length and tone: it \
leaves out what matters, is vague where the source is exact, answers another question, or gets a fact wrong."""
JUDGED = """\
An example passes only if its question can be understood without the source and the answer that you prefer says \
nothing but what the source says. Prefer the answer that is right and complete, whatever its place or length; if \
neither is clearly better, the example does not pass."""
WORDS = ("first", "second")


def _is_first(item: Item) -> bool:
    """True if the judge sees the better answer first: by chance, and the same for the same example."""
    return int(digest(json.dumps(item, sort_keys=True)), 16) % 2 == 0


def _shown(item: Item) -> Item:
    """The example without a word on which answer is meant to be the better one."""
    answers = (item["better"], item["weaker"]) if _is_first(item) else (item["weaker"], item["better"])
    return {"number": item["number"], "question": item["question"], **dict(zip(WORDS, answers, strict=True))}


def _row(item: Item, verdict: Item | None, chunk: Chunk, brief: Brief) -> Row:
    question, better, weaker = filled(item, "question", "better", "weaker")
    if verdict is None or verdict["preferred"] != WORDS[not _is_first(item)]:
        raise Unusable("the judge prefers the answer that was meant to be the weaker one")
    return {
        "input": {"messages": [*brief.opening, {"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": weaker}],
    }


PREFERENCE = Kind(
    name="preference",
    summary="questions with two answers, one of them preferred: for training.method=dpo",
    task=lambda brief: TASK,
    fields=lambda brief: {
        "question": text("what the person asks"),
        "better": text("the answer to be preferred"),
        "weaker": text("the other answer"),
    },
    forms=lambda brief: FORMS,
    judged=lambda brief: JUDGED,
    row=_row,
    prompt_of=lambda item, chunk: str(item["question"]),
    shown=_shown,
    method="dpo",
    verdict={"preferred": {"type": "string", "enum": list(WORDS), "description": "the answer that you prefer"}},
    needs_judge=True,
    row_tokens=300,
)
