"""`trainer data clean`: what is legal in a file and yet bad, and a copy without it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from trainer.cli.console import Debug, Format, Output, command, loading, out, print_as_is, progress_bars, say
from trainer.cli.console import clean as printable
from trainer.cli.convert import Force
from trainer.data.quoting import counted
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.workshop.clean.clean import Cleaning, FaultLimits
    from trainer.workshop.clean.findings import FaultList

SHOWN_FAULTS = 3
SHOWN_LINES = 10
COLORS = {"edit": "cyan", "remove": "yellow", "leave": "magenta"}
REMEDIES = {"edit": "edited", "remove": "removed", "leave": "left to you"}


def _print_kinds(wanted: bool) -> None:
    if wanted:
        from trainer.workshop.clean.kinds import markdown

        print_as_is(markdown().rstrip("\n"))
        raise typer.Exit


Kinds = Annotated[
    bool,
    typer.Option("--kinds", callback=_print_kinds, is_eager=True, help="Print every kind of fault, in Markdown."),
]


@command
def clean(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Chat or preference rows without an error.")],
    validation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A held-out file; rows like its rows are leaks.")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Write a cleaned copy and a log of the changes.")] = False,
    copy: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="The cleaned copy. Default: beside FILE, as .clean.jsonl."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="KIND,…", help="Look for these kinds only.")] = None,
    skip: Annotated[list[str] | None, typer.Option(metavar="KIND,…", help="Do not look for these kinds.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="KIND,…", help="Remove rows of these kinds, which are left to you else.")
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="How much of prompts and of answers near duplicates share.")
    ] = 0.8,
    max_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The longest row, in characters; in tokens with --base.")
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="BASE", help="Measure rows in the tokens of this base.")] = None,
    force: Force = False,
    show_all: Annotated[bool, typer.Option("--all", help="Print every fault, not the first of each kind.")] = False,
    output: Output = Format.text,
    kinds: Kinds = False,
    debug: Debug = False,
) -> None:
    """Find what is legal in FILE and yet bad: repeats, leaks, contradictions, debris, damage, secrets.

    With --fix a copy is written, and FILE stays as it is.
    """
    from trainer.backends.data_sources import local_file, local_files
    from trainer.data.files.new_files import refuse_new_files
    from trainer.workshop.clean.clean import examine, log_of, write_copy
    from trainer.workshop.clean.findings import KEPT_FINDINGS
    from trainer.workshop.clean.kinds import choose

    if not fix and (copy is not None or force):
        option = "--output" if copy is not None else "--force"
        raise ConfigError(f"{option}: is given without --fix, expected both or none; add --fix or remove it")
    choice = choose(only or [], skip or [], remove or [])
    held_out = [found.path for found in local_files(validation or [], say)]
    source = local_file(file, say)
    file, written = source.path, copy or source.beside.with_name(f"{source.beside.stem}.clean.jsonl")
    if fix:
        refuse_new_files([written, log_of(written)], [file, *held_out], force=force)
    shown = None if show_all else KEPT_FINDINGS if output is Format.json else SHOWN_FAULTS
    limits = _limits(file, similarity, max_length, base, shown)
    with progress_bars() as stage:
        cleaning = examine(file, held_out, choice, limits, stage)
        log = write_copy(cleaning, written, held_out, choice=choice, force=force, stage=stage) if fix else None
    if output is Format.json:
        from trainer.cli.documents.data import DataClean

        copied = None if log is None else {"file": str(written), "rows": cleaning.num_left, "log": str(log)}
        DataClean.model_validate(cleaning.to_json() | {"written": copied}).print()
        return
    _report(cleaning, show_all)
    if log is None:
        _advise(cleaning)
        return
    out.print(escape(printable(f"{counted(cleaning.num_left, 'row')} written to {written}")), style="bold")
    out.print(escape(printable(f"every change is in {log}")))


def _limits(
    file: Path, similarity: float, max_length: int | None, base: str | None, findings: int | None
) -> "FaultLimits":
    """Bounds in characters; with `base` in its tokens. Raises: MissingDependency, ConfigError."""
    from trainer.workshop.clean.clean import MAX_CHARACTERS, FaultLimits

    if base is None:
        return FaultLimits(similarity, max_length or MAX_CHARACTERS, findings=findings)
    with loading():
        from trainer.workshop.clean.tokens import TokenCounter

        counter = TokenCounter(base, file)
    return FaultLimits(similarity, max_length or counter.max_length, counter, findings)


def _report(cleaning: "Cleaning", show_all: bool) -> None:
    found = list(cleaning.faults)
    for faults in found:
        for fault in faults.faults:
            out.print(f"[{COLORS[faults.remedy]}]{faults.remedy:<6}[/] {escape(printable(str(fault)))}")
        if hidden := faults.num_faults - len(faults.faults):
            out.print(f"[dim]… and {hidden:,} more of {faults.kind}; lines {_lines(faults)}[/]")
    if found:
        out.print()
    for faults in found:
        rows = counted(len(faults.lines), "row")
        out.print(f"{faults.kind:<16} {rows:>12}  [{COLORS[faults.remedy]}]{REMEDIES[faults.remedy]}[/]")
    rows = counted(cleaning.rows, "row") + (
        f" and {cleaning.held_out_rows:,} held out" if cleaning.held_out_rows else ""
    )
    if not found:
        out.print(f"{rows}: [green]nothing was found[/]")
        return
    out.print(
        f"{rows}: {cleaning.num_removed:,} to remove, {cleaning.num_edited:,} to edit, {cleaning.num_left:,} left"
    )


def _lines(faults: "FaultList") -> str:
    shown = [f"{line}" for line in faults.lines[:SHOWN_LINES]]
    return ", ".join(shown) + (", …" if len(faults.lines) > SHOWN_LINES else "")


def _advise(cleaning: "Cleaning") -> None:
    if cleaning.num_removed or cleaning.num_edited:
        say(f"to write a copy without them: trainer data clean {shlex.quote(str(cleaning.file))} --fix")
