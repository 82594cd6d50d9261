"""Rows that are a question and its answer: which columns, or keys, hold the two."""

import re
import shlex
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.data.layouts.messages import NotConvertible, Row
from trainer.data.layouts.thoughts import with_thoughts
from trainer.data.quoting import listed, quoted
from trainer.errors import ConfigError, similar

PROMPTS = ("prompt", "question", "instruction", "input", "query")
ANSWERS = ("answer", "completion", "response", "output", "reply", "definition")
SYSTEMS = ("system", "system_prompt")
CONTEXTS = ("context", "passage")  # what the question is about: Dolly's and SQuAD's
FORM = "prompt=COLUMN,answer=COLUMN[,system=COLUMN][,context=COLUMN]"


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of question, answer and system prompt; `questions` are texts with {column} in place of `prompt`.

    An `answer` of None is found by its name.
    """

    answer: str | None
    prompt: str | None = None
    system: str | None = None
    questions: tuple[str, ...] = ()
    context: str | None = None  # a text that follows the question

    @property
    def needed(self) -> set[str]:
        """The columns that every row must have."""
        asked = {name for question in self.questions for _, name in _pieces(question) if name}
        return asked | {name for name in (self.answer, self.prompt, self.system, self.context) if name}

    def prompts(self, row: Mapping[str, Any]) -> list[str]:
        """The questions of a row, one for each template, each with the text that it is about."""
        context = _text(row, self.context) if self.context and row[self.context] is not None else ""
        behind = f"\n\n{context}" if context.strip() else ""
        if self.prompt:
            return [_text(row, self.prompt) + behind]
        return [
            "".join(literal + (_text(row, name) if name else "") for literal, name in _pieces(question)) + behind
            for question in self.questions
        ]


def parse_columns(text: str | None, questions: Sequence[str] = ()) -> Columns | None:
    """`prompt=…,answer=…,system=…` and the templates, None where neither is given.

    Raises: ConfigError, with every mistake.
    """
    if text is None and not questions:
        return None
    pairs = [part.partition("=") for part in text.split(",")] if text is not None else []
    given = {key.strip(): column.strip() for key, _, column in pairs}
    problems = [problem for question in questions if (problem := _question_problem(question))]
    if not all(given.values()) or not given.keys() <= _KNOWN.keys() or len(given) < len(pairs):
        problems.append(f"--columns: is {quoted(text)}, expected {FORM}; name each column once")
    elif "prompt" in given and questions:
        problems.append("--columns: names a prompt beside --question, expected one of the two; remove one")
    elif not questions and not {"prompt", "answer"} <= given.keys():
        problems.append(f"--columns: is {quoted(text)}, expected {FORM}; name prompt and answer")
    if problems:
        raise ConfigError(*problems)
    return Columns(
        given.get("answer"), given.get("prompt"), given.get("system"), tuple(questions), given.get("context")
    )


def columns_of(names: Collection[str], wanted: Columns | None = None) -> Columns:
    """`wanted`; what it leaves open is found by the names, whatever their case.

    Raises: NotConvertible, when no column, or more than one, could be the question or the answer.
    """
    if wanted is not None and wanted.answer is not None:
        return wanted
    taken = wanted.needed if wanted is not None else set()
    found = {
        part: [name for name in names if name not in taken and name.strip().casefold() in known]
        for part, known in _KNOWN.items()
    }
    found["answer"] = found["answer"] or [name for name in names if name.strip().casefold() == _ANSWERS_OF_SQUAD]
    system, context = (next(iter(found[part]), None) for part in ("system", "context"))
    clear = len(found["answer"]) == 1 and len(found["context"]) <= 1
    if wanted is not None and clear:
        return replace(wanted, answer=found["answer"][0], context=wanted.context or context)
    if wanted is None and clear and len(found["prompt"]) == 1 and len(found["system"]) <= 1:
        return Columns(found["answer"][0], found["prompt"][0], system, context=context)
    raise NotConvertible(_unclear(list(names), wanted))


_KNOWN = {"prompt": PROMPTS, "answer": ANSWERS, "system": SYSTEMS, "context": CONTEXTS}
# A column that numbers, dates or sorts rows is nothing that a question could ask for.
_NO_SUBJECT = re.compile(
    r"(?:^|[_ ])(?:u?u?id|guid|index|idx|number|row|url|method|split|source|date|status)$", re.IGNORECASE
)
_ANSWERS_OF_SQUAD = "answers"


def _unclear(names: list[str], wanted: Columns | None) -> str:
    shown = listed([quoted(name) for name in names[:20]] + ["more"] * (len(names) > 20)) or "no column"
    answers = f"one answer ({listed(ANSWERS, 'or')})"
    if wanted is not None:
        return f"has {shown}, expected {answers}; say which with --columns answer=COLUMN"
    advice = f"say which with --columns {FORM}"
    has_question = any(name.strip().casefold() in PROMPTS for name in names)
    asked = None if has_question else next((name for name in names if not _NO_SUBJECT.search(name)), None)
    if asked and _question_problem(example := f"What is {{{asked}}}?") is None:
        advice += f", or ask with --question {shlex.quote(example)}"
    return f"has {shown}, expected one question ({listed(PROMPTS, 'or')}) and {answers}; {advice}"


def rows_of_columns(row: Mapping[str, Any], columns: Columns | None, dropped: Counter[str]) -> list[Row]:
    """A chat row for each question."""
    columns = columns_of(row, columns)
    if missing := sorted(columns.needed - row.keys()):
        known = listed([quoted(name) for name in list(row)[:20]], "or")
        meant = similar(missing[0], row)
        raise NotConvertible(f"has no column {quoted(missing[0])}{meant}, expected {known}; name another column")
    for name, value in row.items():
        if name not in columns.needed and value not in (None, ""):
            dropped[name] += 1
    assert columns.answer is not None
    (answer,) = with_thoughts([{"role": "assistant", "content": _text(row, columns.answer)}])
    text = _text(row, columns.system) if columns.system and row[columns.system] is not None else ""
    system = [{"role": "system", "content": text}] if text.strip() else []
    return [{"messages": [*system, {"role": "user", "content": ask}, answer]} for ask in columns.prompts(row)]


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # SQuAD: several people's answers
        if not value["text"]:
            raise NotConvertible(f"{name} holds no text, expected an answer; write one, or remove the row")
        value = value["text"][0]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise NotConvertible(f"{name} is {quoted(value)}, expected text")


def _pieces(question: str) -> list[tuple[str, str | None]]:
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(question)]


def _question_problem(question: str) -> str | None:
    accepted = 'a text with the name of a column in braces, such as "What is a {term}?"; write a brace itself twice'
    try:
        pieces = list(string.Formatter().parse(question))
    except ValueError as error:
        return f"--question: {quoted(question)} cannot be read ({error}), expected {accepted}"
    names = [name for _, name, _, _ in pieces if name is not None]
    if not all(names) or not names or any(form or conversion for _, _, form, conversion in pieces):
        return f"--question: {quoted(question)} names no column, expected {accepted}"
    return None
