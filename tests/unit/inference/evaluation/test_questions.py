"""Held-out rows become questions: what serving would send, and the answer that is expected."""

import json
from dataclasses import dataclass

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.render.chat_template import Rendered
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer
from trainer.inference.client import Reply
from trainer.inference.evaluation.local_model import TemplateQuestions
from trainer.inference.evaluation.questions import Question, ask, measure_answer
from trainer.inference.tool_calls import Call

WITH_TOOLS = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}" + CHATML.replace(
    "{{ m.content }}",
    '{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments | tojson }}}</tool_call>{% endfor %}",
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True)
class Asked:
    """The questions of a row with the prompts that a local model gets, and what the row is trained as."""

    questions: list[Question]
    prompts: list[Rendered]
    examples: list[Example]


def asked(conversation: Conversation, template: str = CHATML) -> Asked:
    renderer = Renderer(make_tokenizer(template, ["<|im_start|>", "<|im_end|>"]))
    local = TemplateQuestions(renderer)
    questions = ask([conversation], local.reference)
    prompts = [local.prompt(question.conversation, question.message) for question in questions]
    return Asked(questions, prompts, list(renderer.render(conversation)))


def test_prompt_and_supervised_tokens_are_how_the_row_goes_on() -> None:
    turns = [("system", "Be kind."), ("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two.")]
    found = asked(talk(*turns))
    (example,) = found.examples
    assert [question.reference.text for question in found.questions] == ["One.", "Two."]
    for prompt in found.prompts:
        length = len(prompt.ids)
        assert tuple(prompt.ids) == example.input_ids[:length]
        assert example.labels[length - 1] == IGNORE_INDEX != example.labels[length]


def test_the_prompt_offers_the_rows_tools() -> None:
    found = asked(call_row(*WANTED), WITH_TOOLS)
    (prompt,) = found.prompts
    assert tuple(prompt.ids) == found.examples[0].input_ids[: len(prompt.ids)]
    assert json.dumps(TOOL) in prompt.text


def test_only_trained_answers_are_asked_and_untrained_ones_stay_in_the_prompt() -> None:
    turns = [("user", "a"), ("assistant", "Rude."), ("user", "b"), ("assistant", "Kind.")]
    found = asked(talk(*turns, untrained=[1]))
    (question,), (prompt,) = found.questions, found.prompts
    assert (question.message, question.reference.text) == (3, "Kind.")
    assert "Rude." in prompt.text


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
    (question,) = asked(call_row(*WANTED), WITH_TOOLS).questions
    found, expected = CALLS[case]
    assert measure_answer(question, Reply("", found, True)) == expected | {"ended": 1.0}


def test_a_call_where_none_is_expected_is_a_wrong_choice() -> None:
    (question,) = asked(call_row(), WITH_TOOLS).questions
    called = measure_answer(question, Reply("", (BONN,), True))
    assert (called["call_choice"], called["score"], "calls" in called) == (0.0, 0.0, False)
    assert measure_answer(question, Reply("It rains.", (), True))["call_choice"] == 1.0


def test_without_tools_there_is_no_choice() -> None:
    (question,) = asked(call_row(tools=False), WITH_TOOLS).questions
    assert "call_choice" not in measure_answer(question, Reply("It rains.", (), False))


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
    (question,) = asked(call_row(WANTED[0]), template).questions
    assert question.reference.calls is None
    found = measure_answer(question, Reply(generated, (), True, generated))
    right = points / 100
    assert found == {"ended": 1.0, "calls": right, "call_names": right, "score": points, "right": right}
