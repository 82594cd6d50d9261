"""Thought and answer of what a model generates, in the form of its family's published chat template."""

import json
from functools import cache
from typing import Any

import pytest

from tests.families import Family, family_tokenizer
from trainer.data.render.rendering import Renderer, RenderingError
from trainer.inference.call_forms import generated_text
from trainer.inference.replies import ReplyReader, Spoken, split_stream
from trainer.inference.serve.text import TextStream
from trainer.inference.thoughts import THINK, Thought, ThoughtMarkers, parted
from trainer.inference.tool_calls import Call, typed

THOUGHT, ANSWER = "Rain is wet.\n\nSo: an umbrella.", "Bring an umbrella.\n\nAnd boots."
QUESTION = {"role": "user", "content": "Weather?"}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "?", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
ANGLES = ThoughtMarkers("<think>", "</think>")
FORMS = {  # by family, or by family and another template for its tokenizer: the form, and whether the prompt opens it
    "llama-3.1": (ANGLES, False),
    "qwen-3": (ANGLES, False),
    "qwen-3.5": (ANGLES, True),
    "qwen-3 qwen3_8": (ANGLES, True),
    "smollm-3": (ANGLES, False),
    "glm-4.5": (ANGLES, False),
    "lfm-2 lfm2_2_5": (ANGLES, False),
    "nemotron-3": (ANGLES, True),
    "nemotron-3 nemotron_3_5_lightning": (ANGLES, True),
    "deepseek-r1-distill": (ANGLES, True),
    "deepseek-r1-distill deepseekv3": (ANGLES, True),
    "gemma-4": (ThoughtMarkers("<|channel>thought", "<channel|>"), False),
    "gemma-4 gemma4": (ThoughtMarkers("<|channel>thought", "<channel|>"), False),
    "gpt-oss": (
        ThoughtMarkers("<|channel|>analysis<|message|>", "<|end|><|start|>assistant", "<|channel|>final<|message|>"),
        False,
    ),
    "gpt-oss muse_glimmer": (
        ThoughtMarkers("to=self<|message|>", "<|eom|><|start|>assistant", "to=user<|message|>"),
        False,
    ),
}
READABLE = [name for name in FORMS if name != "glm-4.5"]  # whose answers end with no token, so that none is trained


@cache
def reader(name: str) -> ReplyReader:
    family, _, template = name.partition(" ")
    tokenizer = family_tokenizer(family, Family(template, ()).source if template else None)
    if template == "muse_glimmer":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|eom|>", "<|eot|>"]})
    return ReplyReader(Renderer(tokenizer))


def prompt(name: str) -> str:
    return reader(name).template.text([QUESTION], prompt=True)


