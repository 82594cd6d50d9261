"""A YAML file and `key=value` overrides become a RunConfig, or one error that names every mistake."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trainer.config.conflicts import foreign_settings, given_settings, idle_settings, is_default, was_resolved
from trainer.config.problems import describe
from trainer.config.schema import RunConfig
from trainer.config.yaml_source import YamlSource, parse_yaml
from trainer.errors import ConfigError, quoted

Settings = TypeVar("Settings", bound=BaseModel)
KINDS: dict[type, str] = {list: "a list", str: "a text", int: "a number", float: "a number"}


def load_config(path: Path | None, overrides: Sequence[str] = (), together: bool = True) -> RunConfig:
    """Read `path`, apply overrides such as `training.n_epochs=1`, and validate the whole tree.

    Without a path the overrides are all there is.

    `together` also refuses what would have no effect beside the other settings. A run's own config holds all numbers,
    chosen or not, so of one only the overrides are looked at.

    Raises: ConfigError, with all mistakes of the file and of the overrides.
    """
    source = parse_yaml("" if path is None else _read(path), str(path))
    source.values = {} if source.values is None else source.values
    if not isinstance(source.values, dict):
        raise ConfigError(
            f"{path}: holds {KINDS.get(type(source.values), 'a value')}, expected sections such as model: and data:"
        )
    if "messages" in source.values:
        raise ConfigError(f"{path}: is a row of a data file, expected a config; name the file in it as data.train")
    is_own = was_resolved(source.values)
    from_file = () if is_own else tuple(given_settings(source.values))
    if is_own:
        _rename(source.values["training"])
    origins = dict(_apply(source, overrides))
    try:
        config = RunConfig.model_validate(source.values)
    except ValidationError as error:
        found = describe(error, source.values, lambda at: _written_at(source, origins, at))
        raise ConfigError(*source.problems, *found) from None
    given = {*from_file, *map(".".join, origins)} if together else set()
    idle = [
        f"{_written_at(source, origins, tuple(name.split('.')))}: {said}" for name, said in idle_settings(config, given)
    ]
    if problems := [*source.problems, *idle]:
        raise ConfigError(*problems)
    return config


def load_settings(path: Path, tree: type[Settings], advice: str) -> Settings:
    """Read a YAML file of another tree than a run's; `advice` is for whoever has none.

    Raises: ConfigError, with all of its mistakes.
    """
    source = parse_yaml(_read(path, advice), str(path))
    source.values = {} if source.values is None else source.values
    if not isinstance(source.values, dict):
        raise ConfigError(
            f"{path}: holds {KINDS.get(type(source.values), 'a value')}, expected sections such as "
            f"{next(iter(tree.model_fields))}:"
        )
    try:
        settings = tree.model_validate(source.values)
    except ValidationError as error:
        raise ConfigError(*source.problems, *describe(error, source.values, source.place, tree)) from None
    if source.problems:
        raise ConfigError(*source.problems)
    return settings


def dump_config(config: RunConfig) -> str:
    """YAML that `load_config` reads back into an equal config, without what means nothing to its backend and method."""
    values = config.model_dump(mode="json")
    for section, name in foreign_settings(config):
        if is_default(config, section, name):
            del values[section][name]
    return yaml.safe_dump({section: fields for section, fields in values.items() if fields}, sort_keys=False)


def _rename(training: dict[str, Any]) -> None:
    """Read what a stored run calls by an earlier name."""
    if "beta" in training and "dpo" not in training:
        training["dpo"] = {"beta": training.pop("beta")}


def _read(path: Path, advice: str = "write one with: trainer init") -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a yaml config{_meant(path, advice)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not utf-8, expected utf-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _meant(path: Path, advice: str) -> str:
    """`, did you mean c.yaml?`, of the configs beside it: only names are compared, as all share the folder."""
    names = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f", did you mean {path.parent / near[0]}?" if near else f"; {advice}"


def _apply(source: YamlSource, overrides: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Write the overrides into the values; yields each path with the words the user typed."""
    for text in overrides:
        place = f"override {quoted(text)}"
        dotted, equals, value = text.partition("=")
        path = tuple(dotted.split("."))
        if not equals or not all(path):
            source.problems.append(f"{place}: not understood, expected section.name=value")
            continue
        try:
            parsed = parse_yaml(value, place)
            section = _section(source.values, path[:-1])
        except ConfigError as error:
            source.problems.extend(error.problems)
        except TypeError as error:
            source.problems.append(f"{place}: {error} is not a section")
        else:
            source.problems.extend(parsed.problems)
            section[path[-1]] = parsed.values
            yield path, place


def _section(values: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    for depth, key in enumerate(path):
        inner = values.setdefault(key, {})
        if inner is None:
            inner = values[key] = {}
        if not isinstance(inner, dict):
            raise TypeError(".".join(path[: depth + 1]))
        values = inner
    return values


def _written_at(source: YamlSource, origins: dict[tuple[str, ...], str], path: tuple[str | int, ...]) -> str:
    """The override that wrote at, above or below `path`, else the place in the file."""
    for given, origin in reversed(origins.items()):
        shorter = min(len(given), len(path))
        if given[:shorter] == path[:shorter]:
            return origin
    return source.place(path)
