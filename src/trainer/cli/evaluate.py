"""`trainer evaluate` and `trainer compare`: whether a fine-tune got better, and which of several is the best."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from trainer.cli.console import Debug, Root, RunName, command, err, out, say
from trainer.runs import find_run

MAX_NAME = 100  # characters of a page's name
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
    replace: Annotated[
        bool, typer.Option("--replace", help="Make this the run's report, which trainer compare reads.")
    ] = False,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> int:
    """Compare a run's model with its base on held-out rows, as a run does at its end.

    The run's report is replaced by one of the same or more rows; any other is written beside it.
    """
    found = find_run(run, root)

    if found.config().memory.shard_base is True:
        from trainer.training.launch import in_processes

        if (code := in_processes(sys.argv[1:], say)) is not None:
            return code
    from trainer.backends import local
    from trainer.training.ranks import join

    result = local.evaluate(found, err, rows, max_rows, max_new_tokens, join(), replace)
    show_measures(result)
    out.print(escape(result["verdict"]["sentence"]), style="bold")
    for remark in result["verdict"]["remarks"]:
        out.print(remark, markup=False, soft_wrap=True)
    page = Path(result.get("page", found.report / "report.html"))  # the first process writes it
    say(f"report  {page}")
    if page.stem != "report":
        say("the run's own report was kept, since this one has fewer rows, or others; --replace puts it in its place")
    return 0


@command
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or folders of two or more runs.")],
    output: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The page's file.")] = None,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Put several runs and their base side by side, on the same held-out rows.

    Takes what each run's own report holds, and computes nothing anew.
    """
    from rich.table import Table

    from trainer.inference.report.compare import write_comparison
    from trainer.inference.report.standings import table

    found = [find_run(name, root) for name in runs]
    page = output or root / f"{'-vs-'.join(run.name for run in found)[:MAX_NAME]}.html"
    sentence, ranked = write_comparison(found, page)
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", *(model.name for model in ranked)):
        shown.add_column(escape(title), justify="right" if title else "left")
    for row in table(ranked):
        shown.add_row(row["title"], *(cell["value"] for cell in row["cells"]))
    out.print(shown)
    out.print(escape(sentence), style="bold")
    say(f"page  {page}")


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
