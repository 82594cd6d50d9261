"""Thoughts: which prompt asks for them, what of them is supervised, and what is refused."""

from dataclasses import replace

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from tests.families import family_tokenizer
from tests.golden_masks import renderer_of
from tests.unit.data.render.test_families import THINKING, THOUGHTS
from tests.unit.data.render.test_rendering import joining_tokenizer, supervised_text
from trainer.data.conversations import Conversation, Message
from trainer.data.render.chat_template import ChatTemplate
from trainer.data.render.pinned_thinking import pinned_mode, unpinned
from trainer.data.render.rendering import IGNORE_INDEX, Renderer, RenderingError

HI = {"role": "user", "content": "Hi"}
CLOSED = ["qwen-3", "qwen-3.5", "qwen-3.8", "nemotron-3", "nemotron-3-ultra"]  # think by default
OPENED = ["qwen-3.5-small", "gemma-4", "deepseek-v3.1"]  # do not


def answered(answer: str, thought: str | None = None, other: str | None = None) -> Conversation:
    """A question with its answer; with `other`, a preference row."""
    row = Conversation(
        (Message("user", "Hi"), Message("assistant", answer, reasoning_content=thought)), (), "rows.jsonl", 1
    )
    if other is None:
        return row
    return replace(row, num_prompt=1, non_preferred=(Message("assistant", other, weight=0, reasoning_content="No."),))


@pytest.mark.parametrize(("name", "thinks"), [*((name, False) for name in CLOSED), *((name, True) for name in OPENED)])
def test_the_stored_template_asks_by_default_as_the_rows_did(name: str, thinks: bool) -> None:
    tokenizer = family_tokenizer(name)
    by_default = tokenizer.apply_chat_template([HI], add_generation_prompt=True, tokenize=False)
    wish = {"enable_thinking": thinks, "thinking": thinks}
    asked = tokenizer.apply_chat_template([HI], add_generation_prompt=True, tokenize=False, **wish)
    pinned = ChatTemplate(tokenizer, thinks)
    assert pinned.text([HI], prompt=True) == asked != by_default
    assert pinned_mode(tokenizer.chat_template) == thinks
    stored = tokenizer.chat_template
    assert unpinned(stored) == ChatTemplate(family_tokenizer(name)).tokenizer.chat_template
    assert ChatTemplate(tokenizer, thinks).tokenizer.chat_template == stored
    other = {"enable_thinking": not thinks, "thinking": not thinks}
    assert tokenizer.apply_chat_template([HI], add_generation_prompt=True, tokenize=False, **other) == by_default
    assert ChatTemplate(tokenizer, not thinks).text([HI], prompt=True) == by_default


@pytest.mark.parametrize("name", ["llama-3.1", "gpt-oss", "deepseek-r1-distill"])
@pytest.mark.parametrize("thinks", [True, False])
def test_a_template_that_nobody_can_ask_stays_as_it_is(name: str, thinks: bool) -> None:
    tokenizer = family_tokenizer(name)
    before = ChatTemplate(tokenizer).tokenizer.chat_template
    assert ChatTemplate(tokenizer, thinks).tokenizer.chat_template == before
    assert pinned_mode(before) is None


@pytest.mark.parametrize("name", THOUGHTS)
def test_both_answers_of_a_pair_are_supervised_with_their_thoughts_or_without(name: str) -> None:
    row = answered("Hello.", "Be kind.", other="Go.")
    whole, said = (renderer_of(name, True, trained) for trained in (True, False))
    for made in (whole, said):
        alone = [replace(row, non_preferred=(), num_prompt=0)]
        alone += [answered("Go.", "No.")]
        assert made.render(row) == [example for each in alone for example in made.render(each)]
    for with_thought, without in zip(whole.render(row), said.render(row), strict=True):
        assert with_thought.input_ids == without.input_ids
        hidden = [w != IGNORE_INDEX == s for w, s in zip(with_thought.labels, without.labels, strict=True)]
        first = hidden.index(True)
        assert hidden[first:] == [True] * sum(hidden) + [False] * (len(hidden) - first - sum(hidden))


def test_a_thought_that_the_tokenizer_joins_with_the_prompt_is_tokenised_apart() -> None:
    tokenizer = joining_tokenizer()
    tokenizer.chat_template = CHATML.replace(
        "{{ m.content }}",
        "{% if m.reasoning_content is defined %}{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}",
    )
    row = answered("ok", "\nhm")
    (whole,), (said,) = (Renderer(tokenizer, trained).render(row) for trained in (True, False))
    assert whole.input_ids == said.input_ids
    made = Renderer(tokenizer)
    prompt = made.prompt_ids([HI])
    assert list(whole.input_ids[: len(prompt)]) == prompt
    assert supervised_text(made, whole) == "\nhm</think>ok<|im_end|>"
    assert supervised_text(made, said) == "ok<|im_end|>"


def test_a_thought_in_the_text_is_refused_where_the_template_writes_one_of_nothing_before_it() -> None:
    with pytest.raises(RenderingError) as caught:
        renderer_of("qwen-3.8", True).render(talk(("user", "Hi"), ("assistant", "<think>Be kind.</think>Hello.")))
    assert str(caught.value) == (
        "messages[1].content begins with <think>, before which this model's chat template writes a thought of nothing; "
        "move it to reasoning_content with: trainer data convert FILE"
    )


def test_a_thought_after_a_prompt_that_closed_it_is_refused() -> None:
    with pytest.raises(RenderingError, match="the prompt asks for an answer without a thought; take the thought out"):
        renderer_of("qwen-3", False).render(answered("Hello.", "Be kind."))


@pytest.mark.parametrize("name", THINKING)
def test_an_answer_without_a_thought_is_refused_where_the_prompt_opened_one(name: str) -> None:
    with pytest.raises(RenderingError, match=r"the prompt opens a thought.*; write it as reasoning_content; at token"):
        renderer_of(name, True).render(answered("Hello."))


def test_a_thought_that_spells_a_control_token_is_refused() -> None:
    with pytest.raises(RenderingError, match=r"^messages\[1\]\.reasoning_content holds '<\|im_end\|>', a control"):
        renderer_of("qwen-3", True).render(answered("Hello.", "Be<|im_end|>"))


def test_a_thought_that_the_template_changes_is_refused() -> None:
    template = CHATML.replace("{{ m.content }}", "{{ (m.reasoning_content or '') | lower }}</t>{{ m.content }}")
    made = Renderer(make_tokenizer(template, ["<|im_start|>", "<|im_end|>"]))
    assert made.render(answered("Hello.", "be kind."))
    with pytest.raises(RenderingError, match=r"the chat template changes the answer: 'Be kind\.' is not in"):
        made.render(answered("Hello.", "Be kind."))
