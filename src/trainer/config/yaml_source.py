"""YAML text to plain values that remember the line they stand on."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from trainer.config.yaml_words import character, in_words, unreadable
from trainer.errors import ConfigError, quoted

OCTAL = re.compile(r"[-+]?0[0-7_]+")
MAX_DEPTH = 32
MAX_NODES = 10_000  # aliases can make a short file expand without end

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
    if found := unreadable(text):
        raise ConfigError(f"{file}:{found[0]}: {found[1]}")
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters
        root = loader.get_single_node()
        source.values = None if root is None else _Builder(loader, source).build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise ConfigError(f"{place}: not valid yaml: {in_words(error, text)}") from None
    except yaml.reader.ReaderError as error:
        line, found_there = character(error, text)
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
