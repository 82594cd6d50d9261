"""Pydantic's errors in our words: one line a mistake, with its place and the nearest right name."""

from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainer.config.schema import RunConfig
from trainer.errors import quoted, similar

Path = tuple[str | int, ...]

# What users of other trainers type first, and what it is called here.
FOREIGN_NAMES = {
    "base_model": "model.base",
    "model_name_or_path": "model.base",
    "load_in_4bit": "model.quantization: nf4",
    "load_in_8bit": "model.quantization: int8",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_target": "lora.target_modules",
    "lora_target_modules": "lora.target_modules",
    "lora_target_linear": "lora.target_modules: all-linear",
    "dataset": "data.train",
    "datasets": "data.train",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "sequence_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "cutoff_len": "data.max_length",
    "epochs": "training.n_epochs",
    "num_epochs": "training.n_epochs",
    "num_train_epochs": "training.n_epochs",
    "lr": "training.learning_rate",
    "optim": "training.optimizer",
    "optimizer_name": "training.optimizer",
    "warmup_steps": "training.warmup_ratio (a share of the steps)",
    "max_steps": "training.n_epochs (passes over the rows)",
    "logging_interval": "training.logging_steps",
    "evaluation_steps": "training.eval_steps",
    "eval_batch_size": "memory.token_budget (it is planned by itself)",
    "per_device_eval_batch_size": "memory.token_budget (it is planned by itself)",
    "train_batch_size": "training.batch_size (conversations per optimizer step)",
    "gradient_checkpointing": "memory.recompute_layers",
    "clip_grad_norm": "training.max_grad_norm",
    "gradient_clipping": "training.max_grad_norm",
    "random_seed": "training.seed",
    "weight_decay_rate": "training.weight_decay",
    "alpha": "lora.lora_alpha",
    "rank": "lora.r",
    "dropout": "lora.lora_dropout",
    "max_len": "data.max_length",
    "train_dataset": "data.train",
    "training_file": "data.train",
    "dataset_path": "data.train",
    "eval_dataset": "data.validation",
    "eval_file": "data.validation",
    "val_file": "data.validation",
    "valid_file": "data.validation",
    "val": "data.validation",
    "valid": "data.validation",
    "val_data": "data.validation",
    "validation_data": "data.validation",
    "train_data": "data.train",
    "model_path": "model.base",
    "max_seq_len": "data.max_length",
    "quantize": "model.quantization",
    "qlora": "model.quantization: nf4",
    "model_id": "model.base",
    "model_name": "model.base",
    "pretrained_model_name_or_path": "model.base",
    "bf16": "model.dtype: bfloat16",
    "fp16": "model.dtype: float16",
    "torch_dtype": "model.dtype",
    "run_name": "run.name",
    "lr_scheduler": "training.lr_scheduler_type",
    "micro_batch_size": "training.batch_size (conversations per optimizer step)",
    "per_device_train_batch_size": "training.batch_size (conversations per optimizer step)",
    "gradient_accumulation_steps": "training.batch_size (conversations per optimizer step)",
    "output_dir": "run.root and run.name",
    "report_to": "tracking.report_to",
    "beta": "training.dpo.beta",
    "dpo_beta": "training.dpo.beta",
    "pref_beta": "training.dpo.beta",
    "loss_type": "training.dpo.loss",
    "pref_loss": "training.dpo.loss",
    "dpo_label_smoothing": "training.dpo.label_smoothing",
    "rpo_alpha": "training.dpo.sft_weight",
    "pref_ftx": "training.dpo.sft_weight",
}


def describe(
    error: ValidationError, values: Any, place: Callable[[Path], str], tree: type[BaseModel] = RunConfig
) -> list[str]:
    """One `place: field: what was found, what is accepted` a mistake, in the order of the schema, which is `tree`."""
    by_field: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors():
        by_field.setdefault(_path_in(values, detail), []).append(detail)
    # Of a union, pydantic also reports the branches that were not meant: for a bad entry of a list, that it is no text.
    inner = [path for path in by_field if not any(path == other[: len(path)] for other in by_field if other != path)]
    return [f"{place(path)}: {_sentence(path, by_field[path], tree)}" for path in inner]


