"""The old job's settings as a config for an open base, and what in them means something else there."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from trainer.backends.openai.client import Record
from trainer.backends.openai.clone import Sections, settings_of
from trainer.config.openai import OpenAIConfig
from trainer.config.problems import describe
from trainer.config.schema import RunConfig
from trainer.data.quoting import printable
from trainer.data.read.checks import check_files
from trainer.errors import ConfigError
from trainer.runs import files
from trainer.runs.manifest import Role
from trainer.start.config_text import LARGE, num_parameters

Place = Literal["local", "azureml"]
RATES = 0.1, 4.0  # multiples of the usual rate of LoRA: beyond them it learns nothing, or falls apart
MACHINE = "Standard_NC24ads_A100_v4"  # of Azure ML, as trainer init proposes it
NO_RUN_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def translated(
    job: Record, settings: OpenAIConfig, base: str, place: Place, rows: Mapping[Role, Path], name: str
) -> tuple[Sections, list[str]]:
    """Sections of the config, and a sentence for each setting that is not simply the same.

    Raises: ConfigError, for a job of a method that is not trained here.
    """
    old = settings_of(job, settings, "SOURCE") if job else {"training": {}}
    training, said = dict(old["training"]), list[str]()
    if (rate := training.pop("learning_rate_multiplier", None)) is not None:
        kept, words = _rate(rate)
        said.append(words)
        training |= {} if kept is None else {"learning_rate_multiplier": kept}
    if "method" not in training:  # as Azure tells none: the rows do
        training["method"] = check_files([rows["train"]]).method
    model: dict[str, Any] = {"base": base}
    if (size := num_parameters(base)) is not None and size > LARGE:
        model["quantization"] = "nf4"
        said.append(
            "model.quantization is nf4 (QLoRA), as the base is large; the service kept its own format to itself"
        )
    said += _same(training)
    run = {"name": NO_RUN_NAME.sub("-", name).strip("-")[:80]} | old.get("run", {})
    sections: Sections = {
        "model": model,
        "data": {role: str(path) for role, path in rows.items()},
        "training": training,
        "backend": {"kind": place},
        "run": run,
    }
    return sections | ({"azureml": {"instance_type": MACHINE}} if place == "azureml" else {}), said


def _rate(rate: float) -> tuple[float | None, str]:
    least, most = RATES
    words = (
        f"the job's learning rate multiplier was {rate:g}, of a rate that the service does not publish; here it "
        "multiplies 2e-4, the usual rate of LoRA"
    )
    if least <= rate <= most:
        return rate, f"{words}: a first guess, try half and double of it"
    return None, f"{words}, which would be out of bounds ({least:g} to {most:g}): left to auto"


def _same(training: Mapping[str, Any]) -> list[str]:
    names = [name for name in ("n_epochs", "batch_size", "seed") if name in training]
    words = [f"{', '.join(names)}: as the job had them"] if names else []
    if "dpo" in training:
        words.append(f"dpo.beta {training['dpo']['beta']:g}: as the job had it; the reference is the base here too")
    return words


def write_config(path: Path, source: str, sections: Sections, said: list[str]) -> None:
    """Write the new config. Raises: ConfigError, where it would be none."""
    try:
        RunConfig.model_validate(sections)
    except ValidationError as error:
        raise ConfigError(*describe(error, sections, lambda path: f"{source} on {sections['model']['base']}")) from None
    name = shlex.quote(printable(str(path)))
    ordered = {section: sections[section] for section in RunConfig.model_fields if sections.get(section)}
    notes = "".join(f"# - {line}\n" for line in said)
    files.write_whole(
        path,
        f"# {printable(source)}, moved to {printable(sections['model']['base'])}.\n{notes}"
        f"# Check:  train --config {name} --check\n"
        f"# Run:    trainer migrate {shlex.quote(printable(source))}, again\n\n"
        f"{yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)}",
    )
