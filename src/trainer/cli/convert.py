"""`trainer data convert`: other layouts become chat JSONL, and the treatment of each row is said."""

import shlex
from collections import defaultdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from trainer.cli.console import Debug, Format, Output, clean, command, out, say
from trainer.data.quoting import counted
from trainer.errors import SHOWN_PROBLEMS, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.data.convert.files import Conversion

SHOWN_PLACES = 5


class RowKind(StrEnum):
    """Rows to write, by the training that they are for."""

    sft = "sft"
    dpo = "dpo"


Force = Annotated[bool, typer.Option("--force", help="Write over files that exist.")]


@command
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, JSON Lines, CSV, TSV, Excel or Parquet.")],
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
    to: Annotated[
        RowKind, typer.Option(help="Chat rows (sft), or preference rows with both answers (dpo).")
    ] = RowKind.sft,
    no_thoughts: Annotated[
        bool, typer.Option("--no-thoughts", help="Leave out thoughts before answers, as the openai backend takes none.")
    ] = False,
    force: Force = False,
    output_format: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Turn a file of another layout into chat JSONL; the layout is recognized.

    A JSON array, pretty-printed objects, ShareGPT, Alpaca, prompt and completion, preference rows, tables, Excel,
    Anthropic, Gemini, batches of requests, Glaive, xLAM. It also mends chat rows that a check refuses.
    """
    from trainer.backends.data_sources import local_file
    from trainer.data.convert.files import convert_file, default_output
    from trainer.data.layouts.columns import parse_columns

    if to is RowKind.dpo and (columns is not None or question):
        given = "--question" if columns is None else "--columns"
        raise ConfigError(
            f"{given}: is given with --to dpo, expected rows with prompt, chosen and rejected, or another layout of "
            "two answers; remove it, and rename the columns in the file"
        )
    source = local_file(file, say)
    conversion = convert_file(
        source.path,
        output or default_output(source.beside, to.value),
        columns=parse_columns(columns, question or []),
        system=system,
        encoding=encoding,
        skip_bad=skip_bad,
        force=force,
        method=to.value,
        thoughts=not no_thoughts,
    )
    if output_format is Format.json:
        from trainer.cli.documents.data import DataConvert

        skipped = [row._asdict() for row in conversion.skipped]
        DataConvert.model_validate(
            {name: getattr(conversion, name) for name in conversion.__slots__} | {"skipped": skipped}
        ).print()
    else:
        _report(file, conversion, to)


def _report(file: Path, conversion: "Conversion", to: RowKind) -> None:
    made_of = ", ".join(filter(None, (conversion.layout, conversion.encoding)))
    out.print(escape(clean(f"{counted(conversion.num_read, 'row')} read from {file} ({made_of})")))
    _print_counts("converted", conversion.shapes, "green")
    kind = "chat" if to is RowKind.sft else "preference"
    _print_counts(f"not carried, as a {kind} row has no place for it", conversion.dropped, "yellow")
    if to is RowKind.sft and conversion.shapes["preference"]:
        out.print("preference rows keep both answers with --to dpo")
    if conversion.num_given_system:
        out.print(f"the system prompt was added to {counted(conversion.num_given_system, 'row')}")
    if conversion.num_without_thoughts:
        out.print(f"the thoughts were left out of {counted(conversion.num_without_thoughts, 'row')}")
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
