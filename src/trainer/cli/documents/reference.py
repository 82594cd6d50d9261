"""The JSON Schemas of all documents, and docs/json.md, made from the documents' own docstrings."""

import types
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.json_schema import models_json_schema

from trainer.cli.documents import benchmarks, data, plans, preview, queue, runs, sweep, use, verdicts
from trainer.cli.documents.document import Document, Part
from trainer.errors import ConfigError, similar

DOCUMENTS: tuple[type[Document], ...] = (
    plans.TrainCheck,
    data.DataCheck,
    data.DataClean,
    data.DataStats,
    data.DataDoctor,
    preview.DataPreview,
    data.DataConvert,
    data.DataSplit,
    data.DataGenerate,
    queue.QueueList,
    sweep.Sweep,
    runs.Runs,
    runs.Show,
    runs.Checkpoints,
    runs.Logs,
    verdicts.Evaluate,
    benchmarks.Benchmarks,
    verdicts.Compare,
    use.Chat,
    use.Export,
    use.Register,
    plans.DeployCheck,
    plans.Deploy,
    plans.Endpoints,
    plans.Models,
    plans.Sizes,
)

HEADER = """# What commands print with `--format json`

Made from the code by `trainer schemas`; `trainer schemas --format json` prints the same as JSON Schema, which is also
kept in [json.schema.json](json.schema.json). For all of them:

- Standard output holds one JSON document and nothing else. What is said on the way goes to standard error, for people.
- `document` names the command, `version` its shape: it is raised when a field changes its meaning or goes. New fields
  may come without it; ignore those that you do not know.
- A command that fails prints no document: standard error says why, in sentences, and the exit code says what kind of
  failure it is: 1 the run or a service failed, 2 config, data or command line, 75 stopped and resumable, 130
  interrupted. Data with errors (`data check`, 2) and a gate that does not hold (3) are results, and are printed. So
  are runs: `train` and `resume` print theirs however following it ends (1, 75, 130), once it has a folder.
- Every field is always there; null stands for what is not known or does not apply. Text is ASCII with `\\u` escapes.
"""
PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "any value"}


def json_schema(names: Sequence[str] = ()) -> dict[str, Any]:
    """One JSON Schema (draft 2020-12) of the named documents, of all without names; each is in `$defs` by its command.

    Raises: ConfigError, for a name that is none.
    """
    chosen = _chosen(names)
    mapping, schema = models_json_schema([(model, "serialization") for model in chosen])
    any_of = [mapping[(model, "serialization")] for model in chosen]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": any_of, **schema}


def markdown(names: Sequence[str] = ()) -> str:
    """A section a document: each field with what it holds; the parts that it is made of below. Raises: ConfigError."""
    chosen = _chosen(names)
    lines = [] if names else [HEADER, f"{', '.join(map(_link, chosen))}\n"]
    return "\n".join([*lines, *(line for model in chosen for line in _section(model))])


def _link(model: type[Document]) -> str:
    """To the document's section; a heading's anchor has hyphens for spaces."""
    return f"[{name_of(model)}](#{name_of(model).replace(' ', '-')})"


def name_of(model: type[Document]) -> str:
    """The command of a document, without `trainer`."""
    return str(model.model_fields["document"].default)


def _chosen(names: Sequence[str]) -> tuple[type[Document], ...]:
    known = {name_of(model): model for model in DOCUMENTS}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            *(
                f"trainer schemas: {name!r} is no document{similar(name, known)}, expected one of: {', '.join(known)}"
                for name in unknown
            )
        )
    return tuple(known[name] for name in names) or DOCUMENTS


def _section(model: type[Document]) -> Iterator[str]:
    yield f"## {name_of(model)}\n\n{model.__doc__}\n"
    yield from _table(model)
    for part in _parts(model, {}):
        yield f"### {name_of(model)}: {part.__name__}\n\n{part.__doc__}\n"
        yield from _table(part)


def _table(model: type[Part]) -> Iterator[str]:
    yield "| field | holds | meaning |\n|---|---|---|"
    first = [name for name in ("document", "version") if name in model.model_fields]
    for name in dict.fromkeys([*first, *model.model_fields]):
        info = model.model_fields[name]
        meaning = (info.description or "").replace("|", "\\|").replace("\n", " ")
        yield f"| `{name}` | {_holds(info.annotation)} | {meaning} |"
    yield ""


def _holds(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if argument is type(None) else _holds(argument) for argument in arguments)
    if origin is list:
        return f"list of {_holds(arguments[0])}"
    if origin is dict:
        return f"object of {_holds(arguments[1])}"
    return PLAIN.get(annotation) or annotation.__name__


def _parts(annotation: Any, found: dict[type[Part], None]) -> dict[type[Part], None]:
    """The parts that a document is made of, each once, in the order of their first mention."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        if not issubclass(annotation, Document):
            if annotation in found:
                return found
            found[annotation] = None
        for info in annotation.model_fields.values():
            _parts(info.annotation, found)
    for argument in get_args(annotation):
        _parts(argument, found)
    return found
