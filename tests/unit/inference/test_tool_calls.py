"""Calls are read back in the form in which a chat template writes them, and nothing else is a call."""

import json
import re
from pathlib import Path

import pytest
import trl

from tests.conftest import make_tokenizer
from trainer.data.render.chat_template import ChatTemplate
from trainer.inference.call_forms import call_form, generated_text
from trainer.inference.thought_markers import thought_markers
from trainer.inference.tool_calls import Call, CallForm, typed

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}"

# What these families of models write: NAME and ARGUMENTS stand for the two, FIELD … END for each argument.
FORMS = {
    "an object between tags": '<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>\n',
    "a bare object": '{"name": "NAME", "parameters": ARGUMENTS}',
    "an object in an object": '<|a|>{"type": "function", "function": {"name": "NAME", "arguments": ARGUMENTS}}<|b|>',
    "arguments as a string": '<tool_call>{"name": "NAME", "arguments": STRING}</tool_call>',
    "a name and its arguments": "<|begin|>function<|sep|>NAME\n```json\nARGUMENTS\n```<|end|>",
    "fields": "<tool_call>\n<function=NAME>\nFIELD<parameter=KEY>\nVALUE\n</parameter>\nEND</function>\n</tool_call>\n",
    "keys and values": "<tool_call>NAME\nFIELD<key>KEY</key>\n<value>VALUE</value>\nEND</tool_call>",
}
PARTS = {
    "NAME": "{{ c.function.name }}",
    "ARGUMENTS": "{{ c.function.arguments | tojson }}",
    "STRING": "{{ c.function.arguments | tojson | tojson }}",
    "FIELD": "{% for key, value in c.function.arguments.items() %}",
    "KEY": "{{ key }}",
    "VALUE": "{{ value if value is string else value | tojson }}",
    "END": "{% endfor %}",
}
LIST = (
    "{% if m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{% endif %}"
)


def jinja(form: str) -> str:
    return re.sub("|".join(PARTS), lambda match: PARTS[match[0]], form)


TEMPLATES = {name: f"{HEAD}{CALLS}{jinja(form)}{{% endfor %}}{TAIL}" for name, form in FORMS.items()}
TEMPLATES["a list"] = HEAD + LIST + TAIL
AS_TEXT = {"fields", "keys and values"}  # forms that do not tell a number from its digits

GIVEN = [
    ("weather", {"city": "Köln", "days": 3, "exact": True, "note": 'say "hi"\nplease'}),
    ("stop", {}),
    ("weather", {"city": "Bonn {x}", "near": {"places": ["a", "b"], "km": 1.5}}),
]


def template_of(text: str) -> ChatTemplate:
    return ChatTemplate(make_tokenizer(text, ["<|im_start|>", "<|im_end|>", "[TOOL_CALLS]"]))


def form_of(name: str) -> CallForm:
    form = call_form(template_of(TEMPLATES[name]))
    assert form is not None
    return form


def written(name: str, *calls: tuple[str, dict[str, object]], content: str = "") -> str:
    """What the template makes of an answer with these calls."""
    template = template_of(TEMPLATES[name])
    objects = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    answer = template.adapt({"role": "assistant", "content": content, "tool_calls": objects})
    return generated_text(template, [{"role": "user", "content": "?"}, answer], None)


def as_read(name: str, *calls: tuple[str, dict[str, object]]) -> list[Call]:
    """The calls that should be found."""
    if name not in AS_TEXT:
        return [Call(*call) for call in calls]
    return [Call(tool, {key: as_text(value) for key, value in arguments.items()}) for tool, arguments in calls]


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("call", GIVEN, ids=["values", "no arguments", "nested"])
def test_what_the_template_writes_is_read_back(name: str, call: tuple[str, dict[str, object]]) -> None:
    assert form_of(name).read(written(name, call)) == ("", as_read(name, call))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_form_is_the_same_in_another_process(name: str) -> None:
    form = form_of(name)
    assert CallForm.from_json(json.loads(json.dumps(form.as_json()))) == form


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("function", ["add me", "", "a" * 65])
def test_what_no_function_can_be_called_is_no_call(name: str, function: str) -> None:
    assert form_of(name).read(written(name, (function, {"city": "Bonn"})))[1] == []


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"a bare object"}))
def test_several_calls_and_the_text_before_them_are_read_back(name: str) -> None:
    text = written(name, *GIVEN, content="I will look.")
    assert form_of(name).read(text) == ("I will look.", as_read(name, *GIVEN))


