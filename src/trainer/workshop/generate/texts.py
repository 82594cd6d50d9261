"""The kinds `summarise`, `classify` and `rewrite-in-style`: work on a text that the row itself holds."""

from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.kind import Brief, Item, Kind, Row, Unusable, filled, spaced, text

SUMMARISE_TASK = """\
Each example is a request to summarise the source, and the summary. The row will hold the request with the whole \
source below it, so that the request says only what kind of summary is wanted. The summary says what the source says, \
in other words where that is natural, and nothing else."""
SUMMARY_FORMS = (
    "a summary in one sentence",
    "a summary in two or three sentences",
    "a list of the three most important points",
    "a headline and one sentence",
    "a short paragraph for somebody who has to decide something",
    "the essentials in plain words for a beginner",
)
CLASSIFY_TASK = """\
Each example is a text that somebody could send, and the one label that fits it best, of these: {labels}. Subject and \
facts of the text come from the source; the text is written anew, in the voice of its sender, and does not name its \
label. Write a text only where the source has something that fits the label."""
REWRITE_TASK = """\
Each example takes one passage of the source, of one to five whole sentences, and says the same in this style: \
{tone}. `quote` is the whole passage. Nothing is added and nothing is left out but what the style itself changes."""
REWRITE_FORMS = (
    "a passage that explains something",
    "a passage that tells somebody what to do",
    "a passage with figures or names",
    "a passage that warns or restricts",
)


def _summary(item: Item, verdict: Item | None, chunk: Chunk, brief: Brief) -> Row:
    request, summary = filled(item, "request", "summary")
    return _turns(brief, f"{request}\n\n{chunk.text}", summary)


def _classified(item: Item, verdict: Item | None, chunk: Chunk, brief: Brief) -> Row:
    (said,) = filled(item, "text")
    if verdict is not None and verdict["label"] != item["label"]:
        raise Unusable(f"the judge finds the label {verdict['label']!r}")
    system = brief.system or f"Classify the text. Answer with one of these labels and nothing else: {_listed(brief)}."
    return _turns(Brief(system=system), said, str(item["label"]))


def _rewritten(item: Item, verdict: Item | None, chunk: Chunk, brief: Brief) -> Row:
    request, passage, rewritten = filled(item, "request", "quote", "rewritten")
    return _turns(brief, f"{request}\n\n{passage}", rewritten)


def _turns(brief: Brief, asked: str, said: str) -> Row:
    return {"messages": [*brief.opening, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def _listed(brief: Brief) -> str:
    return ", ".join(brief.labels)


SUMMARISE = Kind(
    name="summarise",
    summary="parts of the documents, and summaries of several forms",
    task=lambda brief: SUMMARISE_TASK,
    fields=lambda brief: {
        "request": text("how the person asks for it, without the source"),
        "summary": text("the summary"),
    },
    forms=lambda brief: SUMMARY_FORMS,
    judged=lambda brief: (
        "An example passes only if its summary says nothing that the source does not say, leaves out "
        "nothing that the source is mainly about, and has the form that its request asks for."
    ),
    row=_summary,
    prompt_of=lambda item, chunk: f"{item['request']} {chunk.id}",
)
CLASSIFY = Kind(
    name="classify",
    summary="texts as somebody could send them, each with one of --labels",
    task=lambda brief: CLASSIFY_TASK.format(labels=_listed(brief)),
    fields=lambda brief: {
        "text": text("the text"),
        "label": {"type": "string", "enum": list(dict.fromkeys(brief.labels)), "description": "its label"},
    },
    forms=lambda brief: tuple(f"a text for the label {label}" for label in dict.fromkeys(brief.labels)),
    judged=lambda brief: (
        f"The labels are: {_listed(brief)}. Give as `label` the one that fits the text best, word for word. An "
        "example passes only if one label fits its text clearly better than every other one, and the text contradicts "
        "nothing in the source."
    ),
    row=_classified,
    prompt_of=lambda item, chunk: str(item["text"]),
    shown=lambda item: {name: value for name, value in item.items() if name != "label"},
    verdict={"label": text("the label that fits the text best")},
    needs=("labels",),
    row_tokens=110,
)
REWRITE = Kind(
    name="rewrite-in-style",
    summary="passages of the documents, said in the style of --tone",
    task=lambda brief: REWRITE_TASK.format(tone=brief.tone),
    fields=lambda brief: {
        "request": text("how a person asks to have the passage put into that style, without the passage"),
        "rewritten": text("the passage in that style"),
    },
    forms=lambda brief: REWRITE_FORMS,
    judged=lambda brief: (
        f"The style is: {brief.tone}. An example passes only if `rewritten` is of that style, says "
        "all that its quote says, and nothing else."
    ),
    row=_rewritten,
    prompt_of=lambda item, chunk: spaced(str(item["quote"])),
    needs=("tone",),
)
