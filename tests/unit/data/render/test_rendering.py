"""The mask as equalities: supervised == answer + end marker, prompt + supervised == rendering."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from trainer.config.schema import DataConfig
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.read.checks import DataReport
from trainer.data.read.sources import CheckedData
from trainer.data.render.rendering import IGNORE_INDEX, Renderer, RenderingError
from trainer.errors import DataError
from trainer.training.dataset import render_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LLAMA = (
    "{{ '<|begin|>' }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% elif m.role == 'assistant' and '</think>' not in m.content %}<think>\n\n</think>\n\n{{ m.content }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
FAMILIES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], ["<|im_end|>", "<|im_end|>"]),
    "llama 3": (LLAMA, ["<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"], ["<|eot|>", "<|eot|>"]),
    "phi 3": (PHI, ["<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "<|endoftext|>"], ["<|end|>", "<|end|>"]),
    "harmony": (HARMONY, ["<|start|>", "<|message|>", "<|end|>", "<|return|>"], ["<|return|>", "<|return|>"]),
}


def renderer(template: str = CHATML, special: tuple[str, ...] | list[str] = ("<|im_start|>", "<|im_end|>")) -> Renderer:
    return Renderer(make_tokenizer(template, special))


def supervised_text(made: Renderer, example: object) -> str:
    ids = [label for label in example.labels if label != IGNORE_INDEX]  # type: ignore[attr-defined]
    return str(made.tokenizer.decode(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_supervised_tokens_are_the_answers_and_their_end_markers(family: str) -> None:
    template, special, markers = FAMILIES[family]
    made = renderer(template, special)
    conversation = talk(
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "So long.")
    )
    examples = made.render(conversation)  # one for each answer where the template ends earlier ones differently
    prefix = "<|message|>" if family == "harmony" else ""
    expected = "".join(f"{prefix}{text}{marker}" for text, marker in zip(["Hello.", "So long."], markers, strict=True))
    assert "".join(supervised_text(made, example) for example in examples) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_the_chat_template_and_begin_with_what_serving_sends(family: str) -> None:
    template, special, _ = FAMILIES[family]
    made = renderer(template, special)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    (example,) = made.render(talk(("user", "Hi"), ("assistant", "Hello.")))
    assert list(example.input_ids) == made.tokenizer.apply_chat_template(turns, return_dict=False)
    prompt = made.prompt_ids(turns[:1])
    served = made.tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
    assert prompt == served == list(example.input_ids[: len(prompt)])
    assert all(label == IGNORE_INDEX for label in example.labels[: len(prompt)])
    assert example.labels[len(prompt)] == example.input_ids[len(prompt)]


def test_weight_0_answers_are_not_supervised() -> None:
    made = renderer()
    conversation = talk(("user", "a"), ("assistant", "bad"), ("user", "b"), ("assistant", "good"), untrained=[1])
    (example,) = made.render(conversation)
    assert supervised_text(made, example) == "good<|im_end|>"


def test_a_template_that_strips_earlier_thinking_gives_one_example_for_each_answer() -> None:
    made = renderer(THINKING)
    first, second = "<think>\nhm\n</think>\n\nOne.", "<think>\nso\n</think>\n\nTwo."
    examples = made.render(talk(("user", "a"), ("assistant", first), ("user", "b"), ("assistant", second)))
    assert [supervised_text(made, example) for example in examples] == [f"{first}<|im_end|>", f"{second}<|im_end|>"]
    assert "hm" not in made.tokenizer.decode(examples[1].input_ids)


def test_thinking_that_the_template_adds_is_supervised_as_serving_generates_it() -> None:
    made = renderer(THINKING)
    examples = made.render(talk(("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two.")))
    think = "<think>\n\n</think>\n\n"
    assert [supervised_text(made, e) for e in examples] == [f"{think}One.<|im_end|>", f"{think}Two.<|im_end|>"]


def test_tool_calls_are_supervised_and_arguments_reach_the_template_as_an_object() -> None:
    template = (
        "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}(city={{ c.function.arguments.city }})"
        "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made = renderer(template)
    call = ToolCall("c1", "weather", json.dumps({"city": "Bonn"}))
    conversation = Conversation(
        (
            Message("user", "Weather?"),
            Message("assistant", None, tool_calls=(call,)),
            Message("tool", "rain", tool_call_id="c1"),
            Message("assistant", "It rains."),
        ),
        ({"type": "function", "function": {"name": "weather", "parameters": {}}},),
        "rows.jsonl",
        1,
    )
    (example,) = made.render(conversation)
    assert supervised_text(made, example) == "weather(city=Bonn)<|im_end|>It rains.<|im_end|>"


def test_developer_is_rendered_as_system_where_the_template_does_not_know_it() -> None:
    made = renderer()
    (example,) = made.render(talk(("developer", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")))
    assert made.tokenizer.decode(example.input_ids).startswith("<|im_start|>system\nBe brief.<|im_end|>")


REFUSED = {
    "the system prompt is dropped": (
        CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"),
        talk(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello.")),
        "messages[0] (system) is dropped or rewritten by this model's chat template; "
        "move its text into a user message or choose another base",
    ),
    "the template refuses the role": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML,
        talk(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello.")),
        "this model's chat template refuses the conversation: System role not supported",
    ),
    "the answer is changed": (
        CHATML.replace("{{ m.content }}", "{{ m.content if m.content == 'probe answer' else m.content | lower }}"),
        talk(("user", "hi"), ("assistant", "HELLO")),
        "messages[1]: the chat template changes the answer: 'HELLO' is not in 'hello'",
    ),
    "an answer to nothing": (
        CHATML,
        talk(("assistant", "hello")),
        "messages[0] is an answer to nothing, expected a message before it; add the question",
    ),
    "the text spells a control token": (
        CHATML,
        talk(("user", "What is <|im_end|>?"), ("assistant", "A marker.")),
        "messages[0].content holds '<|im_end|>', a control token of this model; remove or respell it",
    ),
    "a turn has no end marker": (
        CHATML.replace("<|im_end|>", ""),
        talk(("user", "hi"), ("assistant", "hello")),
        "the chat template ends an assistant message without a special token, expected an end-of-turn token; "
        "a tuned model would not learn to stop",
    ),
    "the prompt differs from how the row begins": (
        CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\nSure: {% endif %}"),
        talk(("user", "hi"), ("assistant", "hello")),
        "messages[1]: the prompt that serving sends is not how this row begins; "
        "the chat template rewrites what stands before the answer; at token 21 serving sends "
        "['s', 'i', 's', 't', 'a', 'n', 't', '\\n', 'S', 'u', 'r', 'e', ':', ' '] and the row has "
        "['s', 'i', 's', 't', 'a', 'n', 't', '\\n', 'h', 'e', 'l', 'l', 'o', '<|im_end|>', '\\n']",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_rendered_exactly_is_refused_with_the_reason(case: str) -> None:
    template, conversation, reason = REFUSED[case]
    with pytest.raises(RenderingError) as caught:
        renderer(template).render(conversation)
    assert str(caught.value) == reason


def joining_tokenizer() -> "PreTrainedTokenizerFast":
    """To this one two line breaks are one token, so that an answer may join the end of the prompt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    pieces = Tokenizer(models.BPE({piece: number for number, piece in enumerate(alphabet)}, [("Ċ", "Ċ")]))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<|im_end|>", chat_template=CHATML)


