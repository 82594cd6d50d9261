"""Each kind of generated rows: what the model is asked for, what becomes a row, and what does not."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import performed
from tests.loopback import Loopback
from tests.writer import Item, Writer, sentences
from trainer.data.read.checks import check_files
from trainer.errors import ConfigError
from trainer.workshop.asking.request import Answer, Request
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.generate.chunk_work import Task
from trainer.workshop.generate.generate import Generated, Settings, make_plan, work_on
from trainer.workshop.generate.generate import generate as carry_out
from trainer.workshop.generate.kind import Brief, Kind
from trainer.workshop.generate.kinds import KINDS

HUBS = "A hub holds the axle of the wheel. The front hub of a city bike takes 36 spokes. Grease it once a year."
TYRES = "Tyres are inflated to 4 bar in summer. In winter a softer tyre grips better. Worn tyres show a grey thread."
BOOK = {
    "name": "book_repair",
    "description": "Book a repair.",
    "parameters": {
        "type": "object",
        "properties": {"day": {"type": "string"}, "minutes": {"type": "integer"}},
        "required": ["day"],
        "additionalProperties": False,
    },
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hubs.txt").write_text(HUBS, encoding="utf-8")
    Path("tyres.txt").write_text(TYRES, encoding="utf-8")


Write = Callable[[str, int], Item]


@contextmanager
def served(write: Write, **answers: Any) -> Iterator[tuple[Loopback, Writer]]:
    writer = Writer(write)
    for name, value in answers.items():
        setattr(writer, name, value)
    with Loopback(writer) as service:
        yield service, writer


def generated(service: Loopback, kind: str, **others: Any) -> tuple[Generated, list[dict[str, Any]]]:
    sources = (Path("hubs.txt"), Path("tyres.txt"))
    given = Settings(sources, Path("rows.jsonl"), service.url, "m", kind=kind, validation_share=0, **others)
    with make_plan(given) as plan:
        made = carry_out(plan, plan.quote)
    report = check_files([Path("rows.jsonl")])
    assert report.errors == []
    assert report.method == KINDS[kind].method
    return made, [json.loads(line) for line in Path("rows.jsonl").read_text(encoding="utf-8").splitlines()]


def sentence(source: str, number: int) -> str:
    said = sentences(source)
    return said[(number - 1) % len(said)]


def test_summaries_stand_below_the_text_that_they_sum_up() -> None:
    def write(source: str, number: int) -> Item:
        quote = sentence(source, number)
        return {
            "number": number,
            "request": f"Sum this up in {number}:",
            "summary": f"In short: {quote}",
            "quote": quote,
        }

    with served(write) as (service, _):
        made, rows = generated(service, "summarise", system="Be brief.")
    assert made.rows == 6
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert rows[0]["messages"][1]["content"] == f"Sum this up in 1:\n\n{HUBS}"
    assert rows[5]["messages"][2]["content"] == f"In short: {sentences(TYRES)[2]}"


def test_labels_are_asked_for_in_turn_and_no_other_one_is_taken() -> None:
    labels = ("wheel", "frame", "brake")
    asked: list[str] = []

    def write(source: str, number: int) -> Item:
        quote = sentence(source, number)
        label = labels[number - 1] if "hub" in source else "bell"
        return {"number": number, "text": f"My question, of {number}: {quote}", "label": label, "quote": quote}

    def say(body: dict[str, Any], text: str) -> str:
        asked.append(body["messages"][1]["content"])
        return text

    with served(write, said=say, verdicts=lambda item: {"label": labels[int(item["text"][16]) - 1]}) as (service, _):
        made, rows = generated(service, "classify", labels=labels)
    assert (made.rows, len(made.failures)) == (3, 1)
    assert "'bell' is not one of" in made.failures[0]
    assert rows[0]["messages"][0]["content"].endswith("nothing else: wheel, frame, brake.")
    assert [row["messages"][2]["content"] for row in rows] == list(labels)
    assert all(f"a text for the label {label}" in asked[0] for label in labels)


def test_a_passage_is_rewritten_in_the_tone_that_is_given() -> None:
    def write(source: str, number: int) -> Item:
        quote = sentence(source, number)
        return {
            "number": number,
            "request": f"Say it like a pirate ({number}).",
            "rewritten": f"Arr! {quote}",
            "quote": quote,
        }

    with served(write) as (service, writer):
        made, rows = generated(service, "rewrite-in-style", tone="a pirate's")
    assert made.rows == 6
    assert rows[0]["messages"][0]["content"] == f"Say it like a pirate (1).\n\n{sentences(HUBS)[0]}"
    assert all("a pirate's" in body for body in writer.paid)


def test_a_pair_stays_where_the_judge_prefers_what_was_meant_and_sees_no_word_of_it() -> None:
    def write(source: str, number: int) -> Item:
        quote = sentence(source, number)
        question = f"Tell me about '{quote[:20]}' please"
        return {"number": number, "question": question, "better": quote, "weaker": "It depends on it.", "quote": quote}

    places: list[bool] = []

    def prefer(item: Item) -> Item:
        assert not {"better", "weaker", "quote"} & item.keys()
        is_first = item["second"] == "It depends on it."
        places.append(is_first)
        if "winter" in item["first"] + item["second"]:
            is_first = not is_first
        return {"preferred": "first" if is_first else "second"}

    with served(write, verdicts=prefer) as (service, _):
        made, rows = generated(service, "preference", system="You are Spokewise.")
    assert (made.rows, made.dropped) == (5, {"unusable": 1})
    assert set(places) == {True, False}  # the better answer stands in either place
    assert rows[0] == {
        "input": {"messages": [{"role": "system", "content": "You are Spokewise."},
                               {"role": "user", "content": "Tell me about 'A hub holds the axle' please"}]},
        "preferred_output": [{"role": "assistant", "content": sentences(HUBS)[0]}],
        "non_preferred_output": [{"role": "assistant", "content": "It depends on it."}],
    }  # fmt: skip


class Written:
    """The model's answers, one after the other."""

    def __init__(self, *values: Any) -> None:
        self.values, self.asked = list(values), list[Request]()

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        return Answer(json.dumps(self.values.pop(0)), True, "id", None, None)


