"""`trainer data split`: a file as rows to train on and rows held out."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import Debug, Format, Output, clean, command, out, say
from trainer.cli.convert import Force
from trainer.data.quoting import counted
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.data.files.split import Split

SHOWN_PROMPTS = 10
SHOWN_PROMPT_CHARS = 60


@command
def split(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chat JSONL file.")],
    validation_share: Annotated[
        float | None, typer.Option(metavar="SHARE", help="The share of rows to hold out. Default: 0.1.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(metavar="N", help="How many rows to hold out, instead of a share.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which rows: the same seed and file give the same rows.")] = 42,
    output_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where both files go. Default: beside FILE.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(metavar="OUT", help="The rows to train on. Default: FILE's name with .train.jsonl.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(metavar="OUT", help="The rows held out. Default: FILE's name with .validation.jsonl.")
    ] = None,
    force: Force = False,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Divide a file into rows to train on and rows held out, copied byte for byte.

    Rows of each system prompt are held out in proportion. Duplicates, rows with the same prompt, and rows that
    continue one another stay on one side.
    """
    from trainer.backends.data_sources import local_file
    from trainer.data.files.split import split_file

    if rows is not None and validation_share is not None:
        raise ConfigError("--rows: is given beside --validation-share, expected one of the two; remove one")
    share = 0.1 if validation_share is None else validation_share
    if not 0 < share < 1:
        raise ConfigError(f"--validation-share: is {share:g}, expected a share between 0 and 1; 0.1 is usual")
    source = local_file(file, say)
    folder, stem = output_dir or source.beside.parent, source.beside.stem
    made = split_file(
        source.path,
        train or folder / f"{stem}.train.jsonl",
        validation or folder / f"{stem}.validation.jsonl",
        share=share,
        num_rows=rows,
        seed=seed,
        force=force,
    )
    if output is Format.json:
        from trainer.cli.documents.data import DataSplit

        DataSplit.model_validate(made).print()
    else:
        _report(made)


def _report(made: "Split") -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("system prompt", overflow="fold")
    table.add_column("train", justify="right")
    table.add_column("held out", justify="right")
    for share in made.shares[:SHOWN_PROMPTS]:
        table.add_row(_shown(share.prompt), f"{share.num_train:,}", f"{share.num_validation:,}")
    if others := made.shares[SHOWN_PROMPTS:]:
        counts = (sum(share.num_train for share in others), sum(share.num_validation for share in others))
        table.add_row(f"[dim]{len(others):,} others[/]", *(f"{count:,}" for count in counts))
    out.print(table)
    if made.num_validation < made.num_wanted:
        out.print(
            f"[yellow]{counted(made.num_wanted, 'row')} were wanted: groups that stay together do not fit exactly[/]"
        )
    if made.num_together:
        out.print(f"{counted(made.num_together, 'row')} stay beside others that ask the same or continue them")
    if made.num_blank:
        out.print(f"{made.num_blank:,} blank lines were dropped")
    for count, path in ((made.num_train, made.train), (made.num_validation, made.validation)):
        out.print(escape(clean(f"{counted(count, 'row')} written to {path}")), style="bold")
    settings = " ".join(shlex.quote(f"data.{name}={getattr(made, name)}") for name in ("train", "validation"))
    method = " training.method=dpo" * made.has_pairs
    out.print(escape(clean(f"train on them: train --config FILE {settings}{method}")))


def _shown(prompt: str | None) -> str:
    if prompt is None:
        return "[dim]none[/]"
    return escape(clean(prompt if len(prompt) <= SHOWN_PROMPT_CHARS else f"{prompt[: SHOWN_PROMPT_CHARS - 1]}…"))
