"""The first config of a user: few settings, each with what it is for."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from trainer.config.fields import SUFFIX
from trainer.data.quoting import counted, printable
from trainer.kinds import Kind, Method, is_service, learns_from_pairs

Backend = Kind

TINY = "builtin:tiny"
PROPOSED_BASES: dict[Backend, str] = {
    "local": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "azureml": "Qwen/Qwen2.5-7B-Instruct",
    "openai": "gpt-4.1-mini-2025-04-14",
}
SMALL, LARGE = 5e8, 2.5e9  # parameters: below, a higher rate is needed; above, 4 bits are usual
ROWS_FOR_FIVE_EPOCHS, MOST_EPOCHS = 160, 15  # a small model needs about a hundred updates to show an effect
_IN_A_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of a config. Paths stand as they are written into it."""

    file: str
    base: str
    backend: Backend
    train: str
    validation: str | None
    rows: int
    held_out: int
    service: Literal["azure", "openai"] = "azure"
    method: Method = "sft"


def config_text(wanted: Contents) -> str:
    """The config as YAML, with comments."""
    name = shlex.quote(printable(wanted.file))
    about = (
        f"# {printable(wanted.base)}, fine-tuned on {printable(wanted.train)}.\n"
        f"# Check:  train --config {name} --check\n"
        f"# Run:    train --config {name}\n"
        "# Paths are looked for below the folder in which train is started; all settings: trainer config reference"
    )
    sections = [
        about,
        _model(wanted),
        _data(wanted),
        _training(wanted),
        _backend(wanted),
        *_run(wanted),
    ]
    return "\n\n".join(sections) + "\n"


def num_parameters(base: str) -> float | None:
    """Estimate a base's parameters from its weight files or its name; None where neither tells."""
    if base == TINY:
        return 2e6
    if (Path(base.partition("@")[0]) / "config.yaml").is_file():
        return None  # an earlier run, whose settings are taken over
    if weights := [file.stat().st_size for file in Path(base).glob("*.safetensors")]:
        return sum(weights) / 2  # 16 bits each, as nearly all are kept
    found = _IN_A_NAME.findall(Path(base).name)
    return max((float(number) * {"m": 1e6, "b": 1e9}[unit.lower()] for number, unit in found), default=None)


def suffix_of(file: str) -> str | None:
    """A name for runs, made of that of the config; None where nothing of it can stand in one."""
    made = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file).stem).strip("-")[:40]
    return made if re.fullmatch(SUFFIX, made) else None


def _model(wanted: Contents) -> str:
    size = num_parameters(wanted.base)
    kinds = "a model that the service tunes" if is_service(wanted.backend) else "a hub id, a folder, or runs/NAME"
    lines = ["model:", f"  base: {_scalar(wanted.base)}  # {kinds}"]
    if not is_service(wanted.backend) and size is not None and size > LARGE:
        lines.append("  quantization: nf4  # 4 bit, a quarter of the memory; none: faster where there is room")
    return "\n".join(lines)


def _data(wanted: Contents) -> str:
    lines = ["data:", f"  train: {_scalar(wanted.train)}  # {counted(wanted.rows, 'row')}"]
    if wanted.validation is None:
        lines.append("  # validation: FILE  # rows held out, which show whether it got better: trainer data split")
    else:
        held_out = f"{counted(wanted.held_out, 'row')}, never trained on"
        lines.append(f"  validation: {_scalar(wanted.validation)}  # {held_out}: they show whether it got better")
    return "\n".join(lines)


def _training(wanted: Contents) -> str:
    size = num_parameters(wanted.base)
    if learns_from_pairs(wanted.method):
        lines = ["  method: dpo  # learn from the preferred and the other answer of each row"]
        if is_service(wanted.backend):
            lines.append("  n_epochs: 2  # fixed, so that the price is; auto leaves it to the service")
        else:
            lines += [
                "  n_epochs: 2  # passes over the rows; preferences are learned, and overlearned, sooner than answers",
                "  batch_size: 16  # pairs per update",
                "  learning_rate_multiplier: 0.25  # a lower rate than for answers; less moves the model less",
            ]
    elif is_service(wanted.backend):
        lines = ["  n_epochs: 3  # fixed, so that the price is; auto leaves it to the service"]
    elif wanted.base == TINY:
        lines = [
            "  n_epochs: 60",
            "  batch_size: 8",
            "  learning_rate: 5e-3  # a model this small takes, and needs, a far higher rate than a real one",
        ]
    elif size is not None and size < SMALL:
        lines = [
            f"  n_epochs: {_epochs(wanted.rows)}  # passes over the rows; more for few rows",
            "  batch_size: 8  # conversations per update",
            "  learning_rate_multiplier: 2.5  # small models take a higher rate",
        ]
    else:
        lines = [
            "  n_epochs: auto  # passes over the rows: 3, more for few rows, fewer for very many",
            "  batch_size: auto  # conversations per update",
            "  learning_rate_multiplier: auto  # 2 learns faster, 0.5 more carefully",
        ]
    return "\n".join(["training:", *lines])


def _epochs(rows: int) -> int:
    return max(5, min(MOST_EPOCHS, round(5 * ROWS_FOR_FIVE_EPOCHS / max(rows, 1))))


def _backend(wanted: Contents) -> str:
    return _BACKENDS[wanted.backend].format(service=wanted.service, access=_ACCESS[wanted.service])


_BACKENDS: dict[Backend, str] = {
    "local": "backend:\n  kind: local  # this machine, on its GPU or CPU",
    "azureml": (
        "backend:\n"
        "  kind: azureml  # a job of Azure Machine Learning, in the workspace of az login\n"
        "  spend_cap: 20  # a job that would cost more is refused, and ended in time\n\n"
        "azureml:\n"
        "  instance_type: Standard_NC24ads_A100_v4  # or: compute: NAME, a cluster of the workspace"
    ),
    "openai": (
        "backend:\n"
        "  kind: openai  # the fine-tuning service of Azure OpenAI or OpenAI\n"
        "  spend_cap: 10  # a run whose quote is dearer is refused\n\n"
        "openai:\n  service: {service}  # {access}"
    ),
}
_ACCESS = {
    "azure": "needs AZURE_OPENAI_ENDPOINT, and az login or AZURE_OPENAI_API_KEY; or: openai",
    "openai": "needs OPENAI_API_KEY; or: azure",
}


def _run(wanted: Contents) -> list[str]:
    if (suffix := suffix_of(wanted.file)) is None:
        return []
    return [f"run:\n  suffix: {_scalar(suffix)}  # the end of the run's name, after date, time and base"]


def _scalar(text: str) -> str:
    """A text as a YAML value on one line."""
    return yaml.safe_dump(text, allow_unicode=True, width=10**6).removesuffix("...\n").strip()
