"""Real tokenizers with real rows: an independent computation of the mask equals ours, token by token."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import talk
from trainer.data.read.rows import read_conversations
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError

pytestmark = pytest.mark.real

MODELS, SAMPLES = os.environ.get("TRAINER_REAL_MODELS"), os.environ.get("TRAINER_SAMPLE_DATA")
# The folder, TRL's template where it is not the folder's own, and what the model ends an answer and a call with.
TOKENIZERS = {
    "gemma3": ("gemma3", None, "<end_of_turn>", None),
    "smollm2": ("smollm2", None, "<|im_end|>", None),
    "llama3_1": ("llama3_1", None, "<|eot_id|>", None),
    "llama3_1 with tools": ("llama3_1", "llama3_1", "<|eot_id|>", "<|eot_id|>"),
    "gptoss": ("gptoss", "gptoss", "<|return|>", "<|call|>"),
}
FILES = {
    "gsm8k/chat_train.jsonl": 449,
    "gsm8k/chat_validation.jsonl": 50,
    "clippy/training_set.jsonl": 10,
    "clippy/validation_set.jsonl": 10,
    "tool_calls/stock_toolcall_training.jsonl": 86,
    "tool_calls/stock_toolcall_validation.jsonl": 10,
}


@cache
def renderer(name: str) -> Renderer:
    from transformers import AutoTokenizer

    folder, template, _, _ = TOKENIZERS[name]
    if MODELS is None:
        pytest.skip("TRAINER_REAL_MODELS is not set")
    tokenizer = AutoTokenizer.from_pretrained(Path(MODELS) / folder, trust_remote_code=False)
    if template is not None:
        import trl

        file = Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja"
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    return Renderer(tokenizer)


def rows_of(file: str) -> list[dict[str, Any]]:
    if SAMPLES is None:
        pytest.skip("TRAINER_SAMPLE_DATA is not set")
    return [json.loads(line) for line in (Path(SAMPLES) / file).read_text(encoding="utf-8").splitlines()]


def as_sent(message: dict[str, Any]) -> dict[str, Any]:
    """As these templates take it: arguments as an object, and no content that is null."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls") or []
    ]
    return {"role": message["role"], "content": message.get("content") or ""} | ({"tool_calls": calls} if calls else {})


def expected_answers(name: str, row: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """For each trained answer the ids that serving sends, and those with which the model goes on until its end."""
    _, _, answer_end, call_end = TOKENIZERS[name]
    tokenizer = renderer(name).tokenizer  # its template has today's date replaced by a fixed one
    messages, tools = [as_sent(message) for message in row["messages"]], row.get("tools")

    def ids(count: int, prompt: bool) -> list[int]:
        return list(
            tokenizer.apply_chat_template(
                messages[:count], tools=tools, add_generation_prompt=prompt, return_dict=False
            )
        )

    for index, message in enumerate(row["messages"]):
        if message["role"] == "assistant" and message.get("weight", 1) == 1:
            sent, whole = ids(index, prompt=True), ids(index + 1, prompt=False)
            assert whole[: len(sent)] == sent
            end = tokenizer.convert_tokens_to_ids(call_end if message.get("tool_calls") else answer_end)
            answer = whole[len(sent) :]
            yield sent, answer[: answer.index(end) + 1]


def check_masks(name: str, row: dict[str, Any], examples: list[Example]) -> None:
    """Each answer is supervised once, behind what serving sends, and nothing else is."""
    expected = list(expected_answers(name, row))
    for sent, answer in expected:
        begun = [e for e in examples if list(e.input_ids[: len(sent) + len(answer)]) == sent + answer]
        assert any(list(e.labels[len(sent) : len(sent) + len(answer)]) == answer for e in begun)
    assert sum(e.num_supervised for e in examples) == sum(len(answer) for _, answer in expected)
    for example in examples:
        pairs = zip(example.input_ids, example.labels, strict=True)
        assert all(label in (IGNORE_INDEX, token) for token, label in pairs)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_independent_mask_equals_ours_for_every_row(name: str, file: str) -> None:
    made, rows = renderer(name), rows_of(file)
    conversations = read_conversations(Path(SAMPLES or "") / file).conversations
    assert len(rows) == len(conversations) == FILES[file]
    takes_tools = TOKENIZERS[name][3] is not None
    for row, conversation in zip(rows, conversations, strict=True):
        if "tools" in row and not takes_tools:
            with pytest.raises(RenderingError, match=r"^the tools are left out by this model's chat template"):
                made.render(conversation)
        else:
            check_masks(name, row, made.render(conversation))


TEXTS = [
    "One line.\nAnother.\n\nA third.\n\n\nA fourth.", "\tindented\n\t\ttwice", "a  b   c    d",
    "def f():\n    return 1", "<b>bold</b> and <table><tr><td>1</td></tr></table>", "<unused0> [multimodal]",
    "naïve 😀 日本語 \u2028 end", "▁low▁line", "line\r\nline", "x" * 300, "<think> and </think>", '{"a": [1, 2]}', "é",
    "a\u0301",
]  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_of_every_kind_is_text(name: str, text: str) -> None:
    row = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"Yes: {text}"}]}
    row["messages"] += [{"role": "user", "content": f"{text}?"}, {"role": "assistant", "content": f"No: {text}"}]
    conversation = talk(*((message["role"], message["content"]) for message in row["messages"]))
    check_masks(name, row, renderer(name).render(conversation))


SPELLED = {
    "gemma3": ["<start_of_turn>", "<end_of_turn>", "<bos>", "<image_soft_token>"],
    "smollm2": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    "llama3_1": ["<|start_header_id|>", "<|eot_id|>", "<|begin_of_text|>"],
    "gptoss": ["<|start|>", "<|return|>", "<|channel|>", "<|message|>", "<|call|>"],
}


@pytest.mark.parametrize("name", SPELLED)
def test_text_that_spells_a_control_token_is_refused(name: str) -> None:
    for token in SPELLED[name]:
        for place, conversation in {
            "messages[0].content": talk(("user", f"What is {token}?"), ("assistant", "A marker.")),
            "messages[1].content": talk(("user", "Which?"), ("assistant", f"It is{token}")),
        }.items():
            with pytest.raises(RenderingError) as caught:
                renderer(name).render(conversation)
            expected = f"{place} holds {token!r}, a control token of this model; remove or respell it"
            assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["gemma3", "smollm2", "llama3_1"])
def test_the_server_takes_what_was_trained(name: str, tmp_path: Path) -> None:
    """In the process that renders requests, each row's prompt has the ids that were trained."""
    import asyncio

    from trainer.inference.serve.rendering import PromptRenderer

    rows = rows_of("gsm8k/chat_validation.jsonl")[:20]
    renderer(name).tokenizer.save_pretrained(tmp_path)

    async def asked() -> list[list[int]]:
        server = PromptRenderer(tmp_path)
        await server.start()
        try:
            return [(await server.prompt(row["messages"][:-1], None)).ids for row in rows]
        finally:
            await server.stop()

    for row, prompt in zip(rows, asyncio.run(asked()), strict=True):
        ((sent, _),) = expected_answers(name, row)
        assert prompt == sent
