"""Talking to base and tuned model through the real SDK, and comparing them."""

import json

import pytest

from tests.loopback import Fault, Loopback, Response
from tests.openai_runs import Settings, environment, is_post, loopback, run_to_end, settings, tuning
from tests.tuning import MODEL, Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.errors import BackendError
from trainer.inference.client import Sampling
from trainer.inference.tool_calls import Call

__all__ = ["environment", "loopback", "settings", "tuning"]


def test_base_and_tuned_model_are_compared_when_that_was_quoted(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings("evaluation.enabled=true"))
    comparison = run.comparison()
    assert comparison["num_rows"] == 8
    assert comparison["verdict"]["sentence"].startswith("no clear difference: 0 of 8 answers right or nearly right")
    assert comparison["verdict"]["right"] == {"base": 0, "tuned": 0}  # "tuned answer" is no reference, nor near one
    assert {measure["key"] for measure in comparison["measures"]} >= {"score", "chrf", "rouge_l", "exact"}
    assert "loss" not in {measure["key"] for measure in comparison["measures"]}
    assert [message["role"] for message in tuning.answers[0]["messages"]] == ["system", "user"]
    assert len(tuning.answers) == 16
    assert (run.report / "report.html").is_file()


def test_nothing_is_asked_that_was_not_quoted(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    assert tuning.answers == []
    assert run.comparison() == {}


def test_chat_streams_tuned_base_and_checkpoint(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    question = [{"role": "user", "content": "hello"}]
    answers = {}
    for name, endpoint, base in (("tuned", None, False), ("base", None, True), ("checkpoint", "ftckpt-1", False)):
        client = OpenAIService().client(run, endpoint, base)
        answers[client.name] = list(client.stream(question, Sampling()))
        assert name
    assert answers == {
        f"ft:{MODEL}:org::ftjob-1": ["tuned", " answer"], MODEL: ["base ", "answer"],
        f"ft:{MODEL}:org::ftjob-1:ckpt-step-2": ["tuned", " answer"],
    }  # fmt: skip


def test_a_stream_of_text_and_tool_calls_comes_through_the_sdk(settings: Settings, loopback: Loopback) -> None:
    client = OpenAIService().client(run_to_end(settings()), None, False)
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city"'}}
    deltas = [{"content": "Let me see."}, {"tool_calls": [call]},
              {"tool_calls": [{"index": 0, "function": {"arguments": ': "Bern"}'}}]}]  # fmt: skip
    chunks = [{"choices": []}, *({"choices": [{"index": 0, "delta": delta}]} for delta in deltas)]
    stream = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    answer = Response(200, stream, {"Content-Type": "text/event-stream"})
    loopback.faults = [Fault("calls", match=is_post("/chat/completions"), answer=lambda own: answer)]
    assert list(client.stream([], Sampling())) == ["Let me see.", Call("weather", {"city": "Bern"})]


def test_an_answer_that_is_no_stream_is_told(settings: Settings, loopback: Loopback) -> None:
    client = OpenAIService().client(run_to_end(settings()), None, False)
    page = Response(200, b"<html></html>", {"Content-Type": "text/html"})
    loopback.faults = [Fault("page", match=is_post("/chat/completions"), answer=lambda own: page)]
    with pytest.raises(BackendError, match=r"the answer is no stream of pieces; check openai\.base_url"):
        list(client.stream([], Sampling()))
