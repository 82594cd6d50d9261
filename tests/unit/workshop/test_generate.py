"""`trainer data generate`: what it writes, what it pays, and where it ends, against a model on 127.0.0.1."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Done, performed
from tests.documents import document_of
from tests.loopback import FAULTS, Fault, Kill, Loopback, Request, Response, status
from tests.writer import Writer, source_of, write_qa
from trainer.backends.http import FIRST_WAIT_SECONDS
from trainer.backends.quote import Item, Quote
from trainer.errors import ConfigError, DataError
from trainer.runs.ledger import Ledger
from trainer.workshop.asking.budget import Budget, CapReached
from trainer.workshop.asking.endpoint import connect, place_of
from trainer.workshop.asking.pace import Pace, exhausted_seconds, span_seconds
from trainer.workshop.asking.reading import read_json
from trainer.workshop.asking.sender import MOST_UNKNOWN, Unfinished
from trainer.workshop.asking.store import AnswerStore
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate import generate as engine
from trainer.workshop.generate.chunk_work import ChunkOutcome, Made
from trainer.workshop.generate.generate import Generated, Settings, finish_early, make_plan
from trainer.workshop.generate.generate import generate as carry_out
from trainer.workshop.generate.kind import Brief, Unusable, hold_quote
from trainer.workshop.generate.kinds import KINDS
from trainer.workshop.generate.rows import Sifted, first_rows, sift
from trainer.workshop.generate.variety import draw_slots

TOPICS = {
    "hubs": "A hub holds the axle of the wheel. The front hub of a city bike takes 36 spokes. Grease it once a year.",
    "rims": "A rim is the outer ring of a wheel. Aluminium rims weigh about 500 grams. Check them for cracks each spring.",
    "tyres": "Tyres are inflated to 4 bar in summer. In winter a softer tyre grips better. Worn tyres show a grey thread.",
    "chains": "A chain lasts about 3000 kilometres. Clean it with a dry cloth. A drop of oil on each link is enough.",
}
PRICED = {"price_in": 1.0, "price_out": 4.0}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "2")
    Path("docs").mkdir()
    for name, text in TOPICS.items():
        Path(f"docs/{name}.txt").write_text(text, encoding="utf-8")


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def service(writer: Writer) -> Iterator[Loopback]:
    with Loopback(writer) as service:
        yield service


def settings(service: Loopback, output: str = "rows.jsonl", **others: Any) -> Settings:
    return Settings((Path("docs"),), Path(output), service.url, "writer-1", **({"concurrency": 1} | others))


def made(given: Settings) -> Generated:
    with make_plan(given) as plan:
        return carry_out(plan, plan.quote)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def contents(stem: str = "rows") -> dict[str, bytes]:
    return {path.name.removeprefix(stem): path.read_bytes() for path in Path().glob(f"{stem}*.jsonl")}


def called(service: Loopback, *words: str) -> Done:
    line = ("data", "generate", "docs", "--output", "rows.jsonl", "--endpoint", service.url, "--model", "writer-1")
    return performed((*line, *words), lambda: 0.0)


def test_rows_are_grounded_held_out_by_chunk_and_legal(service: Loopback, writer: Writer) -> None:
    done = made(settings(service, system="You are Spokewise.", validation_share=0.25))
    assert (done.rows, done.validation_rows, done.requests, done.cost) == (9, 3, 8, 0.0)
    rows, origins = lines("rows.jsonl"), lines("rows.provenance.jsonl")
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant"]
    held_out = {origin["chunk"] for origin in origins if origin["file"] == "rows.validation.jsonl"}
    trained = {origin["chunk"] for origin in origins if origin["file"] == "rows.jsonl"}
    assert (len(held_out), len(trained), held_out & trained) == (1, 3, set())
    first = origins[0]
    assert first["source"] == "docs/chains.txt"
    assert first["quote"] in TOPICS["chains"]
    assert (first["model"], first["verdict"], len(first["requests"])) == ("writer-1", "the source says so", 2)
    assert len({origin["persona"] for origin in origins[:3]}) == 3
    checked = performed(("data", "check", "rows.jsonl", "--validation", "rows.validation.jsonl"), lambda: 0.0)
    assert checked.code == 0, checked.out
    assert not Path("rows.generate/ledger.jsonl").exists()  # nothing bills on this machine


def test_the_same_answers_give_the_same_bytes_whatever_the_concurrency(service: Loopback, writer: Writer) -> None:
    writer.doubts = lambda item: "no" if "rim" in item["answer"] else ""
    made(settings(service, rows=7))
    made(settings(service, "more.jsonl", rows=7, concurrency=8))
    assert contents("rows") == {name: data.replace(b"more.", b"rows.") for name, data in contents("more").items()}


@pytest.mark.parametrize("address", ["https://me:SECRET@host/v1", "https://host/v1?api-version=1&api-key=SECRET",
                                     "http://host/chat/completions?code=SECRET"])  # fmt: skip
def test_an_endpoint_whose_address_holds_a_secret_is_refused_before_it_is_kept(service: Loopback, address: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_plan(replace(settings(service), endpoint=address))
    assert str(raised.value).startswith("--endpoint: the address of host holds ")
    assert "SECRET" not in str(raised.value)
    assert not Path("rows.generate").exists()


def test_answers_of_another_form_in_a_row_end_it_as_each_may_be_paid(writer: Writer) -> None:
    for number in range(9):
        Path(f"docs/more{number}.txt").write_text(f"Wheel number {number} has {number} spokes and a rim of steel.")
    with Loopback(lambda request: Response(200, {"id": "paid"})) as odd:
        with pytest.raises(Unfinished, match=r"5 requests in a row were refused, the last one so: .* OpenAI's form"):
            made(settings(odd))
        assert len(odd.requests) == 5


class Crash(BaseException):
    """The end of the process at a certain point."""


def crash_at(monkeypatch: pytest.MonkeyPatch, point: str, number: int) -> None:
    """End the process at the `number`th passing of a point around a request."""
    method, when = {"intended": ("intend", "after"), "answered": ("keep", "before"), "kept": ("keep", "after"),
                    "settled": ("settle", "after")}[point]  # fmt: skip
    inner, count = getattr(AnswerStore, method), iter(range(1, 1000))

    def outer(self: AnswerStore, *arguments: Any) -> Any:
        is_now = next(count) == number
        if is_now and when == "before":
            raise Crash
        result = inner(self, *arguments)
        if is_now:
            raise Crash
        return result

    monkeypatch.setattr(AnswerStore, method, outer)


@pytest.mark.parametrize("point", ["intended", "answered", "kept", "settled"])
def test_a_crash_at_any_request_loses_and_repeats_nothing(
    service: Loopback, writer: Writer, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ("tyres", "chains"):
        Path(f"docs/{topic}.txt").unlink()
    made(settings(service, "whole.jsonl", rows_per_chunk=2, **PRICED))
    whole, num_requests = contents("whole"), sum(writer.paid.values())
    for number in range(1, num_requests + 1):
        writer.paid.clear()
        stem = f"at{number}"
        given = settings(service, f"{stem}.jsonl", rows_per_chunk=2, **PRICED)
        with monkeypatch.context() as patched:
            crash_at(patched, point, number)
            with pytest.raises(Crash):
                made(given)
        assert not Path(f"{stem}.jsonl").exists()
        done = made(given)
        assert {name: data.replace(stem.encode(), b"whole") for name, data in contents(stem).items()} == whole
        twice = [count for count in writer.paid.values() if count > 1]
        assert twice == ([2] if point == "answered" else [])  # it was on its way: all that can be lost
        assert done.unknown_requests == (point in ("intended", "answered"))
        assert sum(writer.paid.values()) == num_requests + len(twice)
        entries = Ledger(Path(f"{stem}.generate")).entries()
        assert [entry.step for entry in entries].count("exists") == num_requests
        known = sum(entry.facts["cost"] for entry in entries if entry.step == "exists")
        unknown = sum(entry.facts["most"] for entry in entries if entry.step == "intended")
        assert done.cost == pytest.approx(known + unknown)
        assert done.unknown_cost == pytest.approx(unknown)


def test_prose_is_asked_for_again_once_and_then_counted(service: Loopback, writer: Writer) -> None:
    def prose(body: dict[str, Any], text: str) -> str:
        said = body["messages"]
        if "rim" in source_of(body):
            return "Here you go! I hope this helps."
        return f"Sure: {text}" if "hub" in source_of(body) and len(said) == 2 else text

    writer.said = prose
    done = made(settings(service, judge=False))
    assert done.rows + done.validation_rows == 9
    assert len(done.failures) == 1
    assert "docs/rims.txt" in done.failures[0]
    assert "no JSON" in done.failures[0]
    assert done.requests == 4 + 2
    repairs = [request.json() for request in service.requests if len(request.json()["messages"]) == 4]
    assert "I hope this helps" in repairs[-1]["messages"][2]["content"]
    assert [line["failed"] for line in lines("rows.provenance.jsonl") if "failed" in line]


def test_what_is_not_in_the_source_is_dropped_with_the_reason(writer: Writer) -> None:
    def write(source: str, number: int) -> dict[str, Any]:
        item = write_qa(source, number)
        if number == 1:
            return item | {"quote": item["quote"].replace(" ", "\n  ")}  # only white space differs
        return item | ({"quote": "Hubs are made of pure gold."} if number == 2 else {"answer": "Nobody knows that."})

    writer.write, writer.doubts = write, lambda item: "it guesses" if "Nobody" in item["answer"] else ""
    with Loopback(writer) as service:
        done = made(settings(service))
    assert (done.rows + done.validation_rows, done.dropped) == (4, {"ungrounded": 4, "unsupported": 4})
    dropped = [line for line in lines("rows.provenance.jsonl") if "dropped" in line]
    assert {line["reason"] for line in dropped} == {"its quote does not occur in the source", "the judge: it guesses"}
    assert dropped[0]["example"]["quote"] == "Hubs are made of pure gold."


def test_rows_whose_judge_cannot_be_read_are_dropped(service: Loopback, writer: Writer) -> None:
    def prose(body: dict[str, Any], text: str) -> str:
        is_of_rims = "rim" in json.dumps(body["messages"])
        return "They look fine." if "The examples:" in body["messages"][1]["content"] and is_of_rims else text

    writer.said = prose
    done = made(settings(service))
    assert (done.rows + done.validation_rows, done.dropped, len(done.failures)) == (9, {"unjudged": 3}, 1)
    unjudged = [line for line in lines("rows.provenance.jsonl") if line.get("dropped") == "unjudged"]
    assert {line["source"] for line in unjudged} == {"docs/rims.txt"}
    assert all(line["example"]["quote"] in TOPICS["rims"] for line in unjudged)
    heats = {"The examples:" in each["messages"][1]["content"]: each["temperature"]
             for each in (request.json() for request in service.requests)}  # fmt: skip
    assert heats == {True: 0.0, False: 0.7}


def test_refusals_with_answers_between_them_end_only_themselves(service: Loopback, writer: Writer) -> None:
    for number in range(6):
        name = "rim" if number % 2 else "spoke"
        Path(f"docs/{number}.txt").write_text(f"Number {number} is a {name} of steel. It weighs {number} grams or so.")
    filtered = Response(400, {"error": {"code": "content_filter", "message": "The prompt triggered the policy."}})
    writer.refuses = lambda body: filtered if not re.search(r"spoke|hub", json.dumps(body["messages"])) else None
    done = made(settings(service))
    assert (len(done.failures), done.chunks) == (6, 10)


def test_one_chunk_stays_to_train_on_however_much_is_held_out(service: Loopback) -> None:
    done = made(settings(service, validation_share=0.99))
    assert (done.rows, done.validation_rows) == (3, 9)
    only = made(settings(service, "one.jsonl", rows=3, validation_share=0.99))
    assert (only.rows, only.validation_rows) == (3, 0)


def test_no_source_is_written_over(service: Loopback) -> None:
    Path("rows.jsonl").write_text('{"term": "hub", "definition": "the middle of a wheel"}\n', encoding="utf-8")
    before = contents()
    given = replace(settings(service, force=True), sources=(Path("docs"), Path("rows.jsonl")))
    with pytest.raises(DataError, match=r"^rows\.jsonl: "):
        make_plan(given)
    assert (contents(), service.requests) == (before, [])


def test_rows_that_repeat_are_dropped_and_replaced_up_to_the_number_wanted(service: Loopback, writer: Writer) -> None:
    ask = writer.write
    writer.write = lambda source, number: ask(source, number) | ({"question": "What?"} if number == 1 else {})
    done = made(settings(service, rows=6))
    assert done.rows + done.validation_rows == 6
    assert done.dropped["repeated"] >= 1
    assert done.chunks == 3  # two give five of them
    assert done.requests == 6


def test_rows_beyond_the_number_wanted_are_those_of_the_chunk_that_was_asked_last() -> None:
    one, two, three = (Chunk("a.txt", "", text) for text in ("one", "two", "three"))
    rows = tuple(Made(chunk, None, {}, {}) for chunk in (one, two, three) for _ in range(2))
    left = first_rows(Sifted(rows, ()), 3, [three.id, one.id, two.id])
    assert left.rows == (rows[0], *rows[4:])  # in the order of the sources
    assert [row.chunk for row in left.dropped] == [one, two, two]
    assert {row.reason for row in left.dropped} == {("surplus", "more rows than were asked for")}


def test_held_out_rows_of_an_earlier_set_do_not_stay_beside_one_without(service: Loopback) -> None:
    assert made(settings(service)).validation_rows == 3
    done = made(settings(service, validation_share=0, force=True))
    assert (done.rows, done.validation_rows) == (12, 0)
    assert sorted(contents()) == [".jsonl", ".provenance.jsonl"]


def test_an_endpoint_that_stops_half_way_ends_it_in_one_sentence(service: Loopback, writer: Writer) -> None:
    service.faults.append(Fault("down", lambda request: sum(writer.paid.values()) >= 3, answer=status(503), times=999))
    with pytest.raises(Unfinished) as ended:
        made(settings(service, concurrency=3, **PRICED))
    assert "the service answered 503" in str(ended.value)
    assert "the same command resumes" in str(ended.value)
    assert str(ended.value).count("\n") == 0
    assert not Path("rows.jsonl").exists()
    service.faults.clear()
    done = made(settings(service, **PRICED))
    assert set(writer.paid.values()) == {1}
    assert done.rows + done.validation_rows == 12


def test_a_storm_of_refusals_is_waited_out_and_pays_nothing(service: Loopback, writer: Writer) -> None:
    service.faults.append(Fault("429", answer=status(429, Retry_After="0"), times=12))
    done = made(settings(service, concurrency=4, **PRICED))
    assert (done.rows + done.validation_rows, done.failures, done.unknown_requests) == (12, (), 0)
    assert set(writer.paid.values()) == {1}
    steps = [entry.step for entry in Ledger(Path("rows.generate")).entries()]
    assert (steps.count("refused"), steps.count("exists")) == (12, 8)


TRIED = {"reset before", "reset after", "truncated body", "408 after", "409", "413", "429 Retry-After 0", "500 after",
         "503 after", "an HTML page with 200", "invalid JSON", "null fields", "unknown fields"}  # fmt: skip


@pytest.mark.parametrize("fault", [each for each in FAULTS if each.name in TRIED], ids=lambda each: each.name)
def test_one_fault_never_hides_what_may_have_been_paid(fault: Fault, service: Loopback, writer: Writer) -> None:
    service.faults.append(fault.fresh(lambda request: bool(writer.paid)))
    try:
        made(settings(service, **PRICED))
    except Unfinished:
        service.faults.clear()
    done = made(settings(service, force=True, **PRICED))
    assert done.rows + done.validation_rows == 12
    more = sum(writer.paid.values()) - 8
    assert more <= done.unknown_requests <= 1
    assert set(writer.paid.values()) <= {1, 2}


def test_a_limit_that_an_answer_says_is_exhausted_is_waited_for_before_the_next_request(
    service: Loopback, writer: Writer
) -> None:
    writer.headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "300ms"}
    asked: list[float] = []

    def note(body: dict[str, Any], text: str) -> str:
        asked.append(time.monotonic())
        return text

    writer.said = note
    made(settings(service, rows=3))
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 0.3


def test_a_request_that_may_have_been_paid_each_time_is_sent_a_few_times_alone(
    service: Loopback, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "60")
    monkeypatch.setattr("trainer.workshop.asking.pace.FIRST_WAIT_SECONDS", 0.01)
    lost = Fault("lost", lambda request: "rim" in source_of(request.json()), commits=True, broken="reset", times=99)
    service.faults.append(lost)
    done = made(settings(service, **PRICED))
    assert (len(done.failures), done.unknown_requests, max(writer.paid.values())) == (1, MOST_UNKNOWN, MOST_UNKNOWN)
    assert done.failures[0].endswith(f", {MOST_UNKNOWN} times")
    assert done.unknown_cost is not None
    assert done.cost is not None
    assert done.cost > done.unknown_cost > 0


@pytest.mark.parametrize(("code", "words"), [(401, "--key-env"), (404, "correct the name"), (403, "lacks a role")])
def test_a_wrong_key_or_name_ends_it_after_one_request(service: Loopback, code: int, words: str) -> None:
    service.faults.append(Fault("wrong", answer=status(code), times=999))
    with pytest.raises(Unfinished, match=words):
        made(settings(service, concurrency=8, **PRICED))
    assert len(service.requests) == 1


def test_a_server_that_wants_a_key_is_told_so(
    service: Loopback, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.faults.append(
        Fault("key", lambda request: "authorization" not in request.headers, answer=status(401), times=9)
    )
    with pytest.raises(Unfinished, match=r"--key-env VARIABLE; nothing was answered yet"):
        made(settings(service))
    monkeypatch.setenv("TRAINER_API_KEY", "own")
    assert made(settings(service)).rows == 9


def test_a_key_that_expires_half_way_ends_it_and_the_same_command_goes_on(
    service: Loopback, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_API_KEY", "own")
    service.faults.append(Fault("expired", lambda request: sum(writer.paid.values()) >= 4, answer=status(401), times=9))
    with pytest.raises(Unfinished, match="the credential is not accepted"):
        made(settings(service, **PRICED))
    service.faults.clear()
    assert made(settings(service, **PRICED)).requests == 4
    assert set(writer.paid.values()) == {1}


def test_requests_that_are_refused_for_what_they_hold_fail_alone(service: Loopback, writer: Writer) -> None:
    filtered = Response(400, {"error": {"code": "content_filter", "message": "The prompt triggered the policy."}})
    writer.refuses = lambda body: filtered if "rim" in source_of(body) else None
    done = made(settings(service))
    assert (done.rows + done.validation_rows, len(done.failures)) == (9, 1)
    assert "content_filter" in done.failures[0]


def test_wishes_reach_the_writer_and_rows_that_show_the_style_are_held_to_the_rules(service: Loopback) -> None:
    shown = [{"messages": [{"role": "user", "content": f"Ask {number}"}, {"role": "assistant", "content": "Grüezi"}]}
             for number in range(7)]  # fmt: skip
    Path("style.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown), encoding="utf-8")
    wishes = {"language": "Swiss German", "tone": "dry and brief", "examples": Path("style.jsonl")}
    made(settings(service, rows=3, **wishes))
    written, judged = [request.json()["messages"][0]["content"] for request in service.requests]
    assert "Write in Swiss German;" in written
    assert "The tone of what the assistant says: dry and brief." in written
    assert [f"Ask {number}" in written for number in range(7)] == [True] * 5 + [False] * 2
    assert "Grüezi" in written
    assert "Swiss German" not in judged
    Path("style.jsonl").write_text(json.dumps(shown[0]) + '\n{"messages": []}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"^style\.jsonl:2: "):
        make_plan(settings(service, "more.jsonl", **wishes))
    Path("style.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^style\.jsonl: "):
        make_plan(settings(service, "more.jsonl", **wishes))


def test_an_answer_that_was_cut_off_is_not_paid_for_again(writer: Writer) -> None:
    def cut(request: Request) -> Response:
        answer = writer(request)
        if "rim" in source_of(request.json()):
            choice = answer.body["choices"][0]
            choice["finish_reason"] = "length"
            choice["message"]["content"] = choice["message"]["content"][:40]
        return answer

    with Loopback(cut) as service:
        done = made(settings(service))
    assert (done.rows + done.validation_rows, done.requests) == (9, 7)
    (failure,) = done.failures
    assert failure.endswith("it was cut off at 2,048 tokens; raise --max-tokens")


def test_examples_that_nobody_asked_for_are_dropped(service: Loopback, writer: Writer) -> None:
    writer.write = lambda source, number: write_qa(source, number) | {"number": min(number, 2)}
    done = made(settings(service, judge=False))
    assert (done.rows + done.validation_rows, done.dropped) == (8, {"unwanted": 4})


def test_a_quote_is_too_long_to_occur_by_chance() -> None:
    with pytest.raises(Unusable, match="fewer than 8 characters"):
        hold_quote({"quote": " A\n hub "}, Chunk("a.txt", "", TOPICS["hubs"]))
    assert hold_quote({"quote": "A\n hub."}, Chunk("a.txt", "", "A hub. ")) == "A hub."  # the source has no more


def test_an_endpoint_without_schemas_is_told_the_form_in_words(service: Loopback, writer: Writer) -> None:
    def refuse(body: dict[str, Any]) -> Response | None:
        for name in ("response_format", "max_tokens", "temperature"):
            if name in body:
                hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return Response(400, {"error": {"code": "unsupported", "message": f"Unsupported: {name!r}.{hint}"}})
        return None

    writer.refuses = refuse
    writer.said = lambda body, text: f"```json\n{text}\n```"
    done = made(settings(service))
    assert (done.rows + done.validation_rows, done.failures) == (12, ())
    assert len(service.requests) == 3 + 8  # each refusal is met once
    last = service.requests[-1].json()
    assert "JSON Schema" in last["messages"][0]["content"]
    assert sorted(last) == ["max_completion_tokens", "messages", "model", "seed"]
    made(settings(service, force=True, seed=1))
    assert len(service.requests) == 3 + 16  # and not again


def test_an_endpoint_that_takes_neither_word_for_the_limit_is_not_asked_for_ever(
    service: Loopback, writer: Writer
) -> None:
    words = "max_tokens and max_completion_tokens are unsupported parameters"
    writer.refuses = lambda body: Response(400, {"error": {"code": "unsupported", "message": words}})
    with pytest.raises(DataError, match="no row is left"):
        made(settings(service))
    assert len(service.requests) == 5  # one in other words, and each chunk once
    damaged = {"url": place_of(service.url).url, "model": "writer-1", "dialect": 5}
    Path("rows.generate/endpoint.json").write_text(json.dumps(damaged), encoding="utf-8")
    writer.refuses = lambda body: None
    assert made(settings(service)).rows == 9


def test_a_cap_is_never_crossed_and_what_ended_is_kept(service: Loopback, writer: Writer) -> None:
    with make_plan(settings(service, **PRICED)) as plan:
        most = plan.prices.most(plan.task.first_request(plan.chunks[0]))
        assert most is not None
    with pytest.raises(Unfinished, match=r"could bring the cost above .* with a greater --cap resumes"):
        made(settings(service, cap=most * 1.5, concurrency=3, **PRICED))
    spent = sum(entry.facts["cost"] for entry in Ledger(Path("rows.generate")).entries())
    assert 0 < spent < most * 1.5
    before = sum(writer.paid.values())
    assert before == len(service.requests)
    with make_plan(settings(service, cap=9.0, **PRICED)) as plan:
        assert "kept from before" in " ".join(plan.quote.lines())
        done = carry_out(plan, plan.quote)
    assert (done.requests, set(writer.paid.values())) == (8 - before, {1})


def test_a_cap_counts_what_earlier_calls_have_spent_and_what_they_may_have(
    service: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_plan(settings(service, **PRICED)) as plan:
        most = plan.prices.most(plan.task.first_request(plan.chunks[0]))
        assert most is not None
    capped = settings(service, cap=most * 1.5, **PRICED)
    sent: list[int] = []
    for _ in range(2):
        with pytest.raises(Unfinished, match=r"could bring the cost above"):
            made(capped)
        sent.append(len(service.requests))
    assert sent[0] == sent[1] > 0
    lost = settings(service, "lost.jsonl", cap=most * 1.5, **PRICED)
    with monkeypatch.context() as patched:
        crash_at(patched, "intended", 1)
        with pytest.raises(Crash):
            made(lost)
    with pytest.raises(Unfinished, match=r"could bring the cost above"):
        made(lost)
    assert len(service.requests) == sent[1]


def test_an_endpoint_that_counts_more_than_it_was_asked_for_ends_at_the_price_that_was_agreed_to(
    writer: Writer,
) -> None:
    def dear(request: Request) -> Response:
        answer = writer(request)
        answer.body["usage"]["completion_tokens"] = 10**6
        return answer

    with Loopback(dear) as service, pytest.raises(Unfinished, match=r"could bring the cost above [\d.]+ USD"):
        made(settings(service, **PRICED))
    assert sum(writer.paid.values()) == 1


def test_a_limit_is_exact_whatever_was_set_aside_before() -> None:
    budget = Budget(1.0, 0.0)
    for most in (0.1, 0.2, 0.3):
        budget.reserve(most)
    for most in (0.1, 0.2, 0.3):  # in floats their sum less each of them is not 0
        budget.release(most, 0.0)
    budget.reserve(1.0)
    budget.release(1.0, 0.5)
    with pytest.raises(CapReached):
        budget.reserve(0.6)


def test_a_full_disk_ends_it_in_words_and_nobody_waits_for_ever(
    service: Loopback, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, calls = AnswerStore.keep, iter(range(1, 99))

    def full(self: AnswerStore, *arguments: Any) -> None:
        if next(calls) > 2:  # those of the first chunk; the others work side by side, and not all have room
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(self, *arguments)

    with make_plan(settings(service, **PRICED)) as plan:
        most = plan.prices.most(plan.task.first_request(plan.chunks[0]))
        assert most is not None
    words = ("--price-in", "1", "--price-out", "4", "--yes", "--cap", f"{most * 2.2:f}")
    with monkeypatch.context() as patched:
        patched.setattr(AnswerStore, "keep", full)
        done = called(service, *words)
    assert (done.code, done.has_traceback) == (1, False)
    assert "No space left on device; free space" in done.err
    with make_plan(settings(service, **PRICED)) as plan:
        assert len(plan.store.unknown) == sum(writer.paid.values()) - 2 >= 1


def test_rows_that_are_there_can_be_written_without_another_request(service: Loopback, writer: Writer) -> None:
    service.faults.append(Fault("down", lambda request: sum(writer.paid.values()) >= 5, answer=status(401), times=9))
    with pytest.raises(Unfinished, match="--finish"):
        made(settings(service))
    sent = len(service.requests)
    with make_plan(settings(service)) as plan:
        done = finish_early(plan)
    assert (done.rows + done.validation_rows, len(service.requests)) == (6, sent)


def test_nothing_is_sent_above_the_price_that_was_agreed_to(service: Loopback) -> None:
    with make_plan(settings(service, **PRICED)) as plan:
        assert plan.quote.total is not None
        cheaper = Quote((Item("less", plan.quote.total / 2),), "")
        for agreed in (Quote((), ""), cheaper):
            with pytest.raises(ConfigError, match="agree again"):
                carry_out(plan, agreed)
    assert service.requests == []


def test_a_price_is_asked_for_where_none_is_known(service: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    known = settings(service, "a.jsonl")
    for url, model in (
        ("https://api.openai.com", "gpt-4.1-mini-2025-04-14"),
        ("https://x.openai.azure.com", "gpt-4.1-mini"),
    ):
        with make_plan(Settings(known.sources, Path("a.jsonl"), url, model)) as plan:
            assert (plan.prices.input, plan.prices.output) == (0.4, 1.6)
            assert plan.quote.total is not None
            assert plan.quote.ceiling is not None
            assert plan.quote.ceiling > plan.quote.total > 0
    own = Settings(known.sources, Path("b.jsonl"), "https://models.example", "own")
    with make_plan(own) as plan:
        assert (plan.quote.bills, plan.quote.total) == (True, None)
        assert "price not known" in " ".join(plan.quote.lines())
    with pytest.raises(ConfigError, match="no price is known to compare it with"):
        make_plan(Settings(known.sources, Path("c.jsonl"), "https://models.example", "own", cap=5.0))


def test_addresses_are_taken_as_people_write_them() -> None:
    azure = "https://x.openai.azure.com/openai/v1/chat/completions"
    for given in ("https://x.openai.azure.com", "https://x.openai.azure.com/openai/v1/", azure):
        assert (place_of(given).url, place_of(given).service) == (azure, "azure")
    assert place_of("https://api.openai.com/v1").url == "https://api.openai.com/v1/chat/completions"
    assert place_of("http://127.0.0.1:8000").url == "http://127.0.0.1:8000/v1/chat/completions"
    assert place_of("http://[::1]:8000/v1").is_local
    for wrong in ("ftp://x", "https://[", "https://x:99999", "https://x:port"):
        with pytest.raises(ConfigError, match="begins with https"):
            place_of(wrong)


def test_keys_come_from_the_environment_and_go_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    monkeypatch.setenv("VLLM_KEY", "own")
    assert connect(place_of("https://vllm.example"), "m", None).address.headers() == {}
    assert connect(place_of("https://vllm.example"), "m", "VLLM_KEY").address.headers() == {
        "Authorization": "Bearer own"
    }
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure")
    assert connect(place_of("https://x.openai.azure.com"), "m", None).address.headers() == {"api-key": "azure"}
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token")
    assert connect(place_of("https://x.openai.azure.com"), "m", None).address.headers() == {
        "Authorization": "Bearer token"
    }
    with pytest.raises(ConfigError, match="expected https"):
        connect(place_of("http://vllm.example"), "m", "VLLM_KEY")
    with pytest.raises(ConfigError, match="NONE_SUCH: is not set"):
        connect(place_of("https://vllm.example"), "m", "NONE_SUCH")


def test_the_command_reports_asks_and_refuses(service: Loopback, writer: Writer) -> None:
    refused = called(service, "--price-in", "1", "--price-out", "4")
    assert refused.code == 2
    assert "nobody can be asked" in refused.err
    assert not service.requests
    assert not Path("rows.generate").exists()
    document = document_of(called(service, "--price-in", "1", "--price-out", "4", "--yes", "--format", "json"))
    assert (document["rows"], document["validation_rows"], document["requests"]) == (9, 3, 8)
    assert document["cost"] > 0
    again = called(service)
    assert again.code == 2
    assert "rows.jsonl: exists already" in again.err
    assert "the sources give no more" in called(service, "--overwrite", "--rows", "99").out
    assert len(service.requests) == 8
    wrong = called(service, "--kind", "qaa", "--concurrency", "0", "--output", "x.json")
    assert len(wrong.errors) == 3
    assert "did you mean qa?" in wrong.err
    assert "--rows: is 0, expected 1 or more" in called(service, "--rows", "0", "--force").err
    unused = called(service, "--labels", "a,b", "--force")
    assert unused.code == 2
    assert "--labels: is given with --kind qa, whose rows have none" in unused.err
    ended = called(service, "--seed", "1", "--force", "--price-in", "1", "--price-out", "4", "--yes", "--cap", "0.001")
    assert (ended.code, len(ended.errors)) == (75, 1)
    assert "qa" in performed(("data", "generate", "--kinds"), lambda: 0.0).out


def test_one_process_at_a_time_writes_a_set(service: Loopback) -> None:
    with make_plan(settings(service)), pytest.raises(ConfigError, match="another process works in it"):
        make_plan(settings(service))


def test_no_row_left_is_said_with_the_reasons(service: Loopback, writer: Writer) -> None:
    writer.doubts = lambda item: "no"
    with pytest.raises(DataError, match="no row is left, expected one or more; dropped: 12 unsupported"):
        made(settings(service))
    assert not Path("rows.jsonl").exists()


def test_progress_is_told_and_a_stop_ends_it(service: Loopback, writer: Writer) -> None:
    states, stop = [], threading.Event()

    def tell(state: engine.Progress) -> None:
        states.append(state)
        if state.chunks_done == 2:
            stop.set()

    with make_plan(settings(service, **PRICED)) as plan, pytest.raises(Unfinished, match="stopped; 2 of 4 chunks done"):
        carry_out(plan, plan.quote, tell, stop)
    assert [(state.rows, state.failures) for state in states] == [(3, 0), (6, 0)]
    assert states[0].sample is not None
    assert states[1].cost is not None
    assert len(service.requests) == 4


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("7", 7), ("soon", 0), ("", 0)]
)
def test_spans_of_rate_limits_are_read(text: str, seconds: float) -> None:
    assert span_seconds(text) == pytest.approx(seconds)


def test_ctrl_c_waits_for_what_is_on_its_way_and_says_how_to_go_on(service: Loopback, writer: Writer) -> None:
    def interrupt(body: dict[str, Any], text: str) -> str:
        if sum(writer.paid.values()) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # the main thread hears of it while this request is on its way
        return text

    writer.said = interrupt
    done = called(service, "--concurrency", "1")
    assert (done.code, done.has_traceback, done.errors) == (130, False, [])
    assert "the same command resumes" in done.err
    assert sum(writer.paid.values()) == 3
    assert called(service).code == 0
    assert set(writer.paid.values()) == {1}


@pytest.mark.slow
def test_a_killed_process_loses_and_repeats_nothing(service: Loopback, writer: Writer) -> None:
    line = [sys.executable, "-m", "trainer", "data", "generate", "docs", "--output", "rows.jsonl", "--endpoint",
            service.url, "--model", "writer-1", "--yes", "--price-in", "1", "--price-out", "4"]  # fmt: skip
    running: list[subprocess.Popen[bytes]] = []
    for num_before, after in ((1, False), (4, True)):
        writer.paid.clear()

        def is_time(request: Request, num_before: int = num_before) -> bool:
            return sum(writer.paid.values()) >= num_before

        service.kills = [Kill(is_time, after, lambda: running[-1].pid)]
        running.append(subprocess.Popen(line))
        assert running[-1].wait(60) == -signal.SIGKILL
        assert not Path("rows.jsonl").exists()
        done = made(settings(service, concurrency=4, **PRICED))
        assert done.rows + done.validation_rows == 12
        assert 1 <= done.unknown_requests <= 4
        assert sum(count - 1 for count in writer.paid.values()) <= done.unknown_requests
        shutil.rmtree("rows.generate")
        for path in Path().glob("rows*.jsonl"):
            path.unlink()


def test_everybody_waits_as_a_refusal_asks_and_longer_each_time_where_it_does_not() -> None:
    pace, never = Pace(), threading.Event()
    assert pace.refused(0.3) == 0.3
    begun = time.monotonic()
    pace.wait(never)
    assert time.monotonic() - begun > 0.2
    assert pace.refused(None) == 2 * FIRST_WAIT_SECONDS
    pace.answered({})
    assert pace.refused(None) == FIRST_WAIT_SECONDS
    never.set()
    pace.wait(never)  # a stop is not waited with


def test_rows_that_nearly_repeat_or_break_a_rule_are_dropped() -> None:
    chunk = Chunk("a.txt", "", " ".join(TOPICS.values()))
    said = [TOPICS["hubs"], TOPICS["hubs"].replace("once a year", "each year"), TOPICS["rims"], ""]
    asked = [f"Please explain in a few sentences what I should know about part {word}" for word in
             ("of the wheel, thanks", "of the wheel, thank you", "of rims and how heavy they are", "of nothing")]  # fmt: skip
    items = [{"question": question, "answer": answer} for question, answer in zip(asked, said, strict=True)]
    made = [
        Made(chunk, None, item, {"messages": [{"role": "user", "content": item["question"]},
                                              {"role": "assistant", "content": item["answer"]}]})
        for item in items
    ]  # fmt: skip
    sifted = sift([ChunkOutcome(chunk, tuple(made))], KINDS["qa"])
    assert [row.item for row in sifted.rows] == [items[0], items[2]]
    reasons = {row.item["question"]: row.reason for row in sifted.dropped}
    assert reasons[asked[1]][0] == "repeated"
    assert "resembles line 1" in reasons[asked[1]][1]
    assert reasons[asked[3]][0] == "illegal"


def test_an_exhausted_limit_is_waited_for() -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
    assert exhausted_seconds(spent) == 2
    assert exhausted_seconds(spent | {"x-ratelimit-remaining-requests": "3"}) == 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_variety_is_drawn_from_chunk_and_seed(kind: Any) -> None:
    brief = Brief(labels=("a", "b"), tone="dry")
    slots = draw_slots(kind, brief, "c", 0, 5)
    assert slots == draw_slots(kind, brief, "c", 0, 5)
    assert slots != draw_slots(kind, brief, "c", 1, 5)
    assert slots != draw_slots(kind, brief, "d", 0, 5)
    assert len({slot.persona for slot in slots}) == 5
    assert {slot.level for slot in slots} == {"easy", "medium", "hard"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"examples": []}', ""),
        ('```json\n{"examples": []}\n```', ""),
        ('Here: {"examples": []}', "no JSON"),
        ('{"examples": [], "examples": []}', "no JSON"),
        ('{"examples": [{"number": 1}]}', "not of the schema: examples[0]"),
        ("[]", "not of the schema"),
    ],
)
def test_answers_are_read_strictly(text: str, problem: str) -> None:
    found, said = read_json(text, KINDS["qa"].answer_schema(Brief()))
    assert (found is None) == bool(problem)
    assert problem in said
