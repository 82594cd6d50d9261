"""`trainer data doctor`: which training rows of a run deserve a look, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from trainer.cli.console import Debug, Format, Output, Root, RunName, command, loading, out, say
from trainer.cli.console import clean as printable
from trainer.cli.convert import Force
from trainer.data.quoting import counted
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.workshop.doctor.examine import Diagnosis

SHOWN_ROWS = 20


@command
def doctor(
    run: RunName,
    checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="Measure with this checkpoint instead of the run's adapter.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="FILE", help="Examine these rows instead of the run's own.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="How many rows are shown.")] = SHOWN_ROWS,
    jsonl: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Write every row's numbers, a line each.")
    ] = None,
    force: Force = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Find training rows of RUN that deserve a look: hard after training, unexplained, contradicted, or known before.

    Changes nothing. The loss of each row is measured before and after the run's adapter.
    """
    from trainer.data.files.new_files import refuse_new_files
    from trainer.runs import find_run
    from trainer.workshop.doctor.run_rows import find_adapter, trained_files

    if force and jsonl is None:
        raise ConfigError("--force: is given without --output, expected both or none; remove it")
    found = find_run(run, root)
    find_adapter(found, checkpoint)
    sources = list(data or [Path(source.path) for source in trained_files(found)])
    if jsonl is not None:
        refuse_new_files([jsonl], sources, force=force)
    with loading():
        from trainer.training.prepare import be_quiet

        be_quiet()  # before peft imports bitsandbytes, which speaks then
        from trainer.workshop.doctor.examine import examine, write_rows
    diagnosis = examine(found, checkpoint, data or [], say)
    if jsonl is not None:
        write_rows(diagnosis, jsonl, sources, force=force)
    if output is Format.json:
        from trainer.cli.documents.data import DataDoctor

        DataDoctor.model_validate(diagnosis.to_json(rows) | {"written": jsonl}).print()
        return
    _report(diagnosis, rows)
    if jsonl is not None:
        say(f"rows  {printable(str(jsonl))}")


def _report(diagnosis: "Diagnosis", count: int) -> None:
    told = diagnosis.to_json(count)
    for row in told["suspects"]:
        place = escape(printable(f"{row['file']}:{row['line']}"))
        out.print(f"[bold]{place}[/]  score {row['score']:.1f}, loss {_losses(row)}", soft_wrap=True)
        out.print(f"  [dim]{escape(printable(row['question']))}[/]", soft_wrap=True)
        out.print(f"  {escape(printable(row['answer']))}", soft_wrap=True)
        for reason in row["reasons"]:
            out.print(f"  - {escape(printable(reason))}", soft_wrap=True)
    for note in told["notes"]:
        out.print(escape(printable(note)), style="dim", soft_wrap=True)
    shown = counted(len(told["suspects"]), "row")
    out.print(
        f"{counted(told['rows'], 'row')} measured, {told['rows_with_reasons']:,} with a reason, {shown} shown; "
        f"the median loss fell from {told['median_before']:.2f} to {told['median_after']:.2f}",
        style="bold",
    )


def _losses(row: "dict[str, float]") -> str:
    elsewhere = "" if row["loss_elsewhere"] is None else f", {row['loss_elsewhere']:.2f} behind other questions"
    return f"{row['loss_before']:.2f} before and {row['loss_after']:.2f} after training{elsewhere}"
