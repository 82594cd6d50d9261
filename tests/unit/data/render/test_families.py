"""Real template families: masks that were read by eye, and the equalities that hold for every row of every family."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import CHATML, talk
from tests.families import FAMILIES, family_tokenizer
from tests.golden_masks import CASES, FOLDER, golden_text, renderer_of, spelled
from trainer.data.conversations import Conversation, Message
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError

TRAINABLE = [name for name in FAMILIES if name != "glm-4.5"]  # its template ends turns without a token
# The template's own rendering of these is not what serving saw at the answer, which the prompt shows: a system prompt
# that wanders to the last question, and a thought that the prompt opens and the template leaves out or writes anew.
REBUILT = {
    ("mistral-7b-v0.3", "a system prompt and two turns"),
    ("mistral-nemo", "a system prompt and two turns"),
    ("gpt-oss", "a thought before a call"),  # dropped as soon as an answer follows
    *((name, case) for name in ("deepseek-r1-distill", "deepseek-v3", "deepseek-v3.1") for case in CASES),
}


# What the model writes around the text of an answer.
AROUND = {
    "llama-3.1": ("", "<|eot_id|>"),
    "llama-3.2": ("", "<|eot_id|>"),
    "qwen-2.5": ("", "<|im_end|>"),
    "qwen-3": ("", "<|im_end|>"),
    "qwen-3.5": ("", "<|im_end|>"),
    "qwen-3.5-small": ("", "<|im_end|>"),
    "qwen-3.8": ("", "<|im_end|>"),
    "nemotron-3": ("", "<|im_end|>"),
    "nemotron-3-ultra": ("", "<|im_end|>"),
    "deepseek-v3.1": ("", "<｜end▁of▁sentence｜>"),  # noqa: RUF001
    "lfm-2.5": ("", "<|im_end|>"),
    "muse-glimmer": (" to=user<|message|>", "<|eot|>"),
    "phi-3": ("", "<|end|>"),
    "phi-4": ("", "<|im_end|>"),
    "mistral-7b-v0.1": ("", "</s>"),
    "mistral-7b-v0.3": (" ", "</s>"),
    "mistral-nemo": ("", "</s>"),
    "mistral-small-3": ("", "</s>"),
    "gemma-2": ("", "<end_of_turn>"),
    "gemma-3": ("", "<end_of_turn>"),
    "gemma-4": ("", "<turn|>"),
    "smollm-2": ("", "<|im_end|>"),
    "smollm-3": ("", "<|im_end|>"),
    "granite-3.3": ("", "<|end_of_text|>"),
    "gpt-oss": ("<|channel|>final<|message|>", "<|return|>"),
    "command-r": ("", "<|END_OF_TURN_TOKEN|>"),
    "command-a": ("", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    "lfm-2": ("", "<|im_end|>"),
    "olmo-2": ("", "<|endoftext|>"),
}
# These prompts open a thought, so that an answer without one is refused.
THINKING = {"deepseek-r1-distill": "<｜end▁of▁sentence｜>", "deepseek-v3": "<｜end▁of▁sentence｜>"}  # noqa: RUF001
# What the model writes before and behind a thought; the prompt may have opened it.
THOUGHTS = {
    "qwen-3": ("<think>\n", "\n</think>\n\n"),
    "qwen-3.5": ("", "\n</think>\n\n"),
    "qwen-3.5-small": ("", "\n</think>\n\n"),
    "qwen-3.8": ("", "\n</think>\n\n"),
    "nemotron-3": ("", "\n</think>\n"),
    "nemotron-3-ultra": ("", "</think>"),
    "deepseek-r1-distill": ("", "\n</think>\n\n"),
    "deepseek-v3": ("", "\n</think>\n\n"),
    "deepseek-v3.1": ("", "</think>"),
    "lfm-2.5": ("<think>", "</think>"),
    "gemma-4": ("<|channel>thought\n", "\n<channel|>"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
    "muse-glimmer": (" to=self<|message|>", "<|eom|><|start|>assistant"),
}


def renderer(name: str, thinks: bool = False, train_reasoning: bool = True) -> Renderer:
    return renderer_of(name, thinks, train_reasoning)


def renderer_for(name: str, conversation: Conversation) -> Renderer:
    return renderer_of(name, conversation.has_thought)


def golden(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


# Asked for no thought, it leaves a sentence out of the system prompt, too: the masks above show this case.
_ANOTHER_SYSTEM = ("qwen-3.8", "a thought, and none")
ACCEPTED = [
    (name, case)
    for name in TRAINABLE
    for case in CASES
    if f"## {case}\nrefused" not in golden(name) and (name, case) != _ANOTHER_SYSTEM
]


def sent(made: Renderer, conversation: Conversation) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools as a client would send them, in the form that the family's template takes."""
    messages = []
    for message in conversation.messages:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        fields = {"role": message.role, "content": message.content, "tool_call_id": message.tool_call_id}
        fields |= {"reasoning_content": message.reasoning_content}
        messages.append(made.template.adapt(fields | ({"tool_calls": calls} if calls else {})))
    return messages, [dict(tool) for tool in conversation.tools] or None


