"""Tokens that a chunk still needs, for the quote."""

from trainer.workshop.asking.budget import TokenNeed, twice
from trainer.workshop.asking.request import BYTES_PER_TOKEN, Request
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.chunk_work import Task
from trainer.workshop.generate.prompts import to_judge

VERDICT_TOKENS = 45  # of a verdict


def need_of(task: Task, chunk: Chunk, request: Request) -> TokenNeed:
    """The need of a chunk that has come to `request`; most of all if each answer has to be given twice."""
    written, judged = task.rows_per_chunk * task.kind.row_tokens, task.rows_per_chunk * VERDICT_TOKENS
    found = twice(request, judged if request.name == "verdicts" else written)
    if task.judges and request.name != "verdicts":
        judging = task.request("judge", chunk, to_judge(task.kind, task.brief, chunk, []), judging=True)
        items = task.max_tokens * BYTES_PER_TOKEN
        found += twice(judging, judged, written, items)
    return found
