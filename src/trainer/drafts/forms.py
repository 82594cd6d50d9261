"""Config as a form: fields made from the schema, typed texts to YAML, and each mistake back to its field.

A form knows texts alone: what somebody typed is kept as it is, right or wrong. An empty text leaves the default.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel

from trainer.config.conflicts import SERVICE_DPO, foreign_settings
from trainer.config.fields import MOST
from trainer.config.schema import DpoConfig, RunConfig
from trainer.kinds import Kind, Method, executes_here, is_service

Widget = Literal["text", "number", "choice", "choices", "lines"]
Texts = Mapping[str, str]

# Sections in the order in which one thinks of them; one that the schema gains comes last, under its own name.
GROUPS = {
    "backend": "Where it trains",
    "azureml": "Where it trains",
    "openai": "Where it trains",
    "model": "Base model",
    "data": "Data",
    "training": "Training",
    "lora": "LoRA, quantization and memory",
    "memory": "LoRA, quantization and memory",
    "evaluation": "Evaluation",
    "tracking": "Evaluation",
    "run": "Name and budget",
}
_ELSEWHERE = {
    "model.quantization": "LoRA, quantization and memory",
    "model.quantize_partly": "LoRA, quantization and memory",
    "model.dtype": "LoRA, quantization and memory",
    "backend.spend_cap": "Name and budget",
}
# Settings that one sees without unfolding a group.
FIRST = frozenset(
    {
        "backend.kind", "azureml.instance_type", "azureml.compute", "openai.service", "openai.training_type",
        "model.base", "data.train", "data.validation", "training.method", "training.n_epochs", "training.batch_size",
        "training.learning_rate_multiplier", "training.seed", "run.name", "run.suffix", "backend.spend_cap",
    }
)  # fmt: skip
TITLES = {
    "backend.kind": "Backend",
    "model.base": "Base model",
    "data.train": "Training data",
    "data.validation": "Validation data",
    "training.n_epochs": "Epochs",
    "training.lr_scheduler_type": "Learning rate schedule",
    "lora.r": "LoRA rank",
    "lora.lora_alpha": "LoRA alpha",
    "lora.lora_dropout": "LoRA dropout",
    "lora.use_rslora": "Rank-stabilized scaling",
    "lora.use_dora": "DoRA",
    "training.dpo.beta": "DPO beta",
    "training.dpo.loss": "DPO loss",
    "training.dpo.sft_weight": "SFT weight",
    "run.name": "Run name",
}
DEFAULT_KIND: Kind = RunConfig.model_fields["backend"].default.kind
OF_THE_SERVER = frozenset({"run.root"})  # the page writes to the folder that it shows
_WHOLE = re.compile(r"[-+]?\d{1,40}")
_NUMBER = re.compile(r"[-+]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][-+]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class FormField:
    """A setting as a form shows it: `takes` is its type in words, `default` the value of an empty text."""

    name: str
    title: str
    sentence: str
    group: str
    widget: Widget
    takes: str
    choices: tuple[str, ...]
    default: str
    required: bool

    @property
    def id(self) -> str:
        """The name as an element's id, in which a dot would begin a class."""
        return self.name.replace(".", "-")

    @property
    def is_first(self) -> bool:
        return self.name in FIRST


@cache
def fields() -> tuple[FormField, ...]:
    """Every setting of the schema, group by group in the schema's order; those of the server are left out."""
    found = [field for field in _fields(RunConfig, "") if field.name not in OF_THE_SERVER]
    order = list(dict.fromkeys([*GROUPS.values(), *(field.group for field in found)]))
    return tuple(sorted(found, key=lambda field: order.index(field.group)))


def honored(kind: Kind, service: str = "azure", method: str = "sft") -> tuple[FormField, ...]:
    """The fields that mean something to a backend."""
    values = {"model": {"base": "-"}, "data": {"train": "-"}, "backend": {"kind": kind}}
    config = RunConfig.model_validate(values | {"openai": {"service": service}, "training": {"method": method}})
    foreign = {f"{section}.{name}" for section, name in foreign_settings(config)}
    foreign |= {"backend.spend_cap"} if executes_here(kind) else set()
    foreign |= (
        {f"training.dpo.{name}" for name in DpoConfig.model_fields.keys() - SERVICE_DPO}
        if is_service(kind)
        else {"backend.auto_deploy"}
    )
    return tuple(field for field in fields() if foreign.isdisjoint(_prefixes(field.name)))


def shown_for(texts: Texts) -> tuple[FormField, ...]:
    """The fields of the backend, service and method that the texts choose; the default's where a choice is none."""
    by_name = {field.name: field for field in fields()}

    def chosen(name: str) -> str:
        text = texts.get(name, "").strip()
        return text if text in by_name[name].choices else by_name[name].default

    kind: Any = chosen("backend.kind")
    return honored(kind, chosen("openai.service"), chosen("training.method"))


def kind_of(texts: Mapping[str, str]) -> Kind:
    """The chosen backend; local where none or no such is."""
    text = texts.get("backend.kind", "").strip()
    return next((kind for kind in get_args(Kind) if kind == text), DEFAULT_KIND)


def method_of(texts: Mapping[str, str]) -> Method:
    """The chosen method of training; sft where none or no such is."""
    text = texts.get("training.method", "").strip()
    return next((method for method in get_args(Method) if method == text), "sft")


