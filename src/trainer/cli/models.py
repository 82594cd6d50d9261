"""`trainer models`: what the fine-tuning service of a config can tune, and until when."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, Format, Output, clean, command, out, print_rows, say
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from datetime import date

    from trainer.backends.contract import ServiceModel

COLUMNS = (
    "model", "listed as tunable", "methods", "training types", "tuned until", "new customers until", "answers until",
    "lifecycle",
)  # fmt: skip


@command
def models(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="A config of the openai backend.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. openai.service=openai.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also models that cannot be fine-tuned.")] = False,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """List the models that the fine-tuning service can tune: methods, training types, last days."""
    from trainer.backends.choose import choose_service
    from trainer.config.load import load_config

    settings = load_config(config, overrides or [])
    service = choose_service(settings.backend.kind)
    if service is None:
        raise ConfigError(f"backend.kind: is {settings.backend.kind!r}, expected 'openai', whose service has a list")
    listed = service.models(settings, every, say)
    if output is Format.json:
        from trainer.cli.documents.plans import Models, model_of

        Models(models=[model_of(model) for model in listed]).print()
        return
    if not listed:
        out.print("no model is listed that can be fine-tuned")
        return
    print_rows(COLUMNS, map(_row, listed))


def _row(model: "ServiceModel") -> tuple[str, ...]:
    can = {True: "yes", False: "no", None: "not said"}[model.can_tune]
    days = map(_day, (model.tuning_until, model.new_customers_until, model.inference_until))
    lists = map(", ".join, (model.methods, model.training_types))
    return (clean(model.name), can, *lists, *days, clean(model.lifecycle))


def _day(day: "date | None") -> str:
    return "" if day is None else day.isoformat()
