"""Text as it is streamed, and tool calls in it."""

import json
from typing import Any

import pytest

from tests.conftest import CHATML, make_tokenizer
from trainer.data.render.chat_template import ChatTemplate
from trainer.inference.call_forms import call_form
from trainer.inference.serve.text import TextStream
from trainer.inference.tool_calls import Call, CallForm

SPECIAL = ["<|im_start|>", "<|im_end|>", "[CALLS]"]
CALL_JSON = "{'name': c.function.name, 'arguments': c.function.arguments} | tojson"


def template(calls: str, joined: str = "") -> str:
    """A template that writes each call of `m.tool_calls` as `calls` says."""
    body = f"{{% for c in m.tool_calls or [] %}}{calls}{{% if not loop.last %}}{joined}{{% endif %}}{{% endfor %}}"
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + body + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


HERMES = template("<tool_call>\n{{ " + CALL_JSON + " }}\n</tool_call>", "\n")
LLAMA = template(
    "{{ '{\"name\": \"' + c.function.name + '\", \"parameters\": ' + c.function.arguments | tojson + '}' }}"
)
MISTRAL = template(
    "{% if loop.first %}[CALLS][{% endif %}"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments, 'id': c.id} | tojson }}"
    "{% if loop.last %}]{% endif %}",
    ", ",
)
THINKING = HERMES.replace("<tool_call>\n{{", "<think>\n</think>\n<tool_call>\n{{", 1)
AS_TEXT = template(
    '<call>{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments if c.function.arguments is string else raise_exception('text') }}}</call>"
)
XML = template(
    "<call><name>{{ c.function.name }}</name>{% for k in c.function.arguments %}<{{ k }}/>{% endfor %}</call>"
)


def form_of(source: str) -> CallForm | None:
    return call_form(ChatTemplate(make_tokenizer(source, SPECIAL)))


def rendered(source: str, *calls: dict[str, Any]) -> str:
    """What the template writes for an answer with these calls, without the end marker."""
    chat = ChatTemplate(make_tokenizer(source, SPECIAL))
    objects = [
        {"id": f"call{index:05d}", "type": "function", "function": {"name": "add", "arguments": json.dumps(call)}}
        for index, call in enumerate(calls)
    ]
    user = {"role": "user", "content": "hi"}
    answer = chat.adapt({"role": "assistant", "content": None, "tool_calls": objects})
    whole = chat.text([user, answer])
    return whole.removeprefix(chat.text([user], prompt=True)).removesuffix("<|im_end|>\n")


@pytest.mark.parametrize("source", [HERMES, MISTRAL, THINKING, AS_TEXT, LLAMA])
@pytest.mark.parametrize("arguments", [{}, {"a": 1}, {"a": 'q"}</tool_call>', "b": {"c": [1, None]}}])
def test_a_call_is_read_as_the_template_writes_it(source: str, arguments: dict[str, Any]) -> None:
    form = form_of(source)
    assert form is not None
    text = rendered(source, arguments)
    before, (call,) = form.read(text[text.index(form.opening) :])
    assert (before, call) == ("", Call("add", arguments))


@pytest.mark.parametrize("source", [HERMES, MISTRAL])
def test_several_calls_are_read(source: str) -> None:
    form = form_of(source)
    assert form is not None
    text = rendered(source, {"a": 1}, {"a": 2}, {"a": 3})
    _, calls = form.read(text[text.index(form.opening) :])
    assert [call.arguments for call in calls] == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("source", [CHATML, XML])
def test_a_template_without_json_calls_has_no_form(source: str) -> None:
    assert form_of(source) is None


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "add", "arguments": {"a": 1',
        '<tool_call>\n{"name": "add", "arguments": 7}',
        '<tool_call>\n{"name": "add me", "arguments": {}}',
        '<tool_call>\n{"function": "add"}',
        '<tool_call>\n{"name": "add", "arguments": {"a": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": 1e999}}\n</tool_call>',
        "<tool_call>\n" + "{" * 100_000,
    ],
)
def test_what_only_begins_like_a_call_is_none(text: str) -> None:
    form = form_of(HERMES)
    assert form is not None
    assert form.read(text) == (text, [])


