"""`trainer data convert`: other layouts become chat JSONL, and what became of each row is told."""

import shlex
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from trainer.cli.console import Debug, Format, Output, clean, command, out
from trainer.data.quoting import counted
from trainer.errors import SHOWN_PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.data.convert.files import Conversion

SHOWN_PLACES = 5

Force = Annotated[bool, typer.Option("--force", help="Write over files that exist.")]


@command
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, JSON Lines, CSV, TSV or Parquet.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="The new file. Default: beside FILE, as .chat.jsonl."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="prompt=COLUMN,answer=COLUMN", help="Which columns to take; also system=, context=."),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help='Instead of a prompt column: "What is {term}?". Each one makes a row.'),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The system prompt for rows that have none.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="The encoding of FILE, where it is not Unicode.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be converted, and name them.")
    ] = False,
    force: Force = False,
    output_format: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Turn a file of another layout into chat JSONL; the layout is recognized.

    A JSON array, pretty-printed objects, ShareGPT, Alpaca, prompt and completion, preference rows, tables.
    """
    from trainer.data.convert.columns import parse_columns
    from trainer.data.convert.files import convert_file

    conversion = convert_file(
        file,
        output,
        columns=parse_columns(columns, question or []),
        system=system,
        encoding=encoding,
        skip_bad=skip_bad,
        force=force,
    )
    if output_format is Format.json:
        from trainer.cli.documents.data import DataConvert

        skipped = [row._asdict() for row in conversion.skipped]
        DataConvert.model_validate(
            {name: getattr(conversion, name) for name in conversion.__slots__} | {"skipped": skipped}
        ).print()
    else:
        _report(file, conversion)


def _report(file: Path, conversion: "Conversion") -> None:
    made_of = ", ".join(filter(None, (conversion.layout, conversion.encoding)))
    out.print(escape(clean(f"{counted(conversion.num_read, 'row')} read from {file} ({made_of})")))
    _print_counts("converted", conversion.shapes, "green")
    _print_counts("not carried, as a chat row has no place for it", conversion.dropped, "yellow")
    if conversion.num_given_system:
        out.print(f"the system prompt was added to {counted(conversion.num_given_system, 'row')}")
    if conversion.skipped:
        _print_skipped(conversion)
    out.print(escape(clean(f"{counted(conversion.num_written, 'row')} written to {conversion.output}")), style="bold")
    out.print(escape(clean(f"check them: trainer data check {shlex.quote(str(conversion.output))}")))


def _print_counts(title: str, counts: "Mapping[str, int]", style: str) -> None:
    if counts:
        out.print(f"[{style}]{title}[/]")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        out.print(f"  {counted(count, 'row'):>12}  {escape(clean(name))}")


def _print_skipped(conversion: "Conversion") -> None:
    """Each reason once, with the first places."""
    out.print(f"[red]skipped {counted(len(conversion.skipped), 'row')} of {conversion.num_read:,}[/]")
    places: dict[str, list[str]] = defaultdict(list)
    for row in conversion.skipped:
        places[row.reason].append(row.place)
    for reason, found in list(places.items())[:SHOWN_PROBLEMS]:
        shown = found[:SHOWN_PLACES] + [f"{len(found) - SHOWN_PLACES:,} more"] * (len(found) > SHOWN_PLACES)
        text = f"{', '.join(shown)}: {reason}"
        out.print(f"  {escape(clean(text))}")
    if len(places) > SHOWN_PROBLEMS:
        out.print(f"  … and {len(places) - SHOWN_PROBLEMS:,} more reasons")