def ids(made: Renderer, messages: list[dict[str, Any]], tools: Any, **wishes: bool) -> list[int]:
    """What transformers itself makes of the messages."""
    return made.tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False, **wishes)


def prompt_of(made: Renderer, conversation: Conversation, index: int) -> list[int]:
    """What serving sends for the answer `index`: without a thought among others, it asks for none."""
    messages, tools = sent(made, conversation)
    form = made.template.thoughts
    closed = form is not None and form.empty is not None and not conversation.messages[index].has_thought
    wishes = {"enable_thinking": False} if closed else {}
    return ids(made, messages[:index], tools, add_generation_prompt=True, **wishes)


def answers_of(made: Renderer, conversation: Conversation, examples: list[Example]) -> list[tuple[Example, list[int]]]:
    """Each example with the numbers of the messages that are trained in it: those whose prompt it goes on from."""
    groups: list[list[int]] = [[] for _ in examples]
    for index in (index for index, message in enumerate(conversation.messages) if message.trained):
        length = len(prompt := prompt_of(made, conversation, index))
        found = [
            number
            for number, example in enumerate(examples)
            if list(example.input_ids[:length]) == prompt and example.labels[length] != IGNORE_INDEX
        ]
        assert found, f"messages[{index}] is trained nowhere"
        groups[found[-1]].append(index)
    return list(zip(examples, groups, strict=True))


def check_equalities(made: Renderer, conversation: Conversation, examples: list[Example]) -> None:
    """Supervised are the tokens between each prompt that serving sends and the end marker, and no others."""
    for example, answers in answers_of(made, conversation, examples):
        expected = [IGNORE_INDEX] * len(example.input_ids)
        for index in answers:
            prompt = prompt_of(made, conversation, index)
            ends = [at for at in range(len(prompt), len(expected)) if example.input_ids[at] in made.end_markers]
            expected[len(prompt) : ends[0] + 1] = example.input_ids[len(prompt) : ends[0] + 1]
        assert list(example.labels) == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_masks_are_those_that_were_read_by_eye(name: str) -> None:
    assert golden_text(name) == golden(name), "read the difference, then run: python -m tests.golden_masks"


def test_every_family_is_covered() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(FAMILIES)
    assert {*AROUND, *THINKING} == set(TRAINABLE)
    assert len(ACCEPTED) >= 60


@pytest.mark.parametrize(("name", "case"), ACCEPTED)
def test_supervised_is_exactly_what_follows_the_prompt_of_serving(name: str, case: str) -> None:
    made = renderer_for(name, CASES[case])
    check_equalities(made, CASES[case], made.render(CASES[case]))


@pytest.mark.parametrize(("name", "case"), ACCEPTED)
def test_ids_are_those_of_the_chat_template(name: str, case: str) -> None:
    made, conversation = renderer_for(name, CASES[case]), CASES[case]
    examples = made.render(conversation)
    messages, tools = sent(made, conversation)
    for example, answers in answers_of(made, conversation, examples):
        whole = messages if len(examples) == 1 else messages[: answers[-1] + 1]
        rebuilt = (name, case) in REBUILT and (name, conversation.has_thought) != ("deepseek-v3.1", False)
        assert (list(example.input_ids) == ids(made, whole, tools)) != rebuilt


