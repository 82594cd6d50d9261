"""Text is shown as soon as it cannot be the beginning of a tool call, and calls are taken out of it."""

import pytest

from tests.conftest import CHATML, make_tokenizer
from trainer.data.render.rendering import Renderer
from trainer.inference.replies import ReplyReader, split_stream
from trainer.inference.tool_calls import Call, typed

WRITTEN = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'


def reader(form: str | None) -> ReplyReader:
    calls = "{% for c in m.tool_calls or [] %}" + form + "{% endfor %}" if form else ""
    template = CHATML.replace("{{ m.content }}", "{{ m.content }}" + calls)
    return ReplyReader(Renderer(make_tokenizer(template, ["<|im_start|>", "<|im_end|>"])))


TAGS, BARE, PLAIN = reader(f"<tool_call>\n{WRITTEN}\n</tool_call>\n"), reader(WRITTEN), reader(None)
CALL = '{"name": "stock", "arguments": {"part": "hub"}}'
STOCK = Call("stock", {"part": "hub"})
CASES = {
    "text": (TAGS, ["Hel", "lo <", "b> there", "<|im_end|>"], ["Hel", "lo ", "<b> there"]),
    "a call": (TAGS, ["Wait. <tool", f"_call>{CALL}", "</tool_call>", "<|im_end|>"], ["Wait. ", STOCK]),
    "a call at once": (TAGS, [f"<tool_call>{CALL}</tool_call><|im_end|>"], [STOCK]),
    "a broken call": (TAGS, ["Wait. <tool_call>{", '"name"'], ["Wait. ", '<tool_call>{"name"']),
    "the beginning of an opening": (TAGS, ["a <tool", "_box> b"], ["a ", "<tool_box> b"]),
    "a bare call": (BARE, ["\n", CALL[:9], CALL[9:]], [STOCK]),
    "text with braces": (BARE, ["Use ", "{a}", " now"], ["Use ", "{a}", " now"]),
    "a bare object that is no call": (BARE, ['{"a": ', "1}"], ['{"a": 1}']),
    "a model without calls": (PLAIN, [f"<tool_call>{CALL}", "</tool_call>"], [f"<tool_call>{CALL}", "</tool_call>"]),
}


@pytest.mark.parametrize("case", CASES)
def test_text_comes_at_once_and_calls_at_the_end(case: str) -> None:
    made, pieces, expected = CASES[case]
    assert list(split_stream(pieces, made, "", [])) == expected


@pytest.mark.parametrize("case", CASES)
def test_how_the_text_is_cut_changes_nothing(case: str) -> None:
    made, pieces, expected = CASES[case]
    text = "".join(pieces).removesuffix("<|im_end|>")
    shown = list(split_stream(list(text), made, "", []))
    assert (
        "".join(piece for piece in shown if isinstance(piece, str)).strip()
        == "".join(piece for piece in expected if isinstance(piece, str)).strip()
    )
    assert [piece for piece in shown if not isinstance(piece, str)] == [
        piece for piece in expected if not isinstance(piece, str)
    ]


def test_arguments_get_the_types_that_the_tool_declares() -> None:
    properties = {"n": {"type": "integer"}, "on": {"type": "boolean"}, "name": {"type": "string"},
                  "sizes": {"type": "array"}, "any": {}}  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": properties}}}
    found = Call("f", {"n": "3", "on": "true", "name": "7", "sizes": "[1, 2]", "any": "5", "other": "6"})
    assert typed(found, [tool]).arguments == {
        "n": 3, "on": True, "name": "7", "sizes": [1, 2], "any": "5", "other": "6",
    }  # fmt: skip
    assert typed(Call("f", {"n": "three"}), [tool]).arguments == {"n": "three"}
    assert typed(Call("g", {"n": "3"}), [tool]).arguments == {"n": "3"}