def written(name: str, **fields: Any) -> str:
    """What the model generates for an answer with these fields: what its template writes, where that shows thoughts."""
    template = reader(name).template
    said = template.adapt({"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT} | fields)
    try:
        text = generated_text(template, [QUESTION, said], [TOOL])
    except RenderingError:
        text = ""
    form, opened = FORMS[name]
    return text if THOUGHT in text else f"{'' if opened else form.opening}\n{THOUGHT}\n{form.closing}\n\n{ANSWER}"


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_a_family_is_read_off_its_template(name: str) -> None:
    form = reader(name).thoughts
    assert (form, form.opened_by(prompt(name))) == FORMS[name]
    assert ThoughtMarkers.from_json(json.loads(json.dumps(form.as_json()))) == form


@pytest.mark.parametrize("name", READABLE)
def test_thought_and_answer_are_told_apart_as_they_were_written(name: str) -> None:
    assert reader(name).read(written(name), prompt(name)) == Spoken(ANSWER, (), THOUGHT)


def streamed(name: str, pieces: list[list[int]], stops: list[str] | None = None) -> tuple[str, str, list[Call], int]:
    """Thought, text and calls of ids that come in these pieces, and how many of them were thought."""
    made, form = reader(name), reader(name).form
    opened = made.thoughts.opened_by(prompt(name))
    opening = None if form is None else form.opening
    stream = TextStream(made.template.tokenizer, stops or [], opening, made.thoughts, opened)
    parts = [part for tokens in pieces for part in stream.feed(tokens)]
    parts += stream.finish()
    calls = form.read(stream.call_text)[1] if form else []
    thought = "".join(part.text for part in parts if isinstance(part, Thought))
    text = "".join(part for part in parts if isinstance(part, str))
    return thought, text.rstrip(), calls, stream.num_thought_tokens


def ids(name: str, text: str) -> list[int]:
    return list(reader(name).template.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", READABLE)
def test_how_the_tokens_are_cut_changes_nothing(name: str) -> None:
    tokens = ids(name, written(name))
    whole = streamed(name, [tokens])
    assert whole[:3] == (THOUGHT, ANSWER, [])
    assert streamed(name, [[token] for token in tokens]) == whole
    for cut in range(1, len(tokens)):
        assert streamed(name, [tokens[:cut], tokens[cut:]]) == whole
    shown = list(split_stream([reader(name).decode([token]) for token in tokens], reader(name), prompt(name), None))
    assert "".join(part.text for part in shown if isinstance(part, Thought)) == THOUGHT
    assert "".join(part for part in shown if isinstance(part, str)).strip() == ANSWER


@pytest.mark.parametrize("name", READABLE)
def test_a_thought_that_does_not_end_is_all_thought(name: str) -> None:
    whole = written(name)
    text = whole[: whole.index(THOUGHT) + len("Rain is wet.")]
    tokens = ids(name, text)
    for pieces in ([tokens], [[token] for token in tokens]):
        assert streamed(name, pieces) == ("Rain is wet.", "", [], len(tokens))


@pytest.mark.parametrize("name", ["qwen-3", "qwen-3.5", "nemotron-3", "gpt-oss"])
def test_a_call_behind_a_thought_is_read(name: str) -> None:
    text = written(name, content="", tool_calls=[CALL])
    tokens = ids(name, text)
    expected = (THOUGHT, "", [Call("weather", {"city": "Bonn"})])
    assert streamed(name, [tokens])[:3] == streamed(name, [[token] for token in tokens])[:3] == expected
    assert reader(name).read(text, prompt(name)) == Spoken(
        "", tuple(typed(call, [TOOL]) for call in expected[2]), THOUGHT
    )


@pytest.mark.parametrize("name", ["qwen-3", "qwen-3.5", "gpt-oss"])
def test_the_tokens_of_a_thought_are_counted_to_its_end(name: str) -> None:
    tokens, form = ids(name, written(name)), reader(name).thoughts
    until = next(
        count for count in range(len(tokens)) if reader(name).decode(tokens[:count]).rstrip().endswith(form.closing)
    )
    assert streamed(name, [tokens])[3] == until
    assert streamed("qwen-3", [ids("qwen-3", ANSWER)])[3] == 0


@pytest.mark.parametrize("name", ["qwen-3", "gpt-oss"])
def test_a_stop_string_ends_an_answer_and_no_thought(name: str) -> None:
    tokens = ids(name, written(name))
    for pieces in ([tokens], [[token] for token in tokens]):
        assert streamed(name, pieces, ["umbrella"])[:2] == (THOUGHT, "Bring an")


OTHERS = {  # what else models generate: the family, the text, and what is read of it
    "no thought": ("qwen-3", ANSWER, Spoken(ANSWER)),
    "an empty thought": ("qwen-3", f"<think>\n\n</think>\n\n{ANSWER}", Spoken(ANSWER)),
    "a tag in the answer": ("qwen-3", "Write </think> or <think>.", Spoken("Write </think> or <think>.")),
    "a tag in the answer behind a thought": ("qwen-3", "<think>a</think>b </think> c", Spoken("b </think> c", (), "a")),
    "something like a tag": ("qwen-3", "<thin", Spoken("<thin")),
    "a half closing tag in the end": ("llama-3.1", "<think>a </thi", Spoken("", (), "a </thi")),
    "two thoughts": (
        "gpt-oss",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
        "<|start|>assistant<|channel|>final<|message|>c",
        Spoken("c", (), "a\nb"),
    ),
    "a channel of another name": (
        "gpt-oss",
        "<|channel|>commentary<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>c",
        Spoken("c", (), "commentaryaassistant"),
    ),
    "an answer without a thought": ("gpt-oss", "<|channel|>final<|message|>c", Spoken("c")),
    "a name that is cut off": ("gpt-oss", "<|channel|>analysis", Spoken("")),
    "an answer whose name is cut off": (
        "gpt-oss",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>fin",
        Spoken("", (), "a"),
    ),
    "an end that is cut off": ("gpt-oss", "<|channel|>analysis<|message|>a<|end|><|start|>", Spoken("", (), "a")),
}


@pytest.mark.parametrize("case", OTHERS)
def test_whatever_a_model_generates_is_read_however_it_is_cut(case: str) -> None:
    name, text, expected = OTHERS[case]
    assert reader(name).read(text, prompt(name)) == expected
    tokens = ids(name, text)
    for cut in range(len(tokens) + 1):
        thought, said, _, _ = streamed(name, [tokens[:cut], tokens[cut:]])
        assert (thought, said.strip()) == (expected.thought, expected.text)


def test_of_the_thoughts_of_earlier_answers_a_prompt_has_what_its_template_wants() -> None:
    said = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
    found = {
        name: reader(name).prompt([QUESTION, said, QUESTION], None)
        for name in ("llama-3.1", "qwen-3", "qwen-3 qwen3_8")
    }
    assert f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}" in found["llama-3.1"], "it knows of none: its rows have them so"
    assert (THOUGHT in found["qwen-3"], ANSWER in found["qwen-3"]) == (False, True)
    assert f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}" in found["qwen-3 qwen3_8"]


@pytest.mark.parametrize("name", READABLE)
def test_the_markers_are_those_of_training(name: str) -> None:
    trained, markers = reader(name).template.thoughts, reader(name).thoughts
    if trained is not None:
        assert trained.after.strip() in (
            markers.closing,
            markers.closing + markers.answer,
            f"{markers.closing} {markers.answer}",
        )


def test_a_person_writes_thoughts_as_most_templates_do() -> None:
    assert parted("<think>\na\n</think>\n\nb") == parted("a\n</think>\n\nb") == ("a", "b")
    assert parted("b") == ("", "b")
    assert parted("<think>a") == ("a", "")
    assert THINK == ANGLES
