"""The two programs: `train`, and `trainer` with everything around it."""

import typer

from trainer.cli import (
    api,
    chat,
    config,
    control,
    data,
    deploy,
    evaluate,
    export,
    init,
    logs,
    migrate,
    models,
    queue,
    runs,
    serve,
    sizes,
    sweep,
    ui,
)
from trainer.cli.console import Version
from trainer.cli.narrow_output import widen_output
from trainer.cli.settings_words import SettingsCommand
from trainer.cli.train import resume as resume_command
from trainer.cli.train import train as train_command

SETTINGS = {"help_option_names": ["-h", "--help"]}

train_app = typer.Typer(add_completion=False, context_settings=SETTINGS, pretty_exceptions_enable=False)
train_app.command(name="train", cls=SettingsCommand)(train_command)

trainer_app = typer.Typer(
    name="trainer",
    help="Fine-tune chat language models: check the data, train, look, try.",
    no_args_is_help=True,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
)


@trainer_app.callback()
def _about(version: Version = False) -> None:
    """Take what stands before a command."""


DATA, TRAIN, LOOK, USE, CLOUD = "data", "train", "look at runs", "use a model", "cloud"  # as one goes from data to use

trainer_app.command(name="init", rich_help_panel=DATA)(init.init)
trainer_app.add_typer(data.app, name="data", rich_help_panel=DATA)
trainer_app.command(name="train", cls=SettingsCommand, rich_help_panel=TRAIN)(train_command)
trainer_app.command(name="resume", cls=SettingsCommand, rich_help_panel=TRAIN)(resume_command)
trainer_app.command(name="pause", rich_help_panel=TRAIN)(control.pause)
trainer_app.command(name="cancel", rich_help_panel=TRAIN)(control.cancel)
trainer_app.command(name="migrate", cls=SettingsCommand, rich_help_panel=TRAIN)(migrate.migrate)
trainer_app.command(name="sweep", cls=SettingsCommand, rich_help_panel=TRAIN)(sweep.sweep)
trainer_app.add_typer(queue.app, name="queue", rich_help_panel=TRAIN)
trainer_app.add_typer(config.app, name="config", rich_help_panel=TRAIN)
trainer_app.command(name="runs", rich_help_panel=LOOK)(runs.list_all)
trainer_app.command(name="show", rich_help_panel=LOOK)(runs.show)
trainer_app.command(name="logs", rich_help_panel=LOOK)(logs.logs)
trainer_app.command(name="checkpoints", rich_help_panel=LOOK)(runs.checkpoints)
trainer_app.command(name="evaluate", rich_help_panel=LOOK)(evaluate.evaluate)
trainer_app.command(name="compare", rich_help_panel=LOOK)(evaluate.compare)
trainer_app.command(name="ui", rich_help_panel=LOOK)(ui.ui)
trainer_app.command(name="delete", rich_help_panel=LOOK)(runs.delete)
trainer_app.command(name="schemas", rich_help_panel=LOOK)(config.schemas)
trainer_app.command(name="chat", rich_help_panel=USE)(chat.chat)
trainer_app.command(name="export", rich_help_panel=USE)(export.export)
trainer_app.command(name="serve", rich_help_panel=USE)(serve.serve)
trainer_app.command(name="api", rich_help_panel=USE)(api.api)
trainer_app.command(name="models", rich_help_panel=CLOUD)(models.models)
trainer_app.command(name="sizes", rich_help_panel=CLOUD)(sizes.sizes)
trainer_app.command(name="register", rich_help_panel=CLOUD)(deploy.register)
trainer_app.command(name="deploy", rich_help_panel=CLOUD)(deploy.deploy)
trainer_app.command(name="endpoints", rich_help_panel=CLOUD)(deploy.endpoints)
trainer_app.command(name="teardown", rich_help_panel=CLOUD)(deploy.teardown)


def train() -> None:
    """Entry point of `train`."""
    widen_output()
    train_app()


def trainer() -> None:
    """Entry point of `trainer`."""
    widen_output()
    trainer_app()
