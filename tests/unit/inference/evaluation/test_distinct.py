"""Which held-out rows are one observation, and which of their answers were trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.inference.evaluation.significance import Distinct, count_distinct, groups

HUB = "Spokes radiate from the hub, the central part of the wheel."
RIM = "The rim is the outer hoop of a wheel that holds the tyre."


def row(*turns: tuple[str, Any]) -> dict[str, Any]:
    """As in report.json; an answer that is a tuple is a call with its arguments."""
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        if isinstance(answer, str):
            messages.append({"role": "assistant", "content": answer})
        else:
            function = {"name": answer[0], "arguments": answer[1]}
            messages.append(
                {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
            )
    answers = [{"message": number} for number, message in enumerate(messages) if message["role"] == "assistant"]
    return {"messages": messages, "tools": [], "answers": answers}


def test_rows_that_expect_the_same_answer_are_one_observation() -> None:
    rows = [row(("Hub?", HUB)), row(("Rim?", RIM)), row(("What is a hub?", f"  {HUB.upper()} "))]
    assert groups(rows) == [0, 1, 0]
    assert count_distinct(rows, ()) == Distinct(rows=3, answers=2, seen=0, independent=2)


def test_a_label_is_a_choice_of_each_question() -> None:
    rows = [
        row(("Good!", "positive")),
        row(("Bad!", "negative")),
        row(("Great!", "positive")),
        row(("Good!", "positive")),
    ]
    assert groups(rows) == [0, 1, 2, 0]
    assert count_distinct(rows, ()) == Distinct(rows=3, answers=0, seen=0, independent=3)


def test_calls_are_known_by_their_arguments() -> None:
    bonn, again, ulm = ('{"city": "Bonn", "days": 2}', '{"days":2.0,"city":"Bonn"}', '{"city": "Ulm", "days": 2}')
    rows = [row(("a", ("weather", bonn))), row(("b", ("weather", again))), row(("c", ("weather", ulm)))]
    assert groups(rows) == [0, 0, 1]
    assert groups([row(("a", ("now", "{}"))), row(("b", ("now", "{}")))]) == [0, 1]  # nothing but a choice


def test_a_closing_line_that_many_rows_share_does_not_make_them_one() -> None:
    thanks = ("Thanks", "You are welcome, and do come back soon.")
    assert groups([row(("Hub?", HUB), thanks), row(("Rim?", RIM), thanks), row(("The hub?", HUB))]) == [0, 1, 0]


def test_answers_that_were_trained_are_counted_whatever_was_asked(write_rows: Callable[..., Path]) -> None:
    rows = [row(("Hub?", HUB)), row(("Rim?", RIM)), row(("Good!", "positive"))]
    unlearned = {"role": "assistant", "content": RIM, "weight": 0}
    trained = write_rows(
        [("Tell me of hubs", HUB), ("Nice!", "positive"), {"messages": [
            {"role": "user", "content": "Rim?"}, unlearned, {"role": "user", "content": "No."},
            {"role": "assistant", "content": "Then I do not know what a rim is."}]}]
    )  # fmt: skip
    assert count_distinct(rows, [str(trained)]).seen == 1
    assert count_distinct(rows, None).seen is None
    written = {"role": "assistant", "content": [{"type": "text", "text": RIM}]}
    trained.write_text(json.dumps({"messages": [{"role": "user", "content": "?"}, written]}) + "\n")
    assert count_distinct(rows, [str(trained)]).seen == 1