def call(number: int, arguments: str, reply: str = "") -> Item:
    return {
        "number": number,
        "request": f"Could you book it, {number}?",
        "arguments": arguments,
        "reply": reply,
        "quote": "Books a repair.",
    }


def test_calls_have_arguments_that_the_function_takes() -> None:
    chunk = Chunk("api.yaml", "POST /repairs", "POST /repairs. Books a repair.", function=json.dumps(BOOK))
    task = Task(KINDS["tool-use"], Brief(), 4, False, 0, 500, 0.7)
    said = ['{"day": "Monday"}', '{"minutes": 5}', "Monday", '{"day": "Monday", "hour": 1}']
    outcome = work_on(task, chunk, Written({"examples": [call(at, each) for at, each in enumerate(said, 1)]}))
    reasons = [made.reason[1] for made in outcome.dropped if made.reason]
    assert ["'day' is a required property" in reasons[0], reasons[1], "'hour' was unexpected" in reasons[2]] == [
        True, "its arguments are no JSON object", True]  # fmt: skip
    (made,) = outcome.rows
    assert made.row is not None
    assert made.row["tools"] == [{"type": "function", "function": BOOK}]
    function = made.row["messages"][1]["tool_calls"][0]["function"]
    assert function == {"name": "book_repair", "arguments": '{"day": "Monday"}'}
    path = Path("calls.jsonl")
    path.write_text(json.dumps(made.row) + "\n", encoding="utf-8")
    assert check_files([path]).errors == []


def made_of(function: dict[str, Any], *items: Item, others: tuple[dict[str, Any], ...] = ()) -> tuple[Any, str]:
    """Rows and reasons for the examples of one operation, and the first request's words."""
    chunk = Chunk("api.yaml", "POST /repairs", "POST /repairs. Books a repair.", function=json.dumps(function))
    brief = Brief(functions=tuple(map(json.dumps, (function, *others))))
    written = Written({"examples": list(items)})
    outcome = work_on(Task(KINDS["tool-use"], brief, len(items), False, 0, 500, 0.7), chunk, written)
    return outcome, str(written.asked[0].messages[1]["content"])


def test_a_value_that_is_missing_is_asked_for_where_one_is_required() -> None:
    outcome, _ = made_of(BOOK, call(1, "", "On which day?"), call(2, " "))
    assert outcome.rows[0].row["messages"][-1] == {"role": "assistant", "content": "On which day?"}
    free = BOOK | {"parameters": {"type": "object", "properties": {}}}
    (dropped,) = made_of(free, call(1, "", "On which day?"))[0].dropped
    assert [outcome.dropped[0].reason[1], dropped.reason[1]] == [
        "its reply is empty", "it asks for a value where the function requires none"]  # fmt: skip
    path = Path("calls.jsonl")
    path.write_text(json.dumps(outcome.rows[0].row) + "\n", encoding="utf-8")
    assert check_files([path]).errors == []


