"""A compared row as a page shows it: the conversation, and the answers of all models with their differences marked."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.inference.report.word_diff import compare_words
from trainer.inference.tool_calls import Call

SHOWN_QUESTION = 160  # characters of a question in a row's headline


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
        "question": _question(row["messages"][: row["answers"][0]["message"]]),
        "parts": [
            _answers(answers[index], message, names, mark_reference) if index in answers else _said(message)
            for index, message in enumerate(row["messages"])
        ],
    }


def _right_of(row: Mapping[str, Any], name: str) -> bool:
    """Whether all of a model's answers are right or nearly right."""
    right = row.get("sums", {}).get(name, {}).get("right")  # reports of the first format do not tell
    return right is not None and right[0] == right[1]


def _question(messages: Sequence[Mapping[str, Any]]) -> str:
    """The last thing that a user said before the first answer."""
    asked = [message.get("content") or "" for message in messages if message["role"] == "user"]
    text = " ".join((asked or [""])[-1].split())
    return text if len(text) <= SHOWN_QUESTION else f"{text[:SHOWN_QUESTION]}…"


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message["role"]
    kind = "system" if role in ("system", "developer") else "message"
    return {"kind": kind, "role": role, "text": message.get("content"), "calls": _written_calls(message)}


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
            }
            for name, (pieces, _) in zip(names, compared, strict=True)
        ],
        "reference": {"pieces": pieces, "calls": _written_calls(message), "cut_off": False},
    }


def _written_calls(message: Mapping[str, Any]) -> list[str]:
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return [str(Call(function["name"], json.loads(function["arguments"]))) for function in functions]
