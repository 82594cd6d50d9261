"""The two programs: `train`, and `trainer` with everything around it."""

import typer

from trainer.cli import chat, config, control, data, deploy, evaluate, export, init, logs, models, runs, schemas, serve
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


trainer_app.command(name="init")(init.init)
trainer_app.command(name="train", cls=SettingsCommand)(train_command)
trainer_app.command(name="resume", cls=SettingsCommand)(resume_command)
trainer_app.command(name="pause")(control.pause)
trainer_app.command(name="cancel")(control.cancel)
trainer_app.command(name="chat")(chat.chat)
trainer_app.command(name="export")(export.export)
trainer_app.command(name="serve")(serve.serve)
trainer_app.command(name="register")(deploy.register)
trainer_app.command(name="deploy")(deploy.deploy)
trainer_app.command(name="endpoints")(deploy.endpoints)
trainer_app.command(name="teardown")(deploy.teardown)
trainer_app.command(name="models")(models.models)
trainer_app.command(name="evaluate")(evaluate.evaluate)
trainer_app.command(name="compare")(evaluate.compare)
trainer_app.command(name="runs")(runs.list_all)
trainer_app.command(name="show")(runs.show)
trainer_app.command(name="logs")(logs.logs)
trainer_app.command(name="checkpoints")(runs.checkpoints)
trainer_app.command(name="delete")(runs.delete)
trainer_app.command(name="schemas")(schemas.schemas)
trainer_app.add_typer(data.app, name="data")
trainer_app.add_typer(config.app, name="config")


def train() -> None:
    """Entry point of `train`."""
    widen_output()
    train_app()


def trainer() -> None:
    """Entry point of `trainer`."""
    widen_output()
    trainer_app()
