"""Held-out rows become questions: what serving would send, and the answer that is expected."""

import json

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.render.rendering import IGNORE_INDEX, Renderer
from trainer.inference.evaluation.questions import Question, ask, measure_answer
from trainer.inference.replies import ReplyReader, Spoken
from trainer.inference.tool_calls import Call
from trainer.training.dataset import Row

WITH_TOOLS = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}" + CHATML.replace(
    "{{ m.content }}",
    '{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments | tojson }}}</tool_call>{% endfor %}",
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def questions(conversation: Conversation, template: str = CHATML) -> tuple[list[Question], Row]:
    renderer = Renderer(make_tokenizer(template, ["<|im_start|>", "<|im_end|>"]))
    row = Row(conversation, tuple(renderer.render(conversation)))
    return ask([row], renderer, ReplyReader(renderer)), row


def test_prompt_and_supervised_tokens_are_how_the_row_goes_on() -> None:
    turns = [("system", "Be kind."), ("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two.")]
    asked, row = questions(talk(*turns))
    (example,) = row.examples
    assert [question.reference.text for question in asked] == ["One.", "Two."]
    for question in asked:
        length = len(question.prompt_ids)
        assert question.prompt_ids == example.input_ids[:length]
        assert example.labels[length - 1] == IGNORE_INDEX != example.labels[length]


def test_the_prompt_offers_the_rows_tools() -> None:
    (question,), row = questions(call_row(*WANTED), WITH_TOOLS)
    assert question.prompt_ids == row.examples[0].input_ids[: len(question.prompt_ids)]
    assert json.dumps(TOOL) in question.prompt


def test_only_trained_answers_are_asked_and_untrained_ones_stay_in_the_prompt() -> None:
    turns = [("user", "a"), ("assistant", "Rude."), ("user", "b"), ("assistant", "Kind.")]
    (question,), _ = questions(talk(*turns, untrained=[1]))
    assert (question.message, question.reference.text) == (3, "Kind.")
    assert "Rude." in question.prompt


def call_row(*calls: tuple[str, object], tools: bool = True) -> Conversation:
    made = tuple(ToolCall(f"c{i}", name, json.dumps(arguments)) for i, (name, arguments) in enumerate(calls))
    answer = Message("assistant", None if made else "It rains.", tool_calls=made)
    return Conversation((Message("user", "Weather?"), answer), (TOOL,) if tools else (), "rows.jsonl", 1)


BONN, KOELN = Call("weather", {"city": "Bonn", "days": 2}), Call("weather", {"city": "Köln"})
WANTED = [("weather", BONN.arguments), ("weather", KOELN.arguments)]
RIGHT = {"right": 1.0, "calls": 1.0, "call_names": 1.0, "score": 100.0, "call_choice": 1.0}
CALLS = {
    "the calls": ((BONN, KOELN), RIGHT),
    "in another order": ((KOELN, BONN), RIGHT),
    "with keys in another order": ((Call("weather", {"days": 2.0, "city": "Bonn"}), KOELN), RIGHT),
    "another argument": ((BONN, Call("weather", {"city": "Ulm"})), RIGHT | {"right": 0.0, "calls": 0.0, "score": 50.0}),
    "one call too few": ((BONN,), RIGHT | {"right": 0.0, "calls": 0.0, "call_names": 0.0, "score": 0.0}),
    "another tool": (
        (BONN, Call("rain", {"city": "Köln"})),
        RIGHT | {"right": 0.0, "calls": 0.0, "call_names": 0.0, "score": 0.0},
    ),
    "no call": ((), {"right": 0.0, "calls": 0.0, "call_names": 0.0, "score": 0.0, "call_choice": 0.0}),
}


@pytest.mark.parametrize("case", CALLS)
def test_tool_calls_are_right_when_names_and_arguments_are(case: str) -> None:
    (question,), _ = questions(call_row(*WANTED), WITH_TOOLS)
    found, expected = CALLS[case]
    assert measure_answer(question, "", Spoken("", found), ended=True) == expected | {"ended": 1.0}


def test_a_call_where_none_is_expected_is_a_wrong_choice() -> None:
    (question,), _ = questions(call_row(), WITH_TOOLS)
    called = measure_answer(question, "", Spoken("", (BONN,)), ended=True)
    assert (called["call_choice"], called["score"], "calls" in called) == (0.0, 0.0, False)
    assert measure_answer(question, "", Spoken("It rains."), ended=True)["call_choice"] == 1.0


def test_without_tools_there_is_no_choice() -> None:
    (question,), _ = questions(call_row(tools=False), WITH_TOOLS)
    assert "call_choice" not in measure_answer(question, "", Spoken("It rains."), ended=False)


PYTHON = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}("
    "{% for key, value in c.function.arguments.items() %}{{ key }}="
    "{% if value is string %}'{{ value }}'{% else %}{{ value }}{% endif %}{% if not loop.last %}, {% endif %}"
    "{% endfor %}){% endfor %}",
)


@pytest.mark.parametrize(
    ("generated", "points"), [("weather(city='Bonn', days=2)\n", 100.0), ("weather(days=2, city='Bonn')", 0.0)]
)
def test_where_calls_cannot_be_read_only_the_reference_itself_is_right(generated: str, points: float) -> None:
    template = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}" + PYTHON
    (question,), _ = questions(call_row(WANTED[0]), template)
    assert question.reference.spoken is None
    found = measure_answer(question, generated, Spoken(generated), ended=True)
    right = points / 100
    assert found == {"ended": 1.0, "calls": right, "call_names": right, "score": points, "right": right}