def supervised_texts(name: str, case: str, train_reasoning: bool = True) -> list[str]:
    made = renderer(name, CASES[case].has_thought, train_reasoning)
    labels = [[label for label in example.labels if label != IGNORE_INDEX] for example in made.render(CASES[case])]
    return ["".join(spelled(made.tokenizer, token) for token in row) for row in labels]


@pytest.mark.parametrize("name", AROUND)
def test_supervised_text_is_the_answer_and_what_ends_it(name: str) -> None:
    before, after = AROUND[name]
    assert supervised_texts(name, "a first answer of weight 0") == [f"{before}So long.{after}"]


def together(texts: list[str]) -> str:
    return "".join(texts)  # of one example or of several


@pytest.mark.parametrize("name", THOUGHTS)
def test_a_thought_is_supervised_with_its_end_or_not_at_all(name: str) -> None:
    before, after = AROUND.get(name) or ("", THINKING[name])
    opens, closes = THOUGHTS[name]
    said = [("Be kind.", "Hello there."), ("Be brief.", "So long.")]
    whole = [f"{opens}{thought}{closes}{before}{answer}{after}" for thought, answer in said]
    assert together(supervised_texts(name, "thoughts apart")) == together(whole)
    answers = [f"{before}{answer}{after}" for _, answer in said]
    assert together(supervised_texts(name, "thoughts apart", train_reasoning=False)) == together(answers)


@pytest.mark.parametrize("name", [name for name in THOUGHTS if name in AROUND and name != "deepseek-v3.1"])
def test_a_thought_of_nothing_is_never_supervised(name: str) -> None:
    before, after = AROUND[name]
    opens, closes = THOUGHTS[name]
    expected = f"{before}Hello there.{after}{opens}Be brief.{closes}{before}So long.{after}"
    assert together(supervised_texts(name, "a thought, and none")) == expected


def test_every_family_with_a_place_for_thoughts_is_known() -> None:
    assert set(THOUGHTS) == {name for name in TRAINABLE if renderer(name, thinks=True).template.thoughts}


@pytest.mark.parametrize("name", THINKING)
def test_supervised_text_goes_on_where_the_prompt_opened_a_thought(name: str) -> None:
    texts = ["Be kind.\n</think>\n\nHello there.", "Be brief.\n</think>\n\nSo long."]
    assert supervised_texts(name, "thoughts") == [text + THINKING[name] for text in texts]


@pytest.mark.parametrize("name", THINKING)
def test_an_empty_thought_is_one(name: str) -> None:
    conversation = talk(("user", "Hi"), ("assistant", "<think>\n\n</think>\n\nHello there."))
    made = renderer_for(name, conversation)
    (example,) = made.render(conversation)
    check_equalities(made, conversation, [example])


@pytest.mark.parametrize("name", ["llama-3.1", "smollm-3"])
def test_a_template_without_a_place_for_thoughts_refuses_them(name: str) -> None:
    thinking = Conversation(
        (
            Message("user", "Hi"),
            Message("assistant", "Hello.", reasoning_content="Be kind."),
        ),
        (),
        "",
        1,
    )
    with pytest.raises(RenderingError) as caught:
        renderer(name).render(thinking)
    assert str(caught.value) == (
        "messages[1].reasoning_content has no place in this model's chat template, expected none; choose a base that "
        "thinks, or write the thought as <think>...</think> into content"
    )


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, case in ACCEPTED if FAMILIES[name].adds_bos])
def test_there_is_exactly_one_bos_though_the_tokenizer_would_add_another(name: str, case: str) -> None:
    made = renderer_for(name, CASES[case])
    tokenizer = made.tokenizer
    bos = tokenizer.bos_token_id
    assert tokenizer("Hi")["input_ids"][0] == bos
    for example in made.render(CASES[case]):
        assert example.input_ids[0] == bos
        assert bos not in example.input_ids[1:]


def test_a_model_whose_turns_end_without_a_token_is_refused() -> None:
    with pytest.raises(RenderingError, match="ends an assistant message without a special token"):
        _ = renderer("glm-4.5").end_markers


