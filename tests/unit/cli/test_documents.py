"""With --format json a command prints one document of its schema and nothing else; a failure prints none."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from jsonschema import Draft202012Validator, ValidationError
from pydantic import ValidationError as NoDocument

from tests.commands import performed
from tests.conftest import REPOSITORY
from tests.documents import SCHEMA, answered, schema_of
from trainer.cli.documents import reference
from trainer.cli.documents.data import DataSplit, Severities
from trainer.cli.documents.document import Part, plain
from trainer.cli.main import trainer_app

STARTER = str(REPOSITORY / "data" / "starter.jsonl")


@pytest.mark.parametrize(("page", "words"), [("docs/json.md", ()), ("docs/json.schema.json", ("--format", "json"))])
def test_the_pages_are_what_the_code_makes(page: str, words: tuple[str, ...]) -> None:
    made = performed(("schemas", *words), lambda: 0.0)
    assert (REPOSITORY / page).read_text(encoding="utf-8") == made.out, "run: make docs"


def parts_of(model: type[Part]) -> Iterator[type[Part]]:
    yield model
    for info in model.model_fields.values():
        yield from (part for part in _models_in(info.annotation) for part in parts_of(part))


def _models_in(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


@pytest.mark.parametrize("model", reference.DOCUMENTS, ids=reference.name_of)
def test_every_field_says_what_it_means(model: type[Part]) -> None:
    for part in parts_of(model):
        assert part.__doc__, part
        assert [name for name, info in part.model_fields.items() if not info.description] == [], part


def test_one_schema_is_printed_alone_and_an_unknown_one_is_named() -> None:
    done = performed(("schemas", "data split", "--format", "json"), lambda: 0.0)
    Draft202012Validator.check_schema(json.loads(done.out))
    assert list(json.loads(done.out)["$defs"]) == ["DataSplit", "Share"]
    wrong = performed(("schemas", "data splt"), lambda: 0.0)
    assert (wrong.code, wrong.out) == (2, "")
    assert "'data splt' is no document, did you mean data split?, expected one of: " in wrong.err


def test_the_schema_refuses_what_is_no_document() -> None:
    good = {"document": "data split", "version": 1, "train": "a", "validation": "b", "num_train": 1}
    good |= {"num_validation": 1, "num_wanted": 1, "num_together": 0, "num_blank": 0, "shares": []}
    check = Draft202012Validator(schema_of("data split"))
    check.validate(good | {"a field of later": 1})
    for wrong in ({"num_train": "one"}, {"document": "data check"}, {"shares": None}):
        with pytest.raises(ValidationError):
            check.validate(good | wrong)
    with pytest.raises(ValidationError):
        check.validate({key: value for key, value in good.items() if key != "num_blank"})
    with pytest.raises(NoDocument):
        DataSplit.model_validate(good | {"a field too many": 1})


def test_text_and_figures_that_json_cannot_hold_are_replaced() -> None:
    assert plain({"a\udcff": [Path("b\udcff"), float("nan"), 1.5, "é"]}) == {"a\\udcff": ["b\\udcff", None, 1.5, "é"]}
    with pytest.raises(NoDocument):
        Severities(error=float("inf"), warning=0)  # type: ignore[arg-type]


def test_data_that_can_be_trained_and_data_that_cannot(write_rows: Callable[..., Path]) -> None:
    assert answered("data", "check", STARTER)["severities"]["error"] == 0
    bad = write_rows([{"messages": []}, ("a", "b")], "bad.jsonl")
    found = answered("data", "check", str(bad), "--reject", str(bad.with_name("rejected.jsonl")), code=2)
    assert found["severities"]["error"] == len([one for one in found["findings"] if one["severity"] == "error"]) > 0
    assert (found["reject"]["rows"], found["reject"]["clean"][0]["rows"]) == (1, 1)


def test_data_that_is_measured_converted_and_divided(tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(STARTER).read_bytes())
    measured = answered("data", "stats", STARTER, "--validation", str(copy))
    assert (measured["train"]["rows"], measured["train"]["tokens"], measured["leaks"]) == (10, None, 10)
    table = tmp_path / "größe\n.csv"
    table.write_text("prompt,answer\na,b\nc,\n")
    made = answered("data", "convert", str(table), "--skip-bad")
    assert (made["num_written"], len(made["skipped"])) == (1, 1)
    assert made["output"] == str(tmp_path / "größe\n.chat.jsonl")
    halves = answered("data", "split", STARTER, "--rows", "2", "--output-dir", str(tmp_path))
    assert (halves["num_train"], halves["num_validation"], Path(halves["train"]).is_file()) == (8, 2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "nothing.jsonl"),
        ("data", "stats", "nothing.jsonl"),
        ("data", "split", "nothing.jsonl"),
        ("data", "convert", "nothing.jsonl"),
        *((verb, "nothing") for verb in ("show", "logs", "checkpoints", "evaluate", "endpoints", "deploy", "register")),
        ("compare", "nothing", "else", "--gate", "better"),
        ("chat", "nothing", "Who are you?"),
        ("export", "nothing", "--output", "out"),
        ("resume", "nothing"),
        ("train", "--config", "nothing.yaml"),
        ("train", "--config", "nothing.yaml", "--check"),
        ("models", "--config", "nothing.yaml"),
    ],
    ids=" ".join,
)
def test_a_failure_prints_no_document_and_keeps_its_sentence_and_code(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    as_text = performed(words, lambda: 0.0)
    done = performed((*words, "--format", "json"), lambda: 0.0)
    assert (done.out, done.code, done.err) == ("", 2, as_text.err)
    assert done.err.startswith("error: ")


def test_every_document_is_in_the_schema() -> None:
    assert len(SCHEMA["anyOf"]) == len(reference.DOCUMENTS)


FOR_PEOPLE = {  # what they print is a page, a conversation, a server's log, or nothing but their exit code
    "api", "cancel", "config reference", "config schema", "data rules", "delete", "init", "migrate", "pause",
    "queue move", "queue remove", "queue unit", "queue work", "schemas", "serve", "teardown", "ui",
}  # fmt: skip
OF_A_RUN = {"resume", "train"}  # they end with the document of `show`


def all_commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    inner = getattr(group, "commands", None)
    if inner is None or group.invoke_without_command:
        yield " ".join(path), group
    for name in inner or ():
        yield from all_commands(inner[name], (*path, name))


def test_every_command_that_shows_something_has_a_document() -> None:
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in all_commands(typer.main.get_command(trainer_app))
    }
    with_format = {name for name, known in options.items() if "--format" in known}
    assert options.keys() - with_format == FOR_PEOPLE - {"schemas"}
    documents = {re.sub(r" --(check|tasks)$", "", name) for name in map(reference.name_of, reference.DOCUMENTS)}
    assert with_format - {"schemas"} == documents | OF_A_RUN
    assert all("--check" in options[name] for name in ("train", "deploy"))