def fed(text: str, stops: list[str], opening: str | None = None, at_once: bool = False) -> tuple[list[str], TextStream]:
    """The pieces of a text that is fed byte by byte."""
    tokenizer = make_tokenizer(CHATML, SPECIAL)
    stream = TextStream(tokenizer, stops, opening)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = list(stream.feed(tokens)) if at_once else [piece for token in tokens for piece in stream.feed([token])]
    return [str(piece) for piece in (*pieces, *stream.finish())], stream


@pytest.mark.parametrize("text", ["plain", "naïve 日本 🚲 ", "a<|im_end|>", " leading and trailing ", "<", "<|im"])
def test_text_comes_whole_and_without_control_tokens(text: str) -> None:
    pieces, stream = fed(text, [])
    assert "".join(pieces) == text.replace("<|im_end|>", "")
    assert not stream.stopped
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("one two three", [" three"], "one two"),
        ("one two three", ["two", "one two"], ""),
        ("aab", ["ab"], "a"),
        ("ababac", ["abac"], "ab"),
        ("日本語", ["語"], "日本"),
        ("x", ["x"], ""),
    ],
)
def test_nothing_of_a_stop_string_is_shown(text: str, stops: list[str], shown: str, at_once: bool) -> None:
    pieces, stream = fed(text, stops, at_once=at_once)
    assert "".join(pieces) == shown
    assert stream.stopped


def test_what_could_have_become_a_stop_string_is_shown_in_the_end() -> None:
    pieces, stream = fed("so be i", ["it"])
    assert pieces[-1] == "i"
    assert ("".join(pieces), stream.stopped) == ("so be i", False)


def test_a_call_is_kept_back_and_the_text_before_it_is_not() -> None:
    pieces, stream = fed("Let me see.<tool_call>{}</tool_call><|im_end|>", ["}"], opening="<tool_call>")
    assert "".join(pieces) == "Let me see."
    assert stream.call_text == "<tool_call>{}</tool_call><|im_end|>"
    assert not stream.stopped


def test_a_call_that_begins_with_a_control_token_is_found() -> None:
    pieces, stream = fed("[CALLS][{}]<|im_end|>", [], opening="[CALLS]")
    assert ("".join(pieces), stream.call_text) == ("", "[CALLS][{}]<|im_end|>")


def test_where_tools_are_given_control_tokens_are_left_out_too() -> None:
    pieces, _ = fed("No tool needed.<|im_end|>", [], opening="<tool_call>")
    assert "".join(pieces) == "No tool needed."


BARE = [  # what is written where a call is the whole answer, what is shown of it, and what is kept as a call
    ('\n{"name": "add", "parameters": {}}<|im_end|>', "", '\n{"name": "add", "parameters": {}}<|im_end|>'),
    ("[1, 2]", "", "[1, 2]"),
    ("Use {a} now", "Use {a} now", ""),
    (" \n", " \n", ""),
]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("text", "shown", "kept"), BARE)
def test_where_a_call_is_the_whole_answer_it_begins_as_json_does(
    text: str, shown: str, kept: str, at_once: bool
) -> None:
    pieces, stream = fed(text, [], opening="", at_once=at_once)
    assert ("".join(pieces), stream.call_text) == (shown, kept)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stop_string_before_a_call_ends_the_answer_and_one_within_it_does_not(at_once: bool) -> None:
    pieces, stream = fed("a STOP <tool_call>", ["STOP"], "<tool_call>", at_once)
    assert ("".join(pieces), stream.stopped, stream.call_text) == ("a ", True, "")
    pieces, stream = fed("a <tool_call>STOP", ["STOP"], "<tool_call>", at_once)
    assert ("".join(pieces), stream.stopped, stream.call_text) == ("a ", False, "<tool_call>STOP")
    pieces, stream = fed("a <tool", ["<tool"], "<tool_call>", at_once)
    assert ("".join(pieces), stream.stopped, stream.call_text) == ("a ", True, "")
