"""`trainer config`: every setting, for editors and for people."""

import json

import typer

from trainer.cli.console import Debug, command, print_as_is

app = typer.Typer(help="Every setting: as JSON Schema for editors, or as a reference.", no_args_is_help=True)


@app.command()
@command
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of the config file, which editors use to complete and check it."""
    from trainer.config.reference import json_schema

    print_as_is(json.dumps(json_schema(), indent=2))


@app.command()
@command
def reference(debug: Debug = False) -> None:
    """Print every setting with its default and its meaning, in Markdown."""
    from trainer.config.reference import markdown

    print_as_is(markdown().rstrip("\n"))