def test_a_call_stands_among_other_functions_in_an_order_that_tells_nothing() -> None:
    others = tuple({"name": f"other_{n}", "parameters": {"type": "object", "properties": {}}} for n in range(9))
    outcome, asked = made_of(BOOK, call(1, '{"day": "Monday"}'), others=(*others[5:], *others[:5]))
    names = [tool["function"]["name"] for tool in outcome.rows[0].row["tools"]]
    assert (len(names), "book_repair" in names, names) == (4, True, sorted(names))
    again, _ = made_of(BOOK, call(1, '{"day": "Monday"}'), others=others)
    assert again.rows[0].row == outcome.rows[0].row  # whatever their order
    assert json.dumps(BOOK) in asked


def test_a_schema_that_cannot_be_used_drops_the_example() -> None:
    broken = BOOK | {"parameters": {"type": "object", "properties": {"day": {"type": "whole"}}}}
    (dropped,) = made_of(broken, call(1, '{"day": 1}'))[0].dropped
    assert "the schema of its function cannot be used" in dropped.reason[1]


def test_the_judge_labels_a_text_without_seeing_the_label() -> None:
    def write(source: str, number: int) -> Item:
        quote = sentence(source, number)
        return {"number": number, "text": f"About {number}: {quote}", "label": "wheel", "quote": quote}

    def label(item: Item) -> Item:
        assert "label" not in item
        return {"label": "brake" if "winter" in item["text"] else "wheel"}

    with served(write, verdicts=label) as (service, _):
        made, rows = generated(service, "classify", labels=("wheel", "brake"))
    assert (len(rows), made.dropped) == (5, {"unusable": 1})


def test_what_a_kind_needs_is_asked_for() -> None:
    def refused(kind: str, **others: Any) -> str:
        with pytest.raises(ConfigError) as error:
            make_plan(Settings((Path("hubs.txt"),), Path("rows.jsonl"), "http://127.0.0.1:9", "m", kind=kind, **others))
        return str(error.value)

    assert refused("classify").startswith("--labels: is missing")
    assert "two or more" in refused("classify", labels=("a", "a"))
    assert refused("rewrite-in-style").startswith("--tone: is missing")
    assert refused("preference", judge=False).startswith("--no-judge: is given with --kind preference")


def test_tool_use_needs_operations() -> None:
    words = ("data", "generate", "hubs.txt", "--output", "r.jsonl", "--endpoint", "http://127.0.0.1:9", "--model", "m")
    done = performed((*words, "--kind", "tool-use"), lambda: 0.0)
    assert done.code == 2
    assert "holds nothing to write about, expected operations of an API" in done.err


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_schema_is_strict_as_structured_output_demands(kind: Kind) -> None:
    def objects(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield schema
            for inner in schema.values():
                yield from objects(inner)

    brief = Brief(labels=("a", "b"), tone="dry")
    for schema in (kind.answer_schema(brief), kind.verdict_schema()):
        found = list(objects(schema))
        assert len(found) == 2
        for each in found:
            assert each["additionalProperties"] is False
            assert each["required"] == list(each["properties"])


OPENAPI = """\
openapi: 3.1.0
info: {title: Workshop, version: "1"}
paths:
  /repairs:
    post:
      operationId: bookRepair
      summary: Books a repair on a day.
      requestBody:
        content:
          application/json:
            schema:
              type: object
              required: [day]
              properties:
                day: {type: string, description: The day of the repair.}
  /prices/{part}:
    get:
      operationId: getPrice
      summary: Tells the price of a part.
      parameters:
        - {name: part, in: path, required: true, schema: {type: string}}
"""


def test_calls_come_from_an_openapi_file() -> None:
    Path("api.yaml").write_text(OPENAPI, encoding="utf-8")

    def write(source: str, number: int) -> Item:
        books = "Books a repair" in source
        quote = "Books a repair on a day." if books else "Tells the price of a part."
        arguments = json.dumps({"day": f"{number} May"} if books else {"part": f"hub {number}"})
        asked = f"Can I come on {number} May?" if books else f"How much is hub {number}?"
        return {"number": number, "request": asked, "arguments": arguments, "reply": "", "quote": quote}

    with served(write) as (service, _):
        given = Settings((Path("api.yaml"), Path("hubs.txt")), Path("rows.jsonl"), service.url, "m", kind="tool-use")
        with make_plan(given) as plan:
            made = carry_out(plan, plan.quote)
    assert (made.rows, made.validation_rows, made.dropped, made.failures) == (3, 3, {}, ())
    report = check_files([made.files.rows], [made.files.validation])
    assert report.errors == []
    names = {call.name for row in (*report.conversations, *report.validation) for call in row.messages[-1].tool_calls}
    assert names == {"bookRepair", "getPrice"}
