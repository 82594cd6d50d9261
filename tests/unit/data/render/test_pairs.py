"""A preference row as tokens: both answers as conversations of their own, supervised in the answers alone."""

from dataclasses import replace
from itertools import takewhile

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from tests.families import family_tokenizer
from tests.unit.data.render.test_families import TRAINABLE
from tests.unit.data.render.test_rendering import THINKING, renderer, supervised_text
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.render.overlength import Touched, apply_policy, longest
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError

ASKED = (("user", "Hi"), ("assistant", "Yes?"), ("user", "Which one?"))
BEGIN_WITH_A_THOUGHT = ("deepseek-r1-distill", "deepseek-v3")  # the prompt opens it
FUNCTION = {"name": "find", "parameters": {"type": "object", "properties": {}}}


def pair(preferred: str = "The red one.", other: str = "The blue.", *asked: tuple[str, str]) -> Conversation:
    turns = asked or ASKED
    row = talk(*turns, ("assistant", preferred), untrained=[n for n, (role, _) in enumerate(turns) if role != "user"])
    return replace(row, num_prompt=len(turns), non_preferred=(Message("assistant", other, weight=0),))


def chat(row: Conversation, answer: str) -> Conversation:
    """The prompt with one answer, as a chat row that trains on the answer alone."""
    prompt = tuple(replace(message, weight=0) for message in row.messages[: row.num_prompt])
    return replace(row, messages=(*prompt, Message("assistant", answer)), num_prompt=0, non_preferred=())


def num_common(examples: list[Example]) -> int:
    first, second = (example.input_ids for example in examples)
    return len(list(takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False))))


@pytest.mark.parametrize("name", TRAINABLE)
def test_each_answer_is_rendered_as_the_chat_that_serving_would_see(name: str) -> None:
    made = Renderer(family_tokenizer(name))
    thought = "<think>\nHm.\n</think>\n\n" if name in BEGIN_WITH_A_THOUGHT else ""
    row = pair(f"{thought}The red one.", f"{thought}The blue.")
    examples = made.render(row)
    assert examples == [
        example for text in ("red one.", "blue.") for example in made.render(chat(row, f"{thought}The {text}"))
    ]
    first, second = ([label != IGNORE_INDEX for label in example.labels].index(True) for example in examples)
    assert 0 < first == second <= num_common(examples)  # both begin with the prompt, and nothing of it is supervised


def test_answers_that_begin_alike_are_supervised_from_their_first_token() -> None:
    made = renderer()
    examples = made.render(pair("The red one.", "The red."))
    assert [supervised_text(made, example) for example in examples] == ["The red one.<|im_end|>", "The red.<|im_end|>"]


def test_calls_and_tools_stand_in_both() -> None:
    template = (
        "{% for t in tools or [] %}{{ t.function.name }}\n{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}(){% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made = renderer(template)
    row = pair("", "I cannot look.")
    called = Message("assistant", None, tool_calls=(ToolCall("a", "find", "{}"),))
    row = replace(row, messages=(*row.messages[:3], called), tools=({"type": "function", "function": FUNCTION},))
    examples = made.render(row)
    assert [supervised_text(made, each) for each in examples] == ["find()<|im_end|>", "I cannot look.<|im_end|>"]
    assert all(made.tokenizer.decode(each.input_ids).startswith("find\n") for each in examples)


def test_an_answer_of_several_messages_is_one_example_or_refused() -> None:
    row = pair()
    calls = (
        Message("assistant", "One moment.", tool_calls=(ToolCall("abcdefghi", "find", "{}"),)),
        Message("tool", "Red", tool_call_id="abcdefghi"),
        Message("assistant", "The red one."),
    )
    row = replace(row, messages=(*row.messages[:3], *calls), tools=({"type": "function", "function": FUNCTION},))
    with_calls = CHATML.replace(
        "{{ m.content }}", "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}"
    )
    with_tools = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    made = renderer(with_tools + with_calls)
    first, _ = made.render(row)
    assert supervised_text(made, first) == "One moment.find<|im_end|>The red one.<|im_end|>"
    turns = tuple(Message(role, text) for role, text in (("assistant", "A."), ("user", "And?"), ("assistant", "B.")))
    with pytest.raises(RenderingError) as caught:
        renderer(THINKING).render(replace(pair(), messages=(*row.messages[:3], *turns)))
    assert str(caught.value) == (
        "preferred_output holds 3 messages, and this model's chat template rewrites the earlier ones, expected one "
        "message; move what leads to the answer into input.messages"
    )


def test_answers_that_a_template_makes_the_same_are_refused() -> None:
    trimmed = CHATML.replace("m.content", "m.content | trim")
    with pytest.raises(RenderingError, match="both answers are the same in this model's chat template"):
        renderer(trimmed).render(pair("Red.", "Red. "))


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (pair(other="No<|im_end|>"), "non_preferred_output[0].content"),
        (pair("No<|im_end|>"), "preferred_output[0].content"),
        (pair("Red.", "Blue.", ("user", "Hi<|im_end|>")), "input.messages[0].content"),
    ],
)
def test_a_refusal_names_the_place_in_the_row(row: Conversation, place: str) -> None:
    with pytest.raises(RenderingError) as caught:
        renderer().render(row)
    assert str(caught.value).startswith(f"{place} holds '<|im_end|>'")


def test_the_longer_answer_decides_the_length_and_truncation_keeps_both_whole() -> None:
    made = Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))
    row = pair("Red.", "The blue one, which is much longer than that.")
    examples = made.render(row)
    num_tokens = longest(examples)
    assert num_tokens == len(examples[1].input_ids)
    assert apply_policy(row, examples, made, num_tokens, "error") == (examples, None)
    assert apply_policy(row, examples, made, num_tokens - 1, "drop") == ([], Touched(row.place, num_tokens, "dropped"))
    shorter, note = apply_policy(row, examples, made, num_tokens - 1, "truncate")
    assert note == Touched(row.place, num_tokens, "truncated")
    last = pair("Red.", "The blue one, which is much longer than that.", ASKED[-1])
    assert shorter == made.render(last)
