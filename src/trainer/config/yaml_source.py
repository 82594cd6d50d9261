"""YAML text to plain values that remember the line they stand on.

Parser errors read as somebody who has never written a parser would put them, with a remedy.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from trainer.errors import ConfigError, quoted

OCTAL = re.compile(r"[-+]?0[0-7_]+")
MAX_DEPTH = 32
MAX_NODES = 10_000  # aliases can make a short file expand without end
MERGE = (
    "a merge that git could not finish, expected yaml; keep one of the two versions, and "
    "remove the lines of <<<<<<<, ======= and >>>>>>>"
)
TAB = "a tab, expected spaces; replace it by two spaces"
# By what the parser's own words hold; the first that fits.
_WORDS = (
    ("'\\t'", TAB),
    (
        "expected <block end>",
        "a line that is indented unlike those beside it; give all settings of a section the same spaces",
    ),
    (
        "could not find expected ':'",
        "a line without a colon, expected name: value; add it, or indent the line like the text that it continues",
    ),
    ("<stream end>", "it ends inside of a bracket or quote; close it"),
    ("unexpected end of stream", "it ends inside of a bracket or quote; close it"),
    ("expected ',' or '", "a bracket that is not closed before this place, or a comma that is missing; add it"),
    ("unknown escape character", "a backslash in double quotes; take single quotes, or / in a path"),
    ("but found another document", "a second document, expected one; remove the line ---"),
    (
        "a constructor for the tag",
        "a value that begins with !, expected a plain one; put it in quotes where it is text",
    ),
    ("undefined alias", "a value that begins with *, expected a plain one; put it in quotes"),
    ("that cannot start any token", "a character that no value can begin with; put the value in quotes"),
    (
        "expected alphabetic or numeric character",
        "a value that begins with *, & or %, expected a plain one; put it in quotes",
    ),
)
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1's, by which the parser counts lines
_SPACE = re.compile(r"[ \t]*(?P<other>[^\S \t\r\n])")

Path = tuple[str | int, ...]


@dataclass
class YamlSource:
    """A parsed file: its values, and for each path of keys the line of its key."""

    file: str
    values: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def place(self, path: Path) -> str:
        """`file:line` of the deepest part of `path` that stands in the file, else `file`."""
        for length in range(len(path), 0, -1):
            if line := self.lines.get(path[:length]):
                return f"{self.file}:{line}"
        return self.file


def parse_yaml(text: str, file: str) -> YamlSource:
    """Parse one YAML document without building objects; duplicate keys are collected in `problems`.

    Raises: ConfigError, when the text is not YAML at all.
    """
    source = YamlSource(file)
    if found := _unreadable(text):
        raise ConfigError(f"{file}:{found[0]}: {found[1]}")
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters
        root = loader.get_single_node()
        source.values = None if root is None else _Builder(loader, source).build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise ConfigError(f"{place}: not valid yaml: {_in_words(error, text)}") from None
    except yaml.reader.ReaderError as error:
        line, found_there = _character(error, text)
        raise ConfigError(f"{file}:{line}: not valid yaml: {found_there}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: not valid yaml: {error}") from None
    return source


class _Builder:
    """Walks the node tree once, noting lines, duplicate keys and excess."""

    def __init__(self, loader: yaml.SafeLoader, source: YamlSource) -> None:
        self.loader, self.source, self.num_nodes = loader, source, 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_NODES:,} values or nested deeper than {MAX_DEPTH}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        kind = str(node.tag).rsplit(":", 1)[-1]
        if kind in ("int", "float") and ":" in node.value:
            return node.value  # YAML 1.1 counts in sixties: 1:30 would be 90
        if kind == "int" and OCTAL.fullmatch(node.value):
            problem = (
                f"{quoted(node.value)} is {int(node.value.replace('_', ''), 8)} to YAML 1.1 and another number to "
                "YAML 1.2; write it without the 0 at its beginning, or in quotes where it is text"
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            return self.loader.construct_object(node)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, AttributeError, TypeError):  # what `!!int foo` or 2024-13-45 ends in
            problem = f"{quoted(node.value)} is no value of the type {kind}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self.source.lines.setdefault(path, node.start_mark.line + 1)
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*path, key)
            dotted = ".".join(map(str, here))
            if not isinstance(key_node, yaml.ScalarNode) or key == "<<":
                self.source.problems.append(f"{self.source.file}:{line}: {dotted}: not a plain key, expected a name")
            elif key in values:
                first = self.source.lines[here]
                self.source.problems.append(
                    f"{self.source.file}:{line}: {dotted}: given twice, first on line {first}; remove one"
                )
            else:
                self.source.lines[here] = line
                values[key] = self.build(value_node, here)
        return values


def _unreadable(text: str) -> tuple[int, str] | None:
    """The line that cannot be part of any config, with what it is: a mark of git, or a space that is none to YAML."""
    for number, line in enumerate(_LINE_BREAK.split(text), 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            return number, MERGE
        if (found := _SPACE.match(line)) and line.strip():
            return number, f"the space {found['other']!r} at its beginning, expected plain ones; type them anew"
    return None


def _in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    """The parser's error in plain words, with a remedy."""
    problem, lines = str(error.problem or error.context), _LINE_BREAK.split(text)
    if "=======" in lines:
        return MERGE
    if "mapping values are not allowed" in problem and error.problem_mark is not None:
        return _second_colon(lines, error.problem_mark.line)
    if _is_json_lines(text) and "<document start>" in problem:
        return "one JSON object a line, as in a data file, expected a config; name the file in it as data.train"
    return next((words for found, words in _WORDS if found in problem), problem)


def _second_colon(lines: list[str], at: int) -> str:
    """A colon stands where none can: on its own line, or because of the line before."""
    line, before = lines[at], next((line for line in reversed(lines[:at]) if line.strip()), "")
    if line.count(":") == 1 and before and _indent(line) > _indent(before):
        if ":" not in before:
            return f"the line before it has no colon, expected one; write {before.strip()}: there"
        return "a line that is indented deeper than the one before it, which has a value already; indent both alike"
    return "a second colon on its line, expected name: value; put a text with ': ' in quotes, or each setting on a line"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_json_lines(text: str) -> bool:
    return text.lstrip().startswith("{") and len(text.strip().splitlines()) > 1


def _character(error: yaml.reader.ReaderError, text: str) -> tuple[int, str]:
    """The line of a character that YAML does not allow, and which it is."""
    line = len(_LINE_BREAK.split(text[: error.position]))
    found = error.character if isinstance(error.character, int) else error.character[0]
    return line, f"the character U+{found:04X}, expected text; remove it"
