"""What a person would see of what a model generated."""

import pytest

from tests.conftest import CHATML, make_tokenizer
from trainer.data.render.rendering import Renderer
from trainer.inference.replies import ReplyReader, Spoken
from trainer.inference.tool_calls import Call

HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}"
    "{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>{{ m.role }}{% endif %}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
TOOLS = CHATML.replace(
    "{{ m.content }}",
    '{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments | tojson }}}</tool_call>{% endfor %}",
)


def reader(template: str, *special: str) -> ReplyReader:
    return ReplyReader(Renderer(make_tokenizer(template, ["<|im_start|>", "<|im_end|>", *special])))


CASES = {
    "text": (CHATML, " Hello. \n", "", Spoken("Hello.")),
    "text without a form for calls": (CHATML, '<tool_call>{"name": 1}</tool_call>', "", None),
    "a call": (
        TOOLS, 'Wait.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>', "", Spoken("Wait.", (Call("f", {}),)),
    ),
    "a broken call": (TOOLS, '<tool_call>{"name": "f"', "", None),
    "thinking": (CHATML, "<think>\nHm.\n</think>\n\nHello.", "", Spoken("Hello.", (), "Hm.")),
    "thinking that the prompt begins": (CHATML, "Hm.\n</think>\n\nHello.", "…<think>\n", Spoken("Hello.", (), "Hm.")),
    "thinking that was cut off": (CHATML, "<think>\nHm. Hello.", "", Spoken("", (), "Hm. Hello.")),
    "thinking that the prompt begins, cut off": (CHATML, "Hm. Hello.", "…<think>\n", Spoken("", (), "Hm. Hello.")),
    "a call after thinking": (
        TOOLS, '<think>\nIt is <tool_call>.</think>\n\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', "",
        Spoken("", (Call("f", {"a": 1}),), "It is <tool_call>."),
    ),
    "control tokens": (CHATML, "Hel<|im_start|>lo.", "", Spoken("Hello.")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_reply_is_read(case: str) -> None:
    template, generated, prompt, expected = CASES[case]
    assert reader(template).read(generated, prompt) == (expected or Spoken(generated))


def test_the_channels_of_a_model_are_its_thought_and_its_answer() -> None:
    made = reader(HARMONY, "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
    spoken = made.read(
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello.", ""
    )
    assert spoken == Spoken("Hello.", (), "Hm.")


def test_what_was_decoded_holds_every_token() -> None:
    made = reader(TOOLS)
    text = 'Größe <|im_start|> ?  "x"\n'
    assert made.decode(made.template.tokenizer(text)["input_ids"]) == text
