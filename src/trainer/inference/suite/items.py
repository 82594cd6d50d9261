"""Items of a suite: the bundled ones, or those of a user's own file, one JSON object a line."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from trainer.config.schema import EvaluationConfig
from trainer.data import strict_json
from trainer.data.conversations import Conversation, Message
from trainer.data.json_scanner import JsonProblem
from trainer.data.render.chat_template import RenderingError
from trainer.data.render.kept_text import check_kept
from trainer.data.render.rendering import Renderer, as_object
from trainer.errors import ConfigError
from trainer.inference.suite.checks import Expectation, Strict, Words

BUNDLED, NO_SUITE = "builtin", "none"
MOST_ITEMS = 2000
MOST_BYTES = 16 * 1024**2
ROLES = ("system", "user", "assistant")


class _Said(Strict):
    role: Words
    content: Words


class _Line(Strict):
    """A line of the file."""

    id: Words
    kind: Words
    messages: list[_Said] = Field(min_length=1)
    tools: list[dict[str, Any]] = []  # noqa: RUF012  # pydantic copies it for each line
    check: Expectation


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """A prompt and what a right answer to it is like."""

    id: str
    kind: str
    prompt: Conversation  # ends with an empty answer, before which the model speaks
    check: Expectation


@dataclass(frozen=True, slots=True)
class Suite:
    """Items under a name; `sha256` is of their file."""

    name: str
    items: tuple[SuiteItem, ...]
    sha256: str

    def of_each_kind(self, most: int) -> "Suite":
        """At most so many items, evenly of every kind and the first ones of each; its digest is another one."""
        if most >= len(self.items):
            return self
        before = Counter[str]()
        ranks = []
        for item in self.items:
            ranks.append(before[item.kind])
            before[item.kind] += 1
        chosen = sorted(sorted(range(len(self.items)), key=lambda number: (ranks[number], number))[:most])
        items = tuple(self.items[number] for number in chosen)
        words = "\n".join([self.sha256, *(item.id for item in items)])
        name = f"{len(items):,} of {len(self.items):,} of {self.name}"
        return Suite(name, items, hashlib.sha256(words.encode()).hexdigest())

    def rendered_by(self, renderer: Renderer) -> "tuple[Suite, dict[str, str]]":
        """The items of which a model's chat template leaves nothing out, and of the others the reason by id."""
        omitted = {item.id: reason for item in self.items if (reason := _left_out(item, renderer))}
        return replace(self, items=tuple(item for item in self.items if item.id not in omitted)), omitted


def _left_out(item: SuiteItem, renderer: Renderer) -> str | None:
    template, tools = renderer.template, [dict(tool) for tool in item.prompt.tools] or None
    messages = [template.adapt(as_object(message)) for message in item.prompt.messages[:-1]]
    try:
        check_kept(messages, tools, template.text(messages, tools, prompt=True))
    except RenderingError as error:
        return str(error)
    return None


def asked_suite(named: str | None, settings: EvaluationConfig) -> str:
    """The suite that is `named`, or that the config asks."""
    return named or (BUNDLED if settings.suite is True else NO_SUITE)


def read_suite(name: str) -> Suite:
    """The suite `builtin`, or the one of a file. Raises: ConfigError, with every line that is wrong."""
    if name == BUNDLED:
        data, shown = files("trainer.inference.suite").joinpath("items.jsonl").read_bytes(), BUNDLED
    else:
        data, shown = _bytes_of(Path(name)), name
    return Suite(shown, _items(data, shown), hashlib.sha256(data).hexdigest())


def _bytes_of(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            size = f"{path.stat().st_size / 1024**2:,.0f} MiB"
            raise ConfigError(f"{path}: got {size}, expected a suite of at most {MOST_BYTES // 1024**2} MiB")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read ({reason}), expected 'builtin' or a file of items") from error


def _items(data: bytes, name: str) -> tuple[SuiteItem, ...]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start:,} is not UTF-8, expected a file of items in UTF-8") from error
    problems, items, places = list[str](), list[SuiteItem](), dict[str, int]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        found = _item(line, name, number)
        if not isinstance(found, SuiteItem):
            problems += found
        elif found.id in places:
            problems.append(
                f"{name}:{number}: id {found.id!r} is that of line {places[found.id]}, expected another one"
            )
        else:
            places[found.id] = number
            items.append(found)
    if not items and not problems:
        problems.append(f"{name}: holds no item, expected one JSON object a line")
    if len(items) > MOST_ITEMS:
        problems.append(f"{name}: holds {len(items):,} items, expected at most {MOST_ITEMS:,}; leave some out")
    if problems:
        raise ConfigError(*problems)
    return tuple(items)


def _item(line: str, name: str, number: int) -> SuiteItem | list[str]:
    place, value = f"{name}:{number}", strict_json.parse(line)
    if isinstance(value, JsonProblem):
        return [f"{place}: {value.found}, expected {value.accepted}"]
    try:
        read = _Line.model_validate(value)
    except ValidationError as error:
        return [f"{place}: {_words(one)}" for one in error.errors()]
    if problems := _misplaced(read, place):
        return problems
    said = tuple(Message(message.role, message.content) for message in read.messages)
    prompt = Conversation((*said, Message("assistant", "")), tuple(read.tools), name, number)
    return SuiteItem(read.id, read.kind, prompt, read.check)


def _words(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"] if part != "json_value") or "the item"
    if error["type"] == "missing":
        return f"{where} is missing, expected id, kind, messages and check"
    if error["type"] == "extra_forbidden":
        return f"{where} is not known; remove it"
    return f"{where}: got {str(error['input'])[:60]!r}, {error['msg'].removeprefix('Value error, ').lower()}"


def _misplaced(line: _Line, place: str) -> list[str]:
    roles = [message.role for message in line.messages]
    problems = [f"{place}: role {role!r}, expected one of {', '.join(ROLES)}" for role in roles if role not in ROLES]
    if roles[-1] != "user":
        problems.append(f"{place}: ends with {roles[-1]!r}, expected a user's message, which the model answers")
    for tool in line.tools:
        if not isinstance(function := tool.get("function"), dict) or not isinstance(function.get("name"), str):
            problems.append(f"{place}: a tool has no function.name, expected the form of the data files")
    return problems


def kinds_of(items: Sequence[SuiteItem]) -> list[str]:
    """Kinds in the order in which they occur."""
    return list(dict.fromkeys(item.kind for item in items))
