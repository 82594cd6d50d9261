"""A config with the settings of an earlier run, or of a job at a fine-tuning service."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trainer.backends.http import Say
from trainer.config.conflicts import given_settings, idle_settings, is_default
from trainer.config.openai import OpenAIConfig
from trainer.config.problems import describe
from trainer.config.schema import RunConfig
from trainer.data.files.new_files import new_files
from trainer.data.quoting import printable
from trainer.data.read.checks import check_files
from trainer.data.rules.row import method_of
from trainer.data.strict_json import parse
from trainer.errors import Attempts, ConfigError, DataError
from trainer.kinds import Kind
from trainer.runs import Run
from trainer.runs.manifest import Role

Sections = dict[str, dict[str, Any]]
OF_A_BACKEND: dict[str, Kind] = {"azureml": "azureml", "openai": "openai"}
# A run's own name, and what its machine had room for: neither changes a result.
OWN = frozenset({"run.name", "run.root", "memory.token_budget", "memory.recompute_layers", "memory.shard_base"})


@dataclass(frozen=True, slots=True)
class GivenRows:
    """Files that take the place of those of the run or the job."""

    train: Path | None = None
    validation: Path | None = None


def clone_run(run: Run, output: Path, rows: GivenRows) -> tuple[Path, ...]:
    """Write a config like that of the run; returns the new file.

    Raises: ConfigError; DataError, where the file exists.
    """
    config = run.config()
    sections: Sections = {}
    for section, name in _chosen(config):
        sections.setdefault(section, {})[name] = _plain(getattr(getattr(config, section), name))
    return _write(output, f"run {run.name}", sections, rows, {})


def clone_job(name: str, settings: OpenAIConfig, output: Path, rows: GivenRows, say: Say) -> tuple[Path, ...]:
    """Write a config like the job's, and its rows beside it where none are given; returns the new files.

    Raises: ConfigError, DataError, BackendError; nothing is written then.
    """
    from trainer.backends.openai.clone import files_of, read_job, settings_of
    from trainer.certificates import use_certificates

    use_certificates()
    attempts = Attempts()
    attempts.make(_refuse_taken, output)
    service, job = read_job(settings, name, say)
    sections = attempts.make(settings_of, job, settings)
    given = {"train": rows.train, "validation": rows.validation}
    wanted: set[Role] = {role for role in ("train", "validation") if given[role] is None}
    found = attempts.make(files_of, service, job, wanted, say)
    attempts.end()
    assert sections is not None
    assert found is not None
    beside = {output.with_name(f"{output.stem}.{role}.jsonl"): content for role, content in found.items()}
    paths = {role: output.with_name(f"{output.stem}.{role}.jsonl") for role in found}
    replaced = GivenRows(rows.train or paths["train"], rows.validation or paths.get("validation"))
    if "method" not in sections["training"]:  # as Azure tells none: the rows do
        sections["training"]["method"] = _method(found.get("train"), rows.train)
    return _write(output, f"job {name} of {service.place}", sections, replaced, beside)


def _refuse_taken(output: Path) -> None:
    """Raises: DataError, where the config would replace a file: known before a service is asked."""
    if output.exists():
        raise DataError(f"{printable(str(output))}: exists already, expected a new file; name another with --output")


def _chosen(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Section and name of every setting that says something: of the run's backend, with a value of its own."""
    values = config.model_dump(mode="json")
    idle = {name for name, _ in idle_settings(config, set(given_settings(values)))}
    for section in type(config).model_fields:
        if OF_A_BACKEND.get(section, config.backend.kind) != config.backend.kind:
            continue
        for name in type(getattr(config, section)).model_fields:
            always = f"{section}.{name}" in ("model.base", "data.train", "backend.kind")
            if f"{section}.{name}" not in OWN | idle and (always or not is_default(config, section, name)):
                yield section, name


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_defaults=True)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _write(output: Path, what: str, sections: Sections, rows: GivenRows, beside: dict[Path, bytes]) -> tuple[Path, ...]:
    """Write all files or none. Raises: ConfigError, DataError."""
    _refuse_taken(output)
    named = {"train": rows.train, "validation": rows.validation}
    data = sections.get("data", {}) | {role: str(path) for role, path in named.items() if path is not None}
    sections = {**sections, "data": data}
    try:
        RunConfig.model_validate(sections)
    except ValidationError as error:
        raise ConfigError(*describe(error, sections, lambda path: what)) from None
    with new_files([output, *beside], [], force=False) as (config, *others):
        for file, content in zip(others, beside.values(), strict=True):
            file.write(content)
        config.write(_text(output, what, sections).encode())
    return (output, *beside)


def _method(fetched: bytes | None, given: Path | None) -> str:
    """The training that rows are for, by the first that has a layout."""
    if fetched is None:
        assert given is not None
        return check_files([given]).method
    values = (parse(line) for line in fetched.decode("utf-8-sig", errors="replace").splitlines() if line.strip())
    return next((method for value in values if isinstance(value, dict) and (method := method_of(value))), "sft")


def _text(output: Path, what: str, sections: Sections) -> str:
    name = shlex.quote(printable(str(output)))
    ordered = {section: sections[section] for section in RunConfig.model_fields if sections.get(section)}
    return (
        f"# The settings of {printable(what)}; its memory is planned anew.\n"
        f"# Check:  train --config {name} --check\n"
        f"# Run:    train --config {name}\n\n"
        f"{yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)}"
    )
