"""Pages for the browser that need nothing else: every text is escaped, and no script and no request is allowed.

A compared row is shown as its conversation, with the answers of all models and their differences marked word by word.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

from trainer.inference.report.plots import DARK, LIGHT
from trainer.inference.thoughts import parted
from trainer.inference.tool_calls import Call

NUM_OPEN = 10
NUM_SHOWN = 300  # rows on the page; more would make it slow to open
SHOWN_QUESTION = 160  # characters of a question in a row's headline

PieceKind = Literal["same", "other", "missed"]
Piece = tuple[PieceKind, str]

_TOKEN = re.compile(r"\s+|[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W぀-ヿ㐀-䶿一-鿿豈-﫿]+|[^\w\s]")


def render_page(name: str, title: str, **values: Any) -> str:
    """The page `pages/<name>.html.jinja`. A value that it lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("trainer.inference.report", "pages")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(f"{name}.html.jinja").render(title=title, light=LIGHT, dark=DARK, **values)


def trusted(svg: str) -> Any:
    """A plot of ours, which is put into a page as it is."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704  # made by plots.py from numbers alone


def capitalized(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]


def row_view(row: Mapping[str, Any], names: Sequence[str], mark_reference: bool = True) -> dict[str, Any]:
    """`row` is one of report.json, `names` are the models whose answers are shown.

    In the reference, words are marked that the last model's answer lacks.
    """
    answers = {answer["message"]: answer for answer in row["answers"]}
    return {
        "outcome": row.get("outcome"),
        "right": _right_of(row, names[-1]),
        "place": row["place"],
        "tools": row["tools"],
        "scores": [row["score"][name] for name in names],
        "question": last_question(row["messages"][: row["answers"][0]["message"]]),
        "parts": [
            _answers(answers[index], message, names, mark_reference) if index in answers else _said(message)
            for index, message in enumerate(row["messages"])
        ],
    }


def _right_of(row: Mapping[str, Any], name: str) -> bool:
    """True if all of a model's answers are right or nearly right."""
    right = row.get("sums", {}).get(name, {}).get("right")  # reports of the first format do not tell
    return right is not None and right[0] == right[1]


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """The last thing that a user said in them, shortened."""
    asked = [message.get("content") or "" for message in messages if message["role"] == "user"]
    text = " ".join((asked or [""])[-1].split())
    return text if len(text) <= SHOWN_QUESTION else f"{text[:SHOWN_QUESTION]}…"


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message["role"]
    kind = "system" if role in ("system", "developer") else "message"
    text = message.get("content")
    if role == "assistant":
        text = parted(text or "")[1]
    said = {"kind": kind, "role": role, "text": text, "calls": _written_calls(message)}
    return said | {"thought": _written_thought(message)}


def _answers(
    answer: Mapping[str, Any], message: Mapping[str, Any], names: Sequence[str], mark_reference: bool
) -> dict[str, Any]:
    reference = answer["reference"]
    compared = [compare_words(answer[name]["text"], reference) for name in names]
    pieces = compared[-1][1] if mark_reference or not reference else [("same", reference)]
    return {
        "kind": "answers",
        "scores": [answer[name]["measures"]["score"] for name in names],
        "shown": [
            {
                "pieces": pieces,
                "calls": [str(Call(call["name"], call["arguments"])) for call in answer[name]["calls"]],
                "cut_off": not answer[name]["ended"],
                "thought": answer[name].get("reasoning_content", ""),
            }
            for name, (pieces, _) in zip(names, compared, strict=True)
        ],
        "reference": {
            "pieces": pieces,
            "calls": _written_calls(message),
            "cut_off": False,
            "thought": _written_thought(message),
        },
    }


def _written_thought(message: Mapping[str, Any]) -> str:
    """The thought of an answer in a row, which may stand in its text."""
    if message["role"] != "assistant":
        return ""
    return str(message.get("reasoning_content") or parted(message.get("content") or "")[0]).strip()


def _written_calls(message: Mapping[str, Any]) -> list[str]:
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return [str(Call(function["name"], json.loads(function["arguments"]))) for function in functions]


def compare_words(answer: str, reference: str) -> tuple[list[Piece], list[Piece]]:
    """The answer with what the reference lacks marked `other`, the reference with what the answer lacks `missed`."""
    found, wanted = _TOKEN.findall(answer), _TOKEN.findall(reference)
    matcher = SequenceMatcher(None, [word.lower() for word in found], [word.lower() for word in wanted], autojunk=False)
    in_answer, in_reference = set[int](), set[int]()
    for block in matcher.get_matching_blocks():
        in_answer.update(range(block.a, block.a + block.size))
        in_reference.update(range(block.b, block.b + block.size))
    return _pieces(found, in_answer, "other"), _pieces(wanted, in_reference, "missed")


def _pieces(tokens: list[str], shared: set[int], kind: PieceKind) -> list[Piece]:
    """Neighbours of one kind together; white space is never marked alone."""
    kinds: list[PieceKind] = [
        kind if number not in shared and not token.isspace() else "same" for number, token in enumerate(tokens)
    ]
    return list(_joined(zip(kinds, tokens, strict=True)))


def _joined(pairs: Iterable[Piece]) -> Iterator[Piece]:
    for kind, group in groupby(pairs, key=lambda pair: pair[0]):
        yield kind, "".join(token for _, token in group)
