"""`trainer models`: what the fine-tuning service of a config can tune, and until when."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import Debug, Format, Output, command, out, say
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from datetime import date


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
    """List the models that the fine-tuning service can tune, with the dates when they retire."""
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
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("model", "can be tuned", "tuned until", "answers until", "lifecycle"):
        table.add_column(column)
    for model in listed:
        can = {True: "yes", False: "no", None: "not said"}[model.can_tune]
        cells = (model.name, can, _day(model.tuning_until), _day(model.inference_until), model.lifecycle)
        table.add_row(*map(escape, cells))
    out.print(table if table.row_count else "no model is listed that can be fine-tuned")


def _day(day: "date | None") -> str:
    return "" if day is None else day.isoformat()
