"""The kind `qa`: a question that a person asks, and the answer that the source gives."""

from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.kind import Brief, Item, Kind, Row, filled, text

FORMS = (
    "a short direct question",
    "a question about how to do something",
    "a question about a reason or a cause",
    "a question about a condition or an exception",
    "a question that describes a situation first",
    "a request in the imperative, such as: explain, list, compare",
)
TASK = """\
Each example is a question that a person asks an assistant, and the assistant's answer. The person does not see the \
source: name the subject, and never speak of "the text", "the source", "the passage" or "above". The answer is \
complete, says only what the source says, and does not mention the source either."""
JUDGED = """\
An example passes only if every statement of its answer follows from the source, the answer answers the question, and \
the question can be understood without the source."""


def _row(item: Item, verdict: Item | None, chunk: Chunk, brief: Brief) -> Row:
    question, answer = filled(item, "question", "answer")
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [*brief.opening, *turns]}


QA = Kind(
    name="qa",
    summary="questions that a person asks, and the answers that the documents give",
    task=lambda brief: TASK,
    fields=lambda brief: {
        "question": text("what the person asks"),
        "answer": text("what the assistant answers"),
    },
    forms=lambda brief: FORMS,
    judged=lambda brief: JUDGED,
    row=_row,
    prompt_of=lambda item, chunk: str(item["question"]),
)