KEPT_WHOLE = {
    "gemma-2": ["\n", "\n\n\n", "\t\t", "    ", "<b>"],
    "gemma-3": ["\n", "\n\n\n", "\t\t", "    ", "<b>"],
    "gemma-4": ["\n", "\n\n\n", "\t\t", "    ", "<b>"],
    "olmo-2": ["    ", "!"],
}


@pytest.mark.parametrize("name", KEPT_WHOLE)
def test_text_that_the_vocabulary_keeps_whole_is_no_control_token(name: str) -> None:
    made = renderer(name)
    for text in KEPT_WHOLE[name]:
        conversation = talk(("user", f"Hi{text}there"), ("assistant", f"So{text}long."))
        check_equalities(made, conversation, made.render(conversation))


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("gemma-3", "<start_of_turn>"),
        ("olmo-2", "<|endoftext|>"),
        ("mistral-7b-v0.1", "</s>"),
        ("deepseek-r1-distill", "<｜User｜>"),  # noqa: RUF001
        ("command-r", "<|USER_TOKEN|>"),
    ],
)
def test_text_that_spells_what_begins_or_ends_a_turn_is_refused(name: str, token: str) -> None:
    with pytest.raises(RenderingError) as caught:
        renderer(name).render(talk(("user", f"What is{token}?"), ("assistant", "A marker.")))
    assert (
        str(caught.value) == f"messages[0].content holds {token!r}, a control token of this model; remove or respell it"
    )


def test_a_control_token_is_found_as_the_tokenizer_normalises_it() -> None:
    from tokenizers import AddedToken, normalizers

    tokenizer = family_tokenizer("qwen-2.5")
    tokenizer = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        eos_token="<|im_end|>",
        chat_template=tokenizer.chat_template,
    )
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<|other|>", normalized=True, special=True)])
    with pytest.raises(RenderingError, match=r"^messages\[0\]\.content holds '<\|other\|>', a control token"):
        Renderer(tokenizer).render(talk(("user", "hi <|OTHER|>"), ("assistant", "hello")))


def test_text_that_no_token_spells_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["?", "user", "assistant", "probe", "answer", "hello"])}
    pieces = Tokenizer(models.WordLevel(words, unk_token="?"))
    pieces.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pieces.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    made = Renderer(PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="?", chat_template=CHATML))
    assert made.render(talk(("user", "hi"), ("assistant", "hello")))
    with pytest.raises(RenderingError) as caught:
        made.render(talk(("user", "hi"), ("assistant", "hello zürich")))
    expected = "this model's tokenizer has no token for 'zürich' of an answer; remove it or choose another base"
    assert str(caught.value) == expected


def thinking(thought: str | None, conversation: Conversation) -> Conversation:
    messages = (replace(m, reasoning_content=thought) if m.role == "assistant" else m for m in conversation.messages)
    return replace(conversation, messages=tuple(messages))


texts = st.text(st.sampled_from("ab .,:!\n\tBe kind<>{}[]|/'\"é😀\u2028▁Ġ"), min_size=1, max_size=12)
conversations = st.builds(
    lambda system, thought, pairs, untrained: thinking(
        thought,
        talk(
            *([("system", system)] if system else []),
            *(turn for question, answer in pairs for turn in (("user", question), ("assistant", answer))),
            untrained=[index for index in untrained if index < 2 * len(pairs) - 1],
        ),
    ),
    st.none() | texts,
    st.none() | texts.filter(str.strip),
    st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    st.lists(st.integers(0, 5), max_size=2),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversations)
@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.apart
def test_any_conversation_is_rendered_exactly_or_refused(name: str, conversation: Conversation) -> None:
    made = renderer_for(name, conversation)
    try:
        examples = made.render(conversation)
    except RenderingError:
        return
    check_equalities(made, conversation, examples)
    assert all(example.num_supervised >= 1 for example in examples)


words = st.text(st.sampled_from("abcBHe kd.,"), min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(words, words), min_size=1, max_size=3))
@pytest.mark.parametrize("name", AROUND)
def test_plain_conversations_are_never_refused(name: str, pairs: list[tuple[str, str]]) -> None:
    conversation = talk(*(turn for q, a in pairs for turn in (("user", q), ("assistant", a))))
    assert renderer(name).render(conversation)
