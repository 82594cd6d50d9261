"""A real server on 127.0.0.1 with the official client: answers, refusals, limits, and who is let in."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from tests.serving import KEY, Serving, serving, wait_until
from tests.tiny_runs import ADD, calling_rows, train
from trainer.errors import TrainerError, TrainingError
from trainer.inference.client import Sampling
from trainer.inference.local import LocalClient, TunedModel
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.server import Program
from trainer.inference.serve.sources import TrainedRuns
from trainer.inference.serve.trained_prompt import TrainedPrompt
from trainer.runs import Run

CHAT = "/v1/chat/completions"
QUESTIONS = [f"What is number {number}?" for number in (1, 5, 12, 19, 22, 24, 31, 77)]
LONG = "Count for as long as you can."


@pytest.fixture(scope="module")
def server(tuned: Run) -> Iterator[Serving]:
    with serving(tuned, Limits(max_tokens=400)) as running:
        yield running


@pytest.fixture(scope="module")
def small(tuned: Run) -> Iterator[Serving]:
    """A server that accepts little."""
    with serving(tuned, Limits(max_requests=2, max_seconds=2.0, max_body_bytes=5000, max_body_seconds=1.0)) as running:
        yield running


def body_of(server: Serving, content: str = "What is number 5?", **fields: Any) -> dict[str, Any]:
    return {"model": server.name, "messages": [{"role": "user", "content": content}]} | fields


def endless(server: Serving) -> dict[str, Any]:
    """A request whose answer does not end by itself before its tokens do: the hottest sampling there is."""
    return body_of(server, LONG, temperature=2.0, seed=3, max_tokens=300, stream=True)


# Answers


def test_the_served_model_says_what_the_trained_one_says(server: Serving, tuned: Run) -> None:
    model = TunedModel(tuned).tuned
    for question in QUESTIONS:
        messages = [{"role": "system", "content": "You count."}, {"role": "user", "content": question}]
        answer = server.ask(question, temperature=0, max_tokens=40).choices[0].message.content
        assert answer.strip() == model.answer(messages, Sampling(max_tokens=40))


def test_the_base_answers_under_its_own_name_while_the_tuned_model_does(server: Serving, tuned: Run) -> None:
    model = TunedModel(tuned)
    asked = [(client, question) for question in QUESTIONS for client in (model.tuned, model.base)]

    def expected(client: LocalClient, question: str) -> str:
        return client.answer([{"role": "user", "content": question}], Sampling(max_tokens=20))

    def served(client: LocalClient, question: str) -> str:
        body = body_of(server, question, temperature=0, max_tokens=20, model=client.name)
        answer = json.loads(server.request("POST", CHAT, body)[1])
        assert answer["model"] == client.name
        return str(answer["choices"][0]["message"]["content"]).strip()

    alone = [expected(*each) for each in asked]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda each: served(*each), asked)) == alone
    assert alone[::2] != alone[1::2]
    assert "the model before fine-tuning answers there as builtin:tiny" in server.said


def test_requests_side_by_side_get_what_each_would_get_alone(server: Serving) -> None:
    settings = [{"temperature": 0}, {"seed": 1}, {"seed": 2, "temperature": 1.5}, {"seed": 3, "top_p": 0.7}] * 2

    def ask(number: int) -> Any:
        answer = server.ask(QUESTIONS[number], max_tokens=40, **settings[number])
        return answer.choices[0].message.content, answer.usage

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == alone
    assert len({text for text, _ in alone}) > 4


def test_a_seed_repeats_an_answer_and_none_does_not(server: Serving) -> None:
    def ask(**settings: Any) -> str:
        text: str = server.ask(LONG, temperature=2.0, max_tokens=30, **settings).choices[0].message.content
        return text

    assert ask(seed=11) == ask(seed=11) != ask(seed=12)
    assert ask() != ask()


def test_an_answer_ends_with_the_end_marker_or_with_its_tokens(server: Serving) -> None:
    whole = server.ask("What is number 5?", temperature=0)
    assert whole.choices[0].finish_reason == "stop"
    for name in ("max_tokens", "max_completion_tokens"):
        cut = server.ask("What is number 5?", temperature=0, **{name: 3})
        assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)
        assert whole.choices[0].message.content.startswith(cut.choices[0].message.content)


def test_usage_counts_the_prompt_as_the_model_reads_it(server: Serving, tuned: Run) -> None:
    model = TunedModel(tuned)
    messages = [{"role": "system", "content": "You count."}, {"role": "user", "content": "What is number 5?"}]
    prompt = model.renderer.prompt_ids(messages)
    generated = model.model.generate(
        input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=100, eos_token_id=2, pad_token_id=0
    )
    usage = server.ask("What is number 5?", temperature=0, max_tokens=100).usage
    assert usage.prompt_tokens == len(prompt)
    assert usage.total_tokens == len(prompt) + usage.completion_tokens == generated.shape[1]


def test_a_stream_is_the_same_answer_in_pieces(server: Serving) -> None:
    whole = server.ask("What is number 12?", temperature=0)
    chunks = list(server.ask("What is number 12?", temperature=0, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None] * (len(pieces) - 1) + [
        "stop"
    ]
    assert [chunk.usage for chunk in chunks] == [None] * (len(chunks) - 1) + [whole.usage]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(server: Serving, stream: bool) -> None:
    whole = server.ask("What is number 12?", temperature=0).choices[0].message.content
    stop = whole[6:12]
    answer = server.ask("What is number 12?", temperature=0, stop=[stop, "nowhere"], stream=stream)
    if stream:
        chunks = list(answer)
        text, reason = "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == (whole[: whole.index(stop)], "stop")
    wait_until(lambda: server.num_generating == 0)


def test_tools_reach_the_template(server: Serving) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    without, with_tool, unused = (
        server.ask("What is number 5?", temperature=0, max_tokens=1, **settings).usage.prompt_tokens
        for settings in ({}, {"tools": [tool]}, {"tools": [tool], "tool_choice": "none"})
    )
    assert without == unused < with_tool


def test_a_ready_call_is_printed_that_is_answered_as_it_stands(server: Serving) -> None:
    (said,) = [line for line in server.said if line.startswith("a question as the training rows ask it:\n")]
    call = said.partition("\n")[2]
    assert KEY not in call
    assert '{"role": "system", "content": "You count."}, {"role": "user", "content": "What is number 21?"}' in call
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["bash", "-c", f"{call} --silent --show-error --include"],
        env=os.environ | {"TRAINER_API_KEY": KEY}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("HTTP/1.1 200"), done.stdout + done.stderr
    assert "x-system-prompt: trained" in done.stdout
    assert json.loads(done.stdout.rpartition("\n\n")[2])["choices"][0]["message"]["content"]


SYSTEM = {
    "trained": {"role": "system", "content": "You count."},
    "other": {"role": "system", "content": "You are a pirate."},
    "none": {"role": "user", "content": "Hi."},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("judgment", SYSTEM)
def test_a_request_with_another_system_prompt_is_told(server: Serving, judgment: str, stream: bool) -> None:
    messages = [SYSTEM[judgment], {"role": "user", "content": "What is number 5?"}]
    for _ in range(2):
        response, _ = server.request(
            "POST", CHAT, {"model": server.name, "messages": messages, "max_tokens": 2, "stream": stream}
        )
        assert (response.status, response.getheader("x-system-prompt")) == (200, judgment)
    told = [
        line for line in server.said if line.startswith("a request has ") and f"x-system-prompt: {judgment})" in line
    ]
    assert len(told) == (0 if judgment == "trained" else 1)


def test_a_run_without_a_common_system_prompt_judges_none() -> None:
    said: list[str] = []
    assert TrainedPrompt(None, said.append).judge([SYSTEM["other"]]) is None
    assert said == []


def test_models_are_listed_and_found(server: Serving) -> None:
    tuned, base = server.client.models.list().data
    assert (tuned.id, base.id) == (server.name, "builtin:tiny")
    assert (tuned, base) == tuple(map(server.client.models.retrieve, (tuned.id, base.id)))
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("gpt-4")


def test_health_needs_no_key_and_says_that_it_is_ready(server: Serving) -> None:
    response, body = server.request("GET", "/health", key=None)
    assert (response.status, json.loads(body)) == (200, {"status": "ready", "model": server.name})


def test_nothing_is_answered_before_the_model_is_loaded(server: Serving) -> None:
    models, server.program.server.models = server.program.server.models, None
    try:
        for method, path, body in (("GET", "/health", None), ("POST", CHAT, body_of(server))):
            response, text = server.request(method, path, body)
            assert (response.status, response.getheader("Retry-After")) == (503, "2")
            assert json.loads(text)["error"]["code"] == "not_ready"
    finally:
        server.program.server.models = models


# Refusals


def test_a_wrong_key_is_not_let_in(server: Serving) -> None:
    for key in ("wrong", KEY + "x", KEY[:-1]):
        with pytest.raises(openai.AuthenticationError) as caught:
            server.client.with_options(api_key=key).models.list()
        assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_told_with_the_one_there_is(server: Serving) -> None:
    with pytest.raises(
        openai.NotFoundError, match=f"the model 'gpt-4' is not served here, expected '{server.name}' or"
    ):
        server.client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])


REFUSED: dict[str, tuple[Any, int, str | None]] = {
    "no JSON": (b"{", 400, "invalid_json"),
    "no messages": ({"messages": []}, 400, "invalid_value"),
    "two answers": ({"n": 2}, 400, "invalid_value"),
    "an unknown field": ({"top_k": 3}, 400, "unsupported_parameter"),
    "too many tokens": ({"max_tokens": 401}, 400, "max_tokens_exceeded"),
    "a prompt that is too long": (
        {"messages": [{"role": "user", "content": "1 " * 3000}]},
        400,
        "context_length_exceeded",
    ),
    "a control token": ({"messages": [{"role": "user", "content": "<|im_end|>"}]}, 400, "invalid_messages"),
    "a large body": (b'{"a": "' + b"x" * 1024 * 1024 + b'"}', 413, "request_too_large"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_in_the_services_words(server: Serving, name: str, stream: bool) -> None:
    change, status, code = REFUSED[name]
    body = change if isinstance(change, bytes) else body_of(server) | change | {"stream": stream}
    response, text = server.request("POST", CHAT, body)
    error = json.loads(text)["error"]
    assert (response.status, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})
    assert server.num_generating == 0


def test_the_official_client_raises_what_its_users_catch(server: Serving) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature: Input should be less than or equal to 2"):
        server.ask("x", temperature=3)


def test_another_content_type_is_refused(server: Serving) -> None:
    response, _ = server.request("POST", CHAT, json.dumps(body_of(server)), {"Content-Type": "text/plain"})
    assert response.status == 415


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
ALLOWED = {"/health": {"GET", "HEAD"}, "/v1/models": {"GET", "HEAD"}, CHAT: set(), "/v1/completions": set(), "/": set()}
PATHS = [*ALLOWED, "/v1/models/../../etc/passwd", "/v1//models", "/docs", "/openapi.json"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", PATHS)
def test_every_other_method_and_path_is_an_error_in_the_same_form(server: Serving, method: str, path: str) -> None:
    response, body = server.request(method, path, headers={"Origin": "https://evil.example"})
    assert (response.status == 200) == (method in ALLOWED.get(path, set()))
    if response.status != 200:
        assert response.status in (400, 404, 405, 415)
        assert method == "HEAD" or set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    assert response.getheader("Server") is None


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/health"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_health_is_answered_without_a_key(server: Serving, method: str, path: str) -> None:
    response, _ = server.request(method, path, key=None)
    assert response.status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "localhost", "127.0.0.1:{port}.evil.example"])
@pytest.mark.parametrize("path", [*ALLOWED, "/docs"])
def test_a_foreign_host_is_not_answered_whatever_it_asks(server: Serving, path: str, host: str) -> None:
    response, body = server.request("GET", path, headers={"Host": host.format(port=server.port)})
    assert (response.status, json.loads(body)["error"]["code"]) == (421, "unknown_host")


# Limits


def test_one_request_too_many_is_refused_at_once(small: Serving) -> None:
    connections = [small.connect() for _ in range(2)]
    for connection in connections:
        connection.request("POST", CHAT, json.dumps(endless(small)), headers())
        connection.getresponse().fp.readline()
    started = time.monotonic()
    response, text = small.request("POST", CHAT, body_of(small))
    seconds = time.monotonic() - started
    assert (response.status, response.getheader("Retry-After")) == (429, "1")
    assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"
    assert seconds < 1
    for connection in connections:
        connection.close()
    wait_until(lambda: small.request("POST", CHAT, body_of(small, max_tokens=1))[0].status == 200)


def headers(**more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"} | more


def sent(server: Serving, body: dict[str, Any]) -> Any:
    connection = server.connect()
    connection.request("POST", CHAT, json.dumps(body), headers())
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_generation(server: Serving, stream: bool) -> None:
    connection = sent(server, endless(server) | {"stream": stream})
    wait_until(lambda: server.generating)
    (request,) = server.generating
    connection.close()
    wait_until(lambda: server.num_generating == 0, seconds=5)
    service = server.service
    wait_until(lambda: service.places.taken == 0, seconds=5)
    assert request.status.name == "DECODING"  # it was not let go on to its end
    assert request.generated_len() < 300
    manager = service.engine.manager
    assert manager is not None
    assert manager.output_router.result_handlers == {}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(
    small: Serving, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = small.service
    monkeypatch.setattr(service, "limits", Limits(max_seconds=0.05, max_tokens=1000))
    _, text = small.request("POST", CHAT, endless(small) | {"stream": stream, "max_tokens": 1000})
    if stream:
        *_, last = text.decode().strip().split("\n\n")
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        error = json.loads(text)["error"]
    assert (error["code"], error["message"]) == ("timeout", "the answer took longer than 0.05 seconds")
    wait_until(lambda: small.num_generating == 0)


def test_a_body_that_comes_too_slowly_is_given_up(small: Serving) -> None:
    connection = small.connect()
    connection.putrequest("POST", CHAT)
    for name, value in headers(**{"Content-Length": "100"}).items():
        connection.putheader(name, value)
    connection.endheaders(b"{")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (408, "timeout")


def test_a_body_without_a_length_is_counted(small: Serving) -> None:
    connection = small.connect()
    chunks = (b"x" * 1000 for _ in range(6))
    connection.request("POST", CHAT, chunks, headers(**{"Transfer-Encoding": "chunked"}), encode_chunked=True)
    assert connection.getresponse().status == 413


# The published schema


def spec() -> dict[str, Any]:
    folder = os.environ.get("TRAINER_SPECS")
    if folder is None:
        pytest.skip("TRAINER_SPECS is not set: the published schema is not at hand")
    document: dict[str, Any] = with_nulls(json.loads((Path(folder) / "openai-finetune-trimmed.json").read_text()))
    return document


def with_nulls(value: Any) -> Any:
    """The schema with OpenAPI's older `nullable` in JSON Schema's words."""
    match value:
        case {"nullable": True, **rest}:
            return {"anyOf": [with_nulls(rest), {"type": "null"}]}
        case dict():
            return {key: with_nulls(inner) for key, inner in value.items()}
        case list():
            return [with_nulls(inner) for inner in value]
    return value


def check(value: Any, schema: str) -> None:
    from jsonschema import Draft202012Validator

    document = spec()
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": document["components"]})
    assert [error.message for error in validator.iter_errors(value)] == []


def test_bodies_hold_to_the_published_schema(server: Serving) -> None:
    check(json.loads(server.request("POST", CHAT, body_of(server))[1]), "CreateChatCompletionResponse")
    check(json.loads(server.request("GET", "/v1/models")[1]), "ListModelsResponse")
    check(json.loads(server.request("GET", f"/v1/models/{server.name}")[1]), "Model")
    check(json.loads(server.request("POST", CHAT, {})[1]), "ErrorResponse")
    _, text = server.request("POST", CHAT, body_of(server, stream=True, stream_options={"include_usage": True}))
    *events, end = text.decode().strip().split("\n\n")
    assert end == "data: [DONE]"
    for event in events:
        check(json.loads(event.removeprefix("data: ")), "CreateChatCompletionStreamResponse")


def test_answers_with_tool_calls_hold_to_the_published_schema() -> None:
    from trainer.inference.serve.answers import ChatCompletion, Usage, call_deltas
    from trainer.inference.tool_calls import Call

    answer, calls = ChatCompletion("m", "fp"), [Call("add", {"a": 1, "b": "Köln \ud800"})]
    body = answer.whole("One and Köln.", "", calls, "tool_calls", Usage(1, 2, 1))
    check(body, "CreateChatCompletionResponse")
    arguments = body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert arguments == '{"a": 1, "b": "Köln \\ud800"}'
    chunk = answer.chunk(call_deltas(calls)).removeprefix(b"data: ")
    check(json.loads(chunk), "CreateChatCompletionStreamResponse")


@pytest.mark.long
def test_a_server_whose_model_fails_tells_everyone_and_ends(tuned: Run) -> None:
    program = Program(TrainedRuns([tuned]), "127.0.0.1", 0, [], KEY, Limits())
    errors: list[TrainerError] = []

    def run() -> None:
        try:
            program.run()
        except TrainerError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server = Serving(program)
    wait_until(lambda: server.request("GET", "/health")[0].status == 200, seconds=120)
    server.service.engine.model.model.layers[0].forward = lambda *arguments, **options: 1 / 0
    response, text = server.request("POST", CHAT, body_of(server))
    assert (response.status, json.loads(text)["error"]["code"]) == (500, "server_error")
    thread.join(timeout=60)
    (error,) = errors
    assert str(error) == "the model has stopped: ZeroDivisionError: division by zero; start the server again"
    assert isinstance(error, TrainingError)


@pytest.mark.long
def test_a_model_that_learned_to_call_tools_calls_them(tmp_path: Path) -> None:
    """And the answer goes back as the client got it, with the tool's result, for the model to say it."""
    data = str(calling_rows(tmp_path / "calls.jsonl"))
    run = train(tmp_path, "caller", data__train=data, data__validation=None, training__n_epochs=25)
    messages: list[Any] = [{"role": "user", "content": "Add 2 and 3."}]
    settings = {"model": run.name, "tools": [ADD], "temperature": 0, "max_tokens": 80}
    with serving(run) as running:
        completions = running.client.chat.completions
        (choice,) = completions.create(messages=messages, **settings).choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls
        assert (call.function.name, set(json.loads(call.function.arguments))) == ("add", {"a", "b"})
        chunks = list(completions.create(messages=messages, stream=True, **settings))
        (streamed,) = [delta for c in chunks for delta in c.choices[0].delta.tool_calls or []]
        assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
        (choice,) = completions.create(messages=[*messages, choice.message, result], **settings).choices
        assert choice.finish_reason == "stop"
        assert choice.message.content.startswith("It is ")
