"""Base and tuned model on the held-out rows, asked through the API: the report that every run ends with.

What the service does not tell, the loss on each row, is left out of it.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.backends.chat_route import as_call
from trainer.backends.http import Say
from trainer.backends.openai.chat import Chat, chat_with
from trainer.backends.openai.exam import find_exam, seed_at_start
from trainer.data.conversations import Conversation
from trainer.data.render.rendering import as_object
from trainer.inference.client import Sampling
from trainer.inference.evaluation.held_out import HeldOut, trained_files
from trainer.inference.evaluation.questions import Question, Reference, measure_answer
from trainer.inference.evaluation.result import Answer, make_result
from trainer.inference.replies import Spoken
from trainer.inference.report.write import write_report
from trainer.runs import Run
from trainer.training.dataset import Row

AT_ONCE = 4  # questions on their way to the service


def compare_models(run: Run, endpoint: str | None, say: Say) -> Path:
    """Ask both models, measure the answers and write the report; returns its page.

    Raises: ConfigError, DataError, BackendError, TrainingError.
    """
    started, config = time.monotonic(), run.config()
    exam = find_exam(run, config)
    tuned, base = chat_with(run, endpoint, base=False), chat_with(run, endpoint, base=True)
    say(f"comparing base and tuned model on {len(exam.rows):,} of {exam.total:,} held-out rows")
    questions = ask(exam.rows)
    sampling = Sampling(max_tokens=_number(exam.limits.max_new_tokens))
    answers = {
        name: _answers(chat, exam.rows, questions, sampling) for name, chat in (("base", base), ("tuned", tuned))
    }
    rows = tuple(Row(row, ()) for row in exam.rows)
    trained, gone = trained_files(run)
    held_out = HeldOut(rows, exam.total, config.data.validation_paths, exam.limits, (), None if gone else trained)
    nothing: list[dict[str, tuple[float, float]]] = [{} for _ in rows]
    losses = {"base": nothing, "tuned": nothing}
    seconds = time.monotonic() - started
    result = make_result(run, held_out, questions, answers, losses, seed_at_start(run), seconds)
    page = write_report(run, result)
    run.event(result["verdict"]["sentence"], kind="evaluation", report=str(page))
    return page


def ask(rows: Sequence[Conversation]) -> list[Question]:
    """A question for each trained answer of each row, in their order; tool calls come as data and need no template."""
    return [
        Question(number, index, "", (), _reference(row, index), has_tools=bool(row.tools))
        for number, row in enumerate(rows)
        for index, message in enumerate(row.messages)
        if message.trained
    ]


def _reference(row: Conversation, index: int) -> Reference:
    message = row.messages[index]
    calls = tuple(as_call({"name": call.name, "arguments": call.arguments}) for call in message.tool_calls)
    text = (message.content or "").strip()
    names = tuple(call.name for call in calls)
    return Reference(text, names, None, Spoken(text, calls) if calls else None)


def _answers(
    chat: Chat, rows: Sequence[Conversation], questions: Sequence[Question], sampling: Sampling
) -> list[Answer]:
    def answer(question: Question) -> Answer:
        row = rows[question.row]
        messages = [_without_nulls(as_object(message)) for message in row.messages[: question.message]]
        reply = chat.reply(messages, sampling, row.tools)
        spoken = Spoken(reply.text.strip(), reply.calls)
        return Answer(spoken, reply.ended, measure_answer(question, spoken.text, spoken, reply.ended))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(answer, questions))


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}


def _number(value: object) -> int:
    assert isinstance(value, int)  # resolved
    return value