def yaml_of(texts: Texts) -> str:
    """The config that the texts ask for; what the chosen backend does not honor is kept in the form alone."""
    values: dict[str, Any] = {}
    for field in shown_for(texts):
        text = texts.get(field.name, "")
        if not text.strip():
            continue
        *sections, last = field.name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = _value(field, text)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10**6) if values else ""


def texts_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The values of a config as a form has them; what is None is left out."""
    names = {field.name for field in fields()}
    texts: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in names:
            if value is not None:
                texts[name] = _text(value)
        elif isinstance(value, Mapping):
            texts |= texts_of(value, f"{name}.")
    return texts


def by_field(problems: Iterable[str], file: str) -> dict[str, list[str]]:
    """Problems of a config by the field, or the section, that each is about; under "" what is about neither.

    `file` is the config's name, with which its problems begin.
    """
    names = {prefix for field in fields() for prefix in _prefixes(field.name)} | set(RunConfig.model_fields)
    found: dict[str, list[str]] = {}
    for problem in problems:
        said = re.sub(rf"^{re.escape(file)}(:\d+){{0,2}}: ", "", problem)
        dotted = found_name[0] if (found_name := re.match(r"[\w.]+(?=:)", said)) else ""
        place = next((name for name in _prefixes(dotted) if name in names), "")
        found.setdefault(place, []).append(said.removeprefix(f"{place}: ") if place == dotted else said)
    return found


def _prefixes(name: str) -> Iterator[str]:
    """`a.b.c`, `a.b` and `a`."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _fields(section: type[BaseModel], prefix: str) -> Iterator[FormField]:
    schema = section.model_json_schema()
    for key, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, f"{prefix}{key}.")
            continue
        name = f"{prefix}{key}"
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        branches = [branch for branch in _branches(schema["properties"][key]) if branch.get("type") != "null"]
        widget, choices = _widget(branches)
        yield FormField(
            name=name,
            title=TITLES.get(name) or key.replace("_", " ").capitalize(),
            sentence=info.description or "",
            group=_ELSEWHERE.get(name) or GROUPS.get(name.partition(".")[0]) or name.partition(".")[0].capitalize(),
            widget=widget,
            takes=" or ".join(dict.fromkeys(filter(None, map(_words, branches)))),
            choices=choices,
            default="" if default is None else _text(default),
            required=info.is_required(),
        )


def _branches(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(schema.get("anyOf", [schema]))


def _widget(branches: list[Mapping[str, Any]]) -> tuple[Widget, tuple[str, ...]]:
    """The element that fits the branches of a field's JSON Schema, and the values to choose from."""
    if lists := [branch for branch in branches if branch.get("type") == "array"]:
        choices = _choices(_branches(lists[0]["items"]))
        return ("choices", choices) if choices else ("lines", ())
    choices = _choices(branches)
    if all(_choices([branch]) for branch in branches):
        return "choice", choices
    is_number = any(branch.get("type") in ("integer", "number") for branch in branches)
    return ("number" if is_number else "text"), choices


def _choices(branches: list[Mapping[str, Any]]) -> tuple[str, ...]:
    found: list[str] = []
    for branch in branches:
        is_flag = branch.get("type") == "boolean"
        found += ["true", "false"] if is_flag else [str(value) for value in branch.get("enum", ())]
        found += [str(branch["const"])] if "const" in branch else []
    return tuple(found)


def _words(branch: Mapping[str, Any]) -> str:
    """A branch in words: `a whole number from 1 to 10,000`."""
    if "const" in branch or "enum" in branch:
        return ", ".join(_choices([branch]))
    kinds = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    if branch.get("type") == "array":
        return "a list, one a line"
    low = f"from {branch['minimum']:,}" if "minimum" in branch else ""
    low = f"above {branch['exclusiveMinimum']:,}" if "exclusiveMinimum" in branch else low
    high = f"to {branch['maximum']:,}".removesuffix(".0") if branch.get("maximum", MOST) != MOST else ""
    high = f"below {branch['exclusiveMaximum']:,}" if "exclusiveMaximum" in branch else high
    return " ".join(filter(None, [kinds.get(str(branch.get("type")), ""), low, high]))


def _value(field: FormField, text: str) -> Any:
    """The value that a text stands for. One of another form stays text, for the schema to refuse it in words."""
    stripped = text.strip()
    if field.widget in ("lines", "choices"):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if field.widget == "lines" and len(lines) == 1 and not lines[0].startswith("{") and "text" in field.takes:
            return lines[0]
        return lines[0] if lines == [field.default] and lines[0] in field.takes else [_entry(line) for line in lines]
    if field.widget == "choice" and stripped in ("true", "false"):
        return stripped == "true"
    if field.widget == "number" and _WHOLE.fullmatch(stripped):
        return int(stripped)
    if field.widget == "number" and _NUMBER.fullmatch(stripped):
        return float(stripped)
    return stripped


def _entry(line: str) -> Any:
    """An entry of a list: a text, or a mapping such as {path: rows.jsonl, weight: 2}."""
    if line.startswith("{"):
        try:
            value = yaml.safe_load(line)
        except (yaml.YAMLError, ValueError, RecursionError):
            return line
        return value if isinstance(value, dict) else line
    return line


def _text(value: Any) -> str:
    """A value as somebody would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "\n".join(map(_text, value))
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return yaml.safe_dump(
            dict(value), default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False
        ).strip()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