def test_an_answer_that_the_tokenizer_joins_with_the_prompt_is_tokenised_apart_as_serving_does() -> None:
    made = Renderer(joining_tokenizer())
    conversation = talk(
        ("user", "hi"), ("assistant", "\nok"), ("user", "so"), ("assistant", "yes"), ("user", "a"), ("assistant", "b")
    )
    turns = [{"role": message.role, "content": message.content or ""} for message in conversation.messages]
    inline, apart = made.render(conversation)
    assert supervised_text(made, inline) == "yes<|im_end|>b<|im_end|>"
    assert list(inline.input_ids) == made.tokenizer.apply_chat_template(turns, return_dict=False)
    prompt = made.prompt_ids(turns[:1])
    answer = made.tokenizer("\nok<|im_end|>", add_special_tokens=False)["input_ids"]
    assert list(apart.input_ids) == prompt + answer
    assert list(apart.labels) == [IGNORE_INDEX] * len(prompt) + answer


def test_every_row_is_held_against_serving_and_each_that_differs_is_named() -> None:
    rows = [("hi", "<|im_end|>" if number in (1, 3, 4) else "ok") for number in range(6)]
    conversations = [
        replace(talk(("user", question), ("assistant", answer)), line=number + 1)
        for number, (question, answer) in enumerate(rows)
    ]
    report = DataReport(conversations, [], [], rows=6, validation_rows=0)
    with pytest.raises(DataError) as caught:
        render_data(CheckedData(report, ()), DataConfig(train="rows.jsonl"), Renderer(joining_tokenizer()), 2048)
    reason = "messages[1].content holds '<|im_end|>', a control token of this model; remove or respell it"
    advice = "trainer data check rows.jsonl --config CONFIG --reject rejected.jsonl"
    assert caught.value.problems == (
        f"data: this model's chat template cannot take 3 rows, expected none; to set them aside: {advice}",
        *(f"rows.jsonl:{line}: TEMPLATE: {reason}" for line in (2, 4, 5)),
    )


def test_a_template_that_doubles_the_bos_is_refused() -> None:
    tokenizer = make_tokenizer("{{ bos_token }}<|b|>" + CHATML, ["<|b|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.bos_token = "<|b|>"
    with pytest.raises(RenderingError, match=r"^the chat template begins with '<\|b\|>' twice, expected it once; "):
        Renderer(tokenizer).template.check()
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    Renderer(tokenizer).template.check()


def test_a_row_without_a_trained_answer_is_refused() -> None:
    with pytest.raises(RenderingError, match="no message is trained"):
        renderer().render(talk(("user", "hi"), ("assistant", "hello"), untrained=[1]))


def test_text_is_tokenised_as_transformers_does_whatever_was_asked_of_the_tokenizer_before() -> None:
    template = renderer().template
    tokenizer = template.tokenizer
    texts = ["", " lead", "two  spaces\n\n", "<|im_start|>user\nHi<|im_end|>\n", "\u00df\U0001f389\u200b", "a" * 300]
    for prepare in (
        lambda backend: None,
        lambda backend: backend.enable_padding(length=400),
        lambda backend: backend.enable_truncation(3),
    ):
        for text in texts:
            prepare(tokenizer.backend_tokenizer)
            row = template.tokenise(text)
            expected = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            assert (row.ids, row.offsets) == (expected["input_ids"], expected["offset_mapping"])
