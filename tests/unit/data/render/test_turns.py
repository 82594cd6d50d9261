"""Rows with many turns: found in one rendering as in one for each answer, and in time that grows with their length."""

import time
from typing import Any

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from tests.families import family_tokenizer
from tests.unit.data.render.test_families import TRAINABLE
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.render import rendering
from trainer.data.render.overlength import Touched
from trainer.data.render.rendering import Example, Renderer, RenderingError
from trainer.data.render.turns import TurnFinder
from trainer.training.render import Rendering

SPECIAL = ["<|im_start|>", "<|im_end|>"]


def many(num_turns: int, **arguments: Any) -> Conversation:
    turns = [(("user", f"What is {n}?"), ("assistant", f"It is {n}.")) for n in range(num_turns)]
    return talk(*(message for turn in turns for message in turn), **arguments)


def calling(num_turns: int) -> Conversation:
    """A third of the turns call a tool."""
    messages: list[Message] = []
    for number in range(num_turns):
        messages.append(Message("user", f"Weather on day {number}?"))
        if number % 3 == 0:
            messages.append(Message("assistant", None, tool_calls=(ToolCall(f"call{number:05}", "weather", "{}"),)))
            messages.append(Message("tool", f"rain {number}", tool_call_id=f"call{number:05}"))
        messages.append(Message("assistant", f"Rain on day {number}."))
    tool = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": {"type": "object"}}}
    return Conversation(tuple(messages), (tool,), "rows.jsonl", 1)


def rendered(renderer: Renderer, row: Conversation) -> list[Example] | str:
    try:
        return renderer.render(row)
    except RenderingError as error:
        return str(error)


