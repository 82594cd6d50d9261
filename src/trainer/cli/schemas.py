"""`trainer schemas`: what commands print with `--format json`, for people and as JSON Schema."""

import json
from typing import Annotated

import typer

from trainer.cli.console import Debug, Format, Output, command, print_as_is


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
