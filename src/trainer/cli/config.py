"""`trainer config` and `trainer schemas`: every setting and every document, for programs and for people."""

import json
from typing import Annotated

import typer

from trainer.cli.console import Debug, Format, Output, command, print_as_is

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


@command
def schemas(
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="DOCUMENT...", help="Only these, such as runs or 'data check'.")
    ] = None,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Print what commands answer with --format json: in Markdown, or with --format json as JSON Schema."""
    from trainer.cli.documents.reference import json_schema, markdown

    if output is Format.json:
        print_as_is(json.dumps(json_schema(documents or []), indent=2))
    else:
        print_as_is(markdown(documents or []).rstrip("\n"))