def _path_in(values: Any, detail: ErrorDetails) -> Path:
    """The error's location without the names of union branches, which pydantic appends."""
    path: Path = ()
    part: Any
    for part in detail["loc"]:
        if (isinstance(values, dict) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        ):
            values = values[part]
        elif detail["type"] == "missing" and part == detail["loc"][-1]:
            pass
        else:
            continue
        path = (*path, part)
    return path


def _sentence(path: Path, details: list[ErrorDetails], tree: type[BaseModel]) -> str:
    name, first = ".".join(map(str, path)), details[0]
    match first["type"]:
        case "extra_forbidden":
            return f"{name}: unknown field{suggestion(path, tree)}"
        case "missing":
            return f"{name}: missing; add it{_example(path)}"
        case "both_set":
            return f"{name}: {first['msg']}"
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    return f"{name}: is {quoted(first['input'])}, expected {expected}{_as_section(path, first['input'])}"


def _as_section(path: Path, value: Any) -> str:
    """Spell the section out, where its one required setting, or nothing, stands in its place."""
    required = {"model": "base", "data": "train"}.get(".".join(map(str, path)))
    if value is None and len(path) == 1:
        return "; indent its settings by two spaces"
    if not required or not isinstance(value, str) or not value:
        return ""
    if value.startswith(f"{required}:"):
        return f"; put a space behind the colon of {required}:"
    return f", such as {{{required}: {value}}}"


def _expected(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "literal_error":
            return str(context["expected"])
        case "greater_than":
            return f"a number above {context['gt']:g}"
        case "greater_than_equal":
            return f"a number of at least {context['ge']:g}"
        case "less_than_equal":
            return f"a number of at most {context['le']:,}".removesuffix(".0")
        case "less_than":
            return f"a number below {context['lt']:g}"
        case "int_type" | "int_parsing" | "int_from_float":
            return "a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            return "a number"
        case "bool_type" | "bool_parsing":
            return "true or false"
        case "string_type":
            return "text (in quotes where it looks like a number)"
        case "form":
            return str(context["expected"])
        case "string_too_short" | "too_short":
            return "something that is not empty"
        case "list_type":
            return "a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "a section of settings"
        case _:
            return detail["msg"].lower()


def _example(path: Path) -> str:
    examples = {
        ("model",): ", for example model: {base: builtin:tiny}",
        ("data",): ", for example data: {train: rows.jsonl}",
        ("model", "base"): ", for example base: builtin:tiny",
        ("data", "train"): ", for example train: rows.jsonl",
    }
    return examples.get(tuple(map(str, path)), "")


def suggestion(path: Path, tree: type[BaseModel] = RunConfig) -> str:
    """`, did you mean …?` for an unknown key: a foreign name, a near one here, or one of another section."""
    key = str(path[-1])
    if "." in key and key in field_names(tree):
        section, _, name = key.rpartition(".")
        return f", write it below its section: {section}: {{{name}: …}}"
    if tree is RunConfig and key in FOREIGN_NAMES:
        return f", it is called {FOREIGN_NAMES[key]} here"
    here = list(_section_at(path[:-1], tree).model_fields)
    if near := similar(key, here):
        return near
    elsewhere = [dotted for dotted in field_names(tree) if dotted.rsplit(".", 1)[-1] == key]
    return similar(key, [key], shown=elsewhere) if elsewhere else f", expected {', '.join(here)}"


def _section_at(path: Path, section: type[BaseModel]) -> type[BaseModel]:
    """The section whose keys stand at `path`; an entry of a list belongs to the field that holds the list."""
    for part in path:
        if isinstance(part, str) and (info := section.model_fields.get(part)):
            section = _model_in(info.annotation) or section
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)


def field_names(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every setting's dotted name, in the order of the schema."""
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from field_names(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