@pytest.mark.parametrize("name", TEMPLATES)
def test_white_space_does_not_matter(name: str) -> None:
    call = ("weather", {"city": "Bonn"})
    text = written(name, call)
    spaced = text.replace("\n", " \n ").replace("<tool_call>", "<tool_call> ").replace("</", " </")
    assert form_of(name).read(f"\n{spaced}\n") == ("", as_read(name, call))


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_not_whole_is_text(name: str) -> None:
    text = written(name, ("weather", {"city": "Bonn"})).rstrip()
    form = form_of(name)
    for cut in range(len(text)):
        assert form.read(text[:cut])[1] == [], text[:cut]
    assert form.read(f"{text} and more")[1] == []


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "text", ["", "No tools needed.", '```json\n{"city": "Bonn"}\n```', "weather(city=Bonn)", "[1]", "{}"]
)
def test_text_is_no_call(name: str, text: str) -> None:
    assert form_of(name).read(text) == (text, [])


def test_the_order_of_keys_and_the_form_of_numbers_do_not_matter_and_all_else_does() -> None:
    call = Call("f", {"a": 1, "b": [True, {"c": 2.5}]})
    assert call.canonical == Call("f", {"b": [True, {"c": 2.5}], "a": 1.0}).canonical
    arguments = [{"a": "1", "b": [True, {"c": 2.5}]}, {"a": 1, "b": [1, {"c": 2.5}]}, {"a": 1, "b": [{"c": 2.5}, True]}]
    others = [Call("g", call.arguments), *(Call("f", other) for other in arguments)]
    assert call.canonical not in {other.canonical for other in others}


def test_a_template_without_tool_calls_has_no_form() -> None:
    assert call_form(template_of(HEAD + TAIL)) is None


UNREADABLE = {
    "values without their keys": (
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.values() | join(' ') }})"
        "{% endfor %}"
    ),
    "all names before all arguments": (
        "{% if m.tool_calls %}<names>{% for c in m.tool_calls %}{{ c.function.name }} {% endfor %}</names>"
        "{% for c in m.tool_calls %}<args>{{ c.function.arguments | tojson }}</args>{% endfor %}{% endif %}"
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_form_that_cannot_be_read_back_is_not_used(name: str) -> None:
    assert call_form(template_of(HEAD + UNREADABLE[name] + TAIL)) is None


BUNDLED = Path(trl.__file__).parent / "chat_templates"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>",
           "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>", "<|constrain|>"]  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2_5", "qwen3", "qwen3_5_nothink", "llama3_1", "llama3_2", "gptoss"])
def test_templates_of_real_models_are_read_back(family: str) -> None:
    source = BUNDLED / f"{family}.jinja"
    if not source.is_file():
        pytest.skip(f"this version of TRL does not bundle {source.name}")
    template = ChatTemplate(make_tokenizer(source.read_text(encoding="utf-8"), SPECIAL, bos_token="<|im_start|>"))
    form = call_form(template)
    assert form is not None
    function = {"name": "weather", "arguments": '{"city": "Bonn", "note": "at \\"noon\\""}'}
    call = {"id": "call_1", "type": "function", "function": function}
    said = template.adapt({"role": "assistant", "content": "", "tool_calls": [call]})
    text = generated_text(template, [{"role": "user", "content": "?"}, said], None)
    _, answer = thought_markers(template).split(text)
    assert form.read(answer) == ("", [Call("weather", {"city": "Bonn", "note": 'at "noon"'})])


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"properties": {"a": {"type": "integer"}}}, 3),
        ({"properties": {"a": {"type": ["integer", "null"]}}}, "3"),
        ({"properties": {"a": {"type": {"not": "a type"}}}}, "3"),
        ({"properties": {"a": True}}, "3"),
        ({"properties": None}, "3"),
        (None, "3"),
    ],
)
def test_arguments_get_the_types_that_a_tool_declares_however_little_it_does(parameters: object, found: object) -> None:
    tools = [{"function": {"name": "add", "parameters": parameters}}]
    assert typed(Call("add", {"a": "3"}), tools) == Call("add", {"a": found})
