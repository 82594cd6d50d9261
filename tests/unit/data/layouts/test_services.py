"""Rows of other services: Anthropic's content blocks, Gemini's contents, requests and answers of a batch."""

from collections import Counter

import pytest

from trainer.data.layouts.messages import NotConvertible
from trainer.data.layouts.shapes import convert_row

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}


def call(call_id="call_1_0", arguments='{"city": "Oslo"}'):
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def user(text="Weather?"):
    return {"role": "user", "content": text}


def bot(text="Rain."):
    return {"role": "assistant", "content": text}


def converted(row):
    dropped = Counter()
    _, (made,) = convert_row(row, None, dropped)
    return made, dict(dropped)


def test_the_blocks_of_anthropic():
    row = {
        "system": [{"type": "text", "text": "Be brief."}],
        "tools": [{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Ask."},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "text", "text": "Well?", "cache_control": {"type": "ephemeral"}},
            ]},
            bot(),
        ],
    }  # fmt: skip
    made, dropped = converted(row)
    assert made == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "reasoning_content": "Ask.",
                "content": "I look.",
                "tool_calls": [call("t1")],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "t1"},
            user("Well?"),
            bot(),
        ],
        "tools": [TOOL],
    }
    assert dropped == {"messages[].content[].cache_control": 1}


def test_a_result_alone_leaves_no_empty_question():
    asked = {"role": "assistant", "content": [{"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "content": "rain", "is_error": True}]}
    made, dropped = converted({"messages": [user(), asked, result, bot()]})
    assert made["messages"][1:] == [
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1_0"},
        bot(),
    ]
    assert dropped == {"messages[].content[].is_error": 1}


def test_images_and_texts_of_other_names():
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    parts = [{"type": "input_text", "text": "What?"}, {"type": "image", "source": source}]
    answer = {"role": "assistant", "content": [{"type": "output_text", "text": "A."}, {"type": "text", "text": "B."}]}
    made, _ = converted({"messages": [{"role": "user", "content": parts}, answer]})
    assert made["messages"] == [
        {"role": "user", "content": [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ]},
        bot("A.B."),
    ]  # fmt: skip


@pytest.mark.parametrize("spelling", ["camel", "snake"])
def test_the_contents_of_gemini(spelling):
    def key(name, other):
        return name if spelling == "camel" else other

    row = {
        key("systemInstruction", "system_instruction"): {"role": "system", "parts": [{"text": "Be brief."}]},
        "tools": [{key("functionDeclarations", "function_declarations"): [
            {"name": "weather", "description": "Tells it.",
             "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}]}],
        "contents": [
            {"role": "user", "parts": [{"text": "Weather"}, {"text": "?"}]},
            {"role": "model", "parts": [
                {"text": "Ask.", "thought": True},
                {key("functionCall", "function_call"): {"name": "weather", "args": {"city": "Oslo"}}}]},
            {"role": "function", "parts": [
                {key("functionResponse", "function_response"): {"name": "weather", "response": {"sky": "rain"}}}]},
            {"role": "model", "parts": [{"text": "Rain."}]},
        ],
    }  # fmt: skip
    made, dropped = converted(row)
    assert made == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            user(),
            {"role": "assistant", "reasoning_content": "Ask.", "tool_calls": [call("call_2_0")]},
            {"role": "tool", "content": '{"sky": "rain"}', "tool_call_id": "call_2_0"},
            bot(),
        ],
        "tools": [TOOL],
    }
    assert dropped == {}


REQUEST = {"model": "gpt-4o-mini", "messages": [user()], "tools": [TOOL]}
ANSWERED = {"status_code": 200, "body": {"choices": [{"message": {**bot(), "refusal": None, "annotations": []}}]}}
BATCHES = {
    "a request and its answer": {
        "custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": REQUEST, "response": ANSWERED},
    "a log": {"request": REQUEST, "response": ANSWERED["body"]},
    "a request that ends with the answer": {
        "custom_id": "1", "body": {**REQUEST, "messages": [user(), bot()]}},
}  # fmt: skip


@pytest.mark.parametrize("row", BATCHES.values(), ids=BATCHES)
def test_a_request_with_its_answer(row):
    assert converted(row) == ({"messages": [user(), bot()], "tools": [TOOL]}, {"the request's model": 1})


REFUSED = {
    "a request alone": (
        {"custom_id": "1", "body": REQUEST}, "is a request of the batch API without its answer, .* by custom_id$"),
    "an answer alone": (
        {"custom_id": "1", "response": ANSWERED}, "is an answer of the batch API without its request, .* custom_id$"),
    "several answers": (
        {"body": REQUEST, "response": {"choices": [{"message": bot()}] * 2}}, "has several answers as response"),
    "a failed request": ({"body": REQUEST, "response": {"body": {"error": "x"}}}, "expected a chat completion"),
    "a sound": ({"contents": [{"role": "user", "parts": [{"inlineData": {}}]}]}, r"contents\[0\].parts holds "),
    "a block that is unknown": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
        "expected base64 data or a URL"),
    "a document": (
        {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "document"}]}]},
        "holds a block of type 'document', expected text"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_row_that_says_too_little_is_refused(row, reason):
    with pytest.raises(NotConvertible, match=reason):
        convert_row(row, None, Counter())
