"""`trainer evaluate` and `trainer compare`: whether a fine-tune got better, and which of several is the best."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from trainer.cli.console import Debug, Root, RunName, command, err, out, say
from trainer.runs import find_run

TONES = {"good": "green", "bad": "red", "": "default"}


@command
def evaluate(
    run: RunName,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Held-out rows of yours instead of the run's validation rows.")
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N rows, drawn at random.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cut an answer off after N tokens.")
    ] = None,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Compare a run's model with its base on held-out rows, and write the run's report.

    This is what a run does at its end; its earlier report is replaced.
    """
    found = find_run(run, root)

    from trainer.backends import local

    result = local.evaluate(found, err, rows, max_rows, max_new_tokens)
    show_measures(result)
    out.print(escape(result["verdict"]["sentence"]), style="bold")
    say(f"report  {found.report / 'report.html'}")


def show_measures(result: Mapping[str, Any]) -> None:
    """The measures of base and tuned model as a table."""
    from rich.table import Table

    from trainer.inference.report.write import measure_rows

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "base", "tuned", "difference", "95% interval"):
        table.add_column(column, justify="left" if not column else "right")
    for row in measure_rows(result):
        change = f"[{TONES[row['tone']]}]{row['change']}[/]"
        table.add_row(row["title"], row["base"], row["tuned"], change, row["interval"])
    out.print(table)