def one_by_one(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, row: Conversation) -> list[Example] | str:
    with monkeypatch.context() as patch:
        patch.setattr(rendering, "MANY_ANSWERS", 10**9)
        return rendered(Renderer(tokenizer), row)


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.apart
def test_one_rendering_shows_what_one_for_each_answer_does(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tokenizer = family_tokenizer(name)
    for row in (many(11), many(11, untrained=[1, 9]), calling(9)):
        assert rendered(Renderer(tokenizer), row) == one_by_one(monkeypatch, tokenizer, row)


LOOP = "{% for m in messages %}"
BODY = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
END = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
LATER = "{{ m.content if %s else 'earlier' }}"
# Templates that write history anew, each in a way that a look at one rendering could miss.
REWRITING = {
    "looks whether a message is the last": LOOP + BODY.replace("{{ m.content }}", LATER % "loop.last") + END,
    "looks ahead": LOOP + BODY.replace("{{ m.content }}", LATER % "(loop.nextitem or m).role == 'user'") + END,
    "counts the messages": LOOP + BODY.replace("{{ m.content }}", LATER % "messages|length < 9") + END,
    "counts the rest": LOOP + BODY.replace("{{ m.content }}", LATER % "loop.revindex < 5") + END,
    "looks at the last message": LOOP + BODY.replace("{{ m.content }}", LATER % "messages[-1] == m") + END,
    "looks two ahead": LOOP + BODY.replace("{{ m.content }}", LATER % "messages[loop.index0 + 2] is not defined") + END,
    "looks at a slice": LOOP + BODY.replace("{{ m.content }}", LATER % "messages[loop.index:]|list == []") + END,
    "goes over them twice": "{% for m in messages %}{% endfor %}" + LOOP + BODY + END,
    "turns them round": "{% for m in messages|reverse|list|reverse %}" + BODY + END,
    "takes two at a time": "{% for pair in messages|batch(2) %}{% for m in pair %}"
    + BODY.replace("{{ m.content }}", LATER % "pair|length < 2 or m.role == 'user'")
    + "{% endfor %}"
    + END,
    "keeps notes for its end": "{% set ns = namespace(n=0) %}"
    + LOOP
    + BODY
    + "{% set ns.n = ns.n + 1 %}"
    + END.replace("assistant\n", "assistant{{ ' again' if ns.n > 5 }}\n"),
    "writes a number into its end": LOOP + BODY + END.replace("assistant\n", "assistant {{ messages|length }}\n"),
    "forgets what is long ago": LOOP
    + BODY.replace("{{ m.content }}", LATER % "loop.index0 + 8 > messages|length")
    + END,
    "skips some": "{% for m in messages if m.content != 'It is 3.' %}" + BODY + END,
    "keeps the loop under another name": LOOP
    + "{% set l = loop %}"
    + BODY.replace("{{ m.content }}", LATER % "l.last")
    + END,
    "compares": LOOP + BODY.replace("{{ m.content }}", LATER % "[m] == messages[loop.index0:]") + END,
    "stops early": LOOP + "{% if loop.index0 > 12 %}{% break %}{% endif %}" + BODY + END,
    "leaves a step": LOOP + "{% if loop.index0 == 4 %}{% continue %}{% endif %}" + BODY + END,
    "writes prompts otherwise": LOOP
    + BODY.replace("{{ m.content }}", LATER % "not add_generation_prompt or m.role == 'user'")
    + END,
    "ends otherwise": LOOP + BODY + END.replace("{% if add", "{% if not add_generation_prompt %}!{% endif %}{% if add"),
}


@pytest.mark.parametrize("kind", REWRITING)
def test_a_template_that_looks_at_more_than_the_history_is_seen_through(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tokenizer = make_tokenizer(REWRITING[kind], SPECIAL)
    for row in (many(9), many(10, untrained=[19])):
        assert rendered(Renderer(tokenizer), row) == one_by_one(monkeypatch, tokenizer, row)


def test_each_beginning_is_shown_as_it_is_rendered_by_itself() -> None:
    tokenizer = make_tokenizer(CHATML, SPECIAL)
    messages = [{"role": m.role, "content": m.content} for m in many(6).messages]
    found = TurnFinder(tokenizer).find(messages, None)
    assert found is not None
    for prompt, turns in enumerate(found):
        assert sorted(turns.begins) == list(range(13))
        for count in range(1, 13):
            alone = tokenizer.apply_chat_template(messages[:count], add_generation_prompt=bool(prompt), tokenize=False)
            assert turns.text[: turns.begins[count]] + turns.closing == alone


def seconds(renderer: Renderer, row: Conversation) -> float:
    start = time.process_time()
    renderer.render(row)
    return time.process_time() - start


@pytest.mark.parametrize("name", ["qwen-2.5", "gemma-3", "llama-3.1"])
@pytest.mark.apart
def test_ten_times_as_many_turns_take_about_ten_times_as_long(name: str) -> None:
    renderer = Renderer(family_tokenizer(name))
    renderer.render(many(20))
    assert seconds(renderer, many(2000)) < 30 * min(seconds(renderer, many(200)) for _ in range(3))


@pytest.mark.parametrize("policy", ["drop", "error", "truncate"])
@pytest.mark.parametrize("name", ["qwen-3", "gpt-oss", "qwen-2.5"])
@pytest.mark.apart
def test_a_row_that_is_too_long_costs_little_whatever_its_template(name: str, policy: Any) -> None:
    """Each of 3,000 answers alone would take a minute."""
    row, start = many(3000), time.process_time()
    made = Rendering(Renderer(family_tokenizer(name)), 300, policy)([row])
    assert time.process_time() - start < 30
    ((note,), problems) = made.touched, made.problems
    outcome = {"drop": "dropped", "truncate": "truncated"}.get(policy, "error")
    assert not problems
    assert (note.place, note.outcome) == ("rows.jsonl:1", outcome)
    assert note.num_tokens > 3000
    assert (0 < made.tokens.longest <= 300) == (policy == "truncate")


def test_truncation_keeps_as_many_turns_as_fit() -> None:
    renderer, row = Renderer(make_tokenizer(CHATML, SPECIAL)), many(40)
    for max_length in (100, 500, 1000):
        made = Rendering(renderer, max_length, "truncate")([row])
        kept = [len(renderer.render(many_last(row, count))[0].input_ids) for count in range(1, 40)]
        assert made.tokens.longest == max(length for length in kept if length <= max_length)
        assert made.touched == [Touched("rows.jsonl:1", len(renderer.render(row)[0].input_ids), "truncated")]


def many_last(row: Conversation, num_turns: int) -> Conversation:
    return talk(*((m.role, m.content or "") for m in row.messages[-2 * num_turns :]))


def test_a_row_that_would_cost_too_much_is_refused_with_the_way_out() -> None:
    tokenizer = make_tokenizer(
        REWRITING["looks whether a message is the last"].replace("'earlier'", "m.content"), SPECIAL
    )
    with pytest.raises(RenderingError) as caught:
        Renderer(tokenizer).render(many(2000))
    assert str(caught.value) == (
        "2,000 answers are trained, and this model's chat template may write the history of each anew: 335,560,000 "
        "characters to render, expected at most 100,000,000; split the row, or give its earlier answers weight 0"
    )
