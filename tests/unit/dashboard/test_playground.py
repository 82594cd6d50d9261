"""The playground without a model: forms, code, hidden answers and votes."""

import asyncio
import contextlib
import io
import json
import shlex
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from trainer.dashboard.playground.code import Target, code_for
from trainer.dashboard.playground.forms import asked_of
from trainer.dashboard.playground.rounds import Rounds
from trainer.dashboard.playground.votes import Vote, Votes, wilson
from trainer.errors import BackendError, ConfigError
from trainer.inference.client import Sampling
from trainer.inference.evaluation.significance import share_interval
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call
from trainer.runs import Run

QUESTION = [{"role": "user", "content": "What's \"it\" — 'this'?\nOr $that?"}]
FORM = {
    "system": "You count.",
    "messages": json.dumps(QUESTION),
    "tools": "",
    "max_tokens": "10",
    "temperature": "0.5",
    "top_p": "1",
    "seed": "7",
}
BENT: list[dict[str, Any]] = [  # what no page of ours sends
    {"content": 1},
    {"tool_calls": 1},
    {"tool_calls": ["x"]},
    {"tool_calls": [{"id": "a"}]},
    {"tool_calls": [{"id": 1, "function": {"name": "x", "arguments": ""}}]},
    {"tool_calls": [{"id": "a", "function": {"name": "x", "arguments": {}}}]},
]
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def test_a_form_becomes_a_conversation() -> None:
    asked = asked_of(FORM | {"tools": json.dumps([ADD])})
    assert asked.messages == [{"role": "system", "content": "You count."}, *QUESTION]
    assert (asked.sampling, asked.tools) == (Sampling(10, 0.5, 1.0, 7), [ADD])
    assert asked_of(FORM | {"system": " "}).messages == QUESTION


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"temperature": "warm"}, ["temperature: is 'warm', expected a number from 0 to 2; correct it"]),
        ({"temperature": "nan"}, ["temperature: is 'nan', expected a number from 0 to 2; correct it"]),
        ({"max_tokens": "1.5"}, ["max_tokens: is '1.5', expected a whole number from 1 to 4,096; correct it"]),
        ({"seed": "-1", "top_p": "0"}, ["top_p: is '0'", "seed: is '-1'"]),
        ({"messages": "[]"}, ["messages: hold no question"]),
        ({"messages": json.dumps([{"role": "user", "content": " "}])}, ["messages: hold no question"]),
        ({"messages": json.dumps([{"role": "system", "content": "x"}])}, ["messages: hold no question"]),
        *(
            ({"messages": json.dumps([{"role": "assistant", **bent}]), "question": "?"}, ["messages: hold no question"])
            for bent in BENT
        ),
        ({"tools": '[{"function": 1}]'}, ["tools: are no list of tools"]),
        ({"tools": "[{]"}, ["tools: column 3:"]),
        ({"tools": "{}"}, ["tools: are no list of tools"]),
        ({"system": "x" * 600_000}, ["messages: have more than 500,000 characters"]),
    ],
)
def test_everything_wrong_in_a_form_is_told_at_once(changes: dict[str, str], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        asked_of(FORM | changes)
    assert [told[: len(problem)] for told, problem in zip(refused.value.problems, problems, strict=True)] == problems


@pytest.mark.parametrize("tools", [[], [ADD]])
def test_both_codes_send_the_question_with_the_key_of_the_environment(tools: list[Any]) -> None:
    messages = [{"role": "system", "content": "Größe"}, *QUESTION]
    code = code_for(Target("http://127.0.0.1:8000/v1", "one", "THE_KEY"), messages, Sampling(9, 0.5, 0.9, 3), tools)
    words = shlex.split(code.curl.replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert words[1] == "http://127.0.0.1:8000/v1/chat/completions"
    assert words[3] == "Authorization: Bearer $THE_KEY"
    assert '"Authorization: Bearer $THE_KEY"' in code.curl, "the shell puts the key in"
    sent: dict[str, Any] = {}
    openai = types.ModuleType("openai")
    openai.OpenAI = mock.MagicMock()  # type: ignore[attr-defined]
    openai.OpenAI.return_value.chat.completions.create.side_effect = lambda **values: (
        sent.update(values) or mock.MagicMock()
    )
    with mock.patch.dict(sys.modules, {"openai": openai}), mock.patch.dict("os.environ", {"THE_KEY": "secret"}):
        exec(code.python, {})
    assert openai.OpenAI.call_args.kwargs == {"base_url": "http://127.0.0.1:8000/v1", "api_key": "secret"}
    assert sent == body
    assert body["messages"] == messages
    assert body.get("tools", []) == tools


def test_code_for_an_address_that_is_no_base_of_a_client_sends_the_same_question() -> None:
    target = Target("https://one.test/score", "one", "THE_KEY", path="")
    code = code_for(target, QUESTION, Sampling(9, 0.5, 0.9, 3), [ADD])
    words = shlex.split(code.curl.replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    answer = io.BytesIO(json.dumps({"choices": [{"message": {"content": "Five."}}]}).encode())
    said = io.StringIO()
    with (
        mock.patch("urllib.request.urlopen", return_value=answer) as opened,
        mock.patch.dict("os.environ", {"THE_KEY": "secret"}),
        contextlib.redirect_stdout(said),
    ):
        exec(code.python, {})
    (request,) = opened.call_args.args
    assert (words[1], request.full_url) == ("https://one.test/score", "https://one.test/score")
    assert request.get_header("Authorization") == "Bearer secret"
    assert (json.loads(request.data), body["messages"], body["tools"]) == (body, QUESTION, [ADD])
    assert said.getvalue() == "Five.\n"


class Speaker:
    """A model that says its pieces, and waits before each where it is told to."""

    def __init__(
        self, name: str, pieces: Sequence[str | Thought | Call | Exception], gate: threading.Event | None = None
    ) -> None:
        self.name, self.pieces, self.gate, self.closed = name, pieces, gate, threading.Event()

    def stream(self, messages: Any, sampling: Any, tools: Any = ()) -> Iterator[str | Thought | Call]:
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if self.gate is not None:
                    self.gate.wait(10)
        finally:
            self.closed.set()


def events_of(made: Any) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        return [event async for event in made.events()]

    return asyncio.run(read())


def test_both_answers_come_on_one_stream_and_a_failure_stops_no_other() -> None:
    tuned = Speaker("tuned", [Thought("Count"), Thought("."), "Number ", "5.", Call("add", {"a": 1})])
    base = Speaker("base", ["I ", BackendError("it stopped; ask again")])
    made = Rounds().begin("one", [("base", base), ("tuned", tuned)], QUESTION, Sampling(), (), is_blind=False)
    assert made.names == {"a": "base", "b": "tuned"}
    found = events_of(made)
    assert [event["text"] for event in found if event.get("side") == "b" and "text" in event] == ["Number ", "5."]
    assert [event["thought"] for event in found if event.get("side") == "b" and "thought" in event] == ["Count", "."]
    assert made.sides["b"].thought == "Count."
    assert {"side": "b", "call": {"name": "add", "arguments": '{"a": 1}'}} in found
    assert {"side": "a"} in found, "it has ended"
    assert (made.sides["a"].problem, made.sides["a"].words) == ("it stopped; ask again", "no answer")
    assert made.sides["b"].words.endswith("s, first word after 0.0 s")
    assert found[-1].keys() == {"side"}
    assert made.answer_of("tuned") == 'Number 5.\nadd({"a": 1})'
    assert not made.both_answered, "one of them has failed"


def test_who_stops_reading_stops_the_models() -> None:
    gate = threading.Event()
    speakers = [Speaker(name, ["word "] * 1000, gate) for name in ("base", "tuned")]
    clients: Any = [("base", speakers[0]), ("tuned", speakers[1])]
    made = Rounds().begin("one", clients, QUESTION, Sampling(), (), is_blind=False)

    async def read_one() -> None:
        events = made.events()
        await anext(events)
        await events.aclose()

    asyncio.run(read_one())
    gate.set()
    assert all(speaker.closed.wait(10) for speaker in speakers)
    assert all(len(side.text) < 100 for side in made.sides.values())


def test_hidden_answers_stand_in_either_order() -> None:
    clients: Any = [("base", Speaker("base", ["x"])), ("tuned", Speaker("tuned", ["y"]))]
    rounds = Rounds()
    orders = {tuple(rounds.begin("one", clients, QUESTION, Sampling(), (), True).names.values()) for _ in range(64)}
    assert orders == {("base", "tuned"), ("tuned", "base")}


def test_the_questions_of_one_run_are_not_found_from_another() -> None:
    rounds, clients = Rounds(), [("tuned", Speaker("tuned", ["y"]))]
    made = rounds.begin("one", clients, QUESTION, Sampling(), (), False)  # type: ignore[arg-type]
    assert rounds.find("one", made.id) is made
    assert rounds.find("two", made.id) is None


@pytest.mark.parametrize(("hits", "tries"), [(0, 1), (1, 1), (0, 9), (9, 9), (7, 10), (3, 40)])
def test_the_interval_is_that_of_the_comparison(hits: int, tries: int) -> None:
    counted = [(1.0 if number < hits else 0.0, 1.0) for number in range(tries)]
    assert wilson(hits, tries) == pytest.approx(share_interval(counted, range(tries)), abs=0.02)
    if hits in (0, tries):  # elsewhere the comparison estimates how many tries count
        assert wilson(hits, tries) == share_interval(counted, range(tries))
    assert wilson(0, 0) == (0.0, 1.0)


def test_votes_are_counted_once_for_a_question_by_the_last_one(tmp_path: Path) -> None:
    votes = Votes(tmp_path, Run(tmp_path / "one"))
    assert votes.tally().sentence == "no vote for either answer yet"

    def vote(question: str, choice: Any) -> None:
        votes.add(Vote("2026-11-29T00:00:00+00:00", choice, "You count.", question, "a", "b"))

    for number in range(8):
        vote(f"question {number}", "tuned")
    vote("question 7", "base")
    vote("question 8", "same")
    tally = votes.tally()
    assert (tally.tuned, tally.base, tally.same) == (7, 1, 1)
    assert tally.sentence == "7 of 8 votes for the tuned model, 1 for neither; 95 % interval 53% to 98%: better"
    with votes.path.open("a") as file:
        file.write('{"torn": ')
    assert votes.tally() == tally
