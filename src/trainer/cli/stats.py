"""`trainer data stats`: what data files hold, in numbers and as a histogram."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import Debug, Format, Output, clean, command, loading, out, say
from trainer.data.quoting import counted

if TYPE_CHECKING:
    from trainer.data.files.stats import Part, RowStatistics, Spread, Statistics, TokenStatistics

SHOWN_PLACES = 5
BAR_WIDTH = 50
LABEL_WIDTH = 14


@command
def stats(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Training files in chat JSONL format.")],
    validation: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A held-out file.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="CONFIG", help="Count the tokens of its model.")
    ] = None,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Measure data files: rows, turns, characters, duplicates; with a config also tokens."""
    from trainer.data.files.stats import measure_files

    if config is None:
        measured = measure_files(files, validation or [])
    else:
        from trainer.config.load import load_config
        from trainer.model.lineage import refuse_model

        paths = json.dumps([str(file) for file in files])
        settings = load_config(config, [f"data.train={paths}", "data.validation="], together=False)
        refuse_model(settings)
        with loading():
            from trainer.training.prepare import read

            reading = read(settings)
        measured = measure_files(files, validation or [], reading.renderer, reading.max_length)
    if output is Format.json:
        from trainer.cli.documents.data import DataStats

        DataStats.model_validate(measured.to_json()).print()
        return
    _print(measured)
    if config is None:
        say("for tokens add --config CONFIG")


def _print(measured: "Statistics") -> None:
    _print_part("to train on", measured.train)
    if measured.train.tokens is not None:
        total = measured.train.tokens.tokens.total
        out.print(f"\nan epoch is {total:,} tokens; a service that trains on these rows bills about as many")
    if measured.validation is None:
        return
    out.print()
    _print_part("held out", measured.validation)
    leaks = f"[red]{counted(measured.leaks, 'row')} held out and trained on too[/]" if measured.leaks else "none"
    out.print(f"\nleaks: {leaks}")


def _print_part(title: str, part: "Part") -> None:
    rows, tokens = part.rows, part.tokens
    out.print(f"[bold]{counted(rows.rows, 'row')} {title}[/]")
    measures = {"turns": rows.turns, "characters": rows.characters}
    if tokens is not None:
        measures |= {"tokens": tokens.tokens, "trained tokens": tokens.supervised}
    _print_spreads(measures)
    facts = [*_row_facts(rows), *(_token_facts(tokens) if tokens is not None else ())]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, text in facts:
        grid.add_row(name, text)
    out.print(grid)
    name = "characters" if tokens is None else "tokens"
    _print_histogram(f"{name} a row", measures[name])


def _print_spreads(measures: "dict[str, Spread]") -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("a row has", min_width=LABEL_WIDTH)
    for name in ("min", "median", "p95", "max", "in all"):
        table.add_column(name, justify="right")
    for name, spread in measures.items():
        ends = (f"{value:,}" for value in (spread.p95, spread.max, spread.total))
        table.add_row(name, f"{spread.min:,}", f"{spread.median:,g}", *ends)
    out.print(table)


def _row_facts(rows: "RowStatistics") -> Iterator[tuple[str, str]]:
    if rows.rows_with_errors:
        yield (
            "errors",
            f"[red]in {counted(rows.rows_with_errors, 'row')}, left out here; run: trainer data check FILE[/]",
        )
    without = rows.rows_without_system_prompt
    yield (
        "system prompts",
        f"{rows.system_prompts:,} different" + f", {counted(without, 'row')} without one" * (without > 0),
    )
    yield "answers", f"{rows.answers:,}, {rows.untrained_answers:,} of them with weight 0"
    if rows.rows_with_tools:
        yield "tools", f"in {counted(rows.rows_with_tools, 'row')}, with {rows.tool_calls:,} calls"
    if not rows.duplicates and not rows.near_duplicates:
        yield "duplicates", "none"
    else:
        yield "duplicates", f"[yellow]{rows.duplicates:,}, and {rows.near_duplicates:,} more but for white space[/]"
    if rows.same_prompts:
        yield (
            "same prompt",
            f"[yellow]{counted(rows.same_prompts, 'row')} ask what another row asks, with another answer[/]",
        )


def _token_facts(tokens: "TokenStatistics") -> Iterator[tuple[str, str]]:
    total = tokens.tokens.total
    yield "trained", f"{tokens.supervised.total:,} of {total:,} tokens ({tokens.supervised_share:.1%})"
    repeated = f"{total - tokens.unique:,} tokens ({tokens.shared_prefix_share:.1%})"
    yield "shared prefix", f"{repeated} repeat how another row begins; a prefix tree computes them once"
    yield "too long", _places(tokens.over_length, f"over {tokens.max_length:,} tokens (data.max_length)")
    if tokens.rows_of_several_examples:
        found = counted(tokens.rows_of_several_examples, "row")
        yield "history", f"{found} become several examples, as the chat template rewrites earlier turns"
    if tokens.refused:
        yield "refused", f"[red]{counted(len(tokens.refused), 'row')} that the chat template cannot render exactly[/]"
        for problem in tokens.refused[:SHOWN_PLACES]:
            yield "", escape(clean(problem))


def _places(places: tuple[str, ...], what: str) -> str:
    if not places:
        return f"no row {what}"
    shown = ", ".join([*places[:SHOWN_PLACES], *["…"] * (len(places) > SHOWN_PLACES)])
    return f"[red]{counted(len(places), 'row')} {what}: {escape(clean(shown))}[/]"


def _print_histogram(title: str, spread: "Spread") -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(title, justify="right", min_width=LABEL_WIDTH)
    table.add_column(width=min(BAR_WIDTH, out.width // 2))
    table.add_column("rows", justify="right")
    most = max(column.rows for column in spread.histogram)
    for column in spread.histogram:
        label = f"{column.first:,} or more" if column.last is None else f"{column.first:,} to {column.last:,}"
        table.add_row(label, Bar(most, 0, column.rows, color="green"), f"{column.rows:,}")
    out.print()
    out.print(table)
