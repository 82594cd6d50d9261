"""`trainer data stats`: what data files hold, in numbers, as a histogram, and as a page of charts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import Debug, Format, Output, clean, command, loading, out, say
from trainer.data.quoting import counted, printable
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.data.files.languages import Languages
    from trainer.data.files.stats import RowStatistics, SideStatistics, Spread, Statistics, TokenStatistics

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
    html: Annotated[Path | None, typer.Option(metavar="OUT", help="Write charts as a page for the browser.")] = None,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Measure data files: rows, turns, characters, languages, duplicates; with a config also tokens."""
    from trainer.backends.data_sources import local_files
    from trainer.data.files.stats import measure_files

    files, validation = ([file.path for file in local_files(paths, say)] for paths in (files, validation or []))
    if html is not None:
        _refuse_page(html, [*files, *validation], output)
    if config is None:
        measured = measure_files(files, validation)
    else:
        from trainer.config.load import load_config
        from trainer.model.lineage import refuse_model

        paths = json.dumps([str(file) for file in files])
        settings = load_config(config, [f"data.train={paths}", "data.validation="], together=False)
        refuse_model(settings)
        with loading():
            from trainer.training.step_tokens import token_counter

            counter = token_counter(settings)
        measured = measure_files(files, validation, counter)
    if output is Format.json:
        from trainer.cli.documents.data import DataStats

        DataStats.model_validate(measured.to_json()).print()
        return
    _print(measured)
    if config is None:
        say("for tokens add --config CONFIG")
    if html is not None:
        from trainer.inference.report.data_page import data_page
        from trainer.runs.files import write_page

        write_page("--html", html, data_page(", ".join(printable(str(file)) for file in files), measured.to_json()))
        say(f"page  {printable(str(html))}")


def _refuse_page(page: Path, files: list[Path], output: Format) -> None:
    """Raises: MissingDependency; ConfigError, where the page is one of the files, or exists and is none of ours."""
    from trainer.extras import need
    from trainer.runs.files import refuse_other_file

    if output is Format.json:
        raise ConfigError("--html: is given with --format json, expected one of them; remove one")
    if page.resolve() in {file.resolve() for file in files}:
        raise ConfigError(
            f"--html: {printable(str(page))} is a file that is measured, expected another one; choose another name"
        )
    refuse_other_file("--html", page)
    need("--html", "jinja2", extra="workshop")


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


def _print_part(title: str, part: "SideStatistics") -> None:
    rows, tokens = part.rows, part.tokens
    out.print(f"[bold]{counted(rows.rows, 'row')} {title}[/]")
    measures = {"turns": rows.turns, "characters": rows.characters}
    if rows.pairs is not None:
        measures |= {"  preferred": rows.pairs.preferred_characters, "  other": rows.pairs.other_characters}
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
    if rows.pairs is None:
        yield "answers", f"{rows.answers:,}, {rows.untrained_answers:,} of them with weight 0"
    else:
        num_rows = rows.rows - rows.rows_with_errors
        yield (
            "pairs",
            f"the preferred answer is longer in {rows.pairs.preferred_longer:,} of {num_rows:,} rows",
        )
    if rows.rows_with_tools:
        yield "tools", f"in {counted(rows.rows_with_tools, 'row')}, with {rows.tool_calls:,} calls"
    yield "roles", ", ".join(f"{count:,} {escape(clean(role))}" for role, count in rows.roles.items())
    if rows.languages is not None:
        yield "languages", _languages(rows.languages)
    if not rows.duplicates and not rows.near_duplicates:
        yield "duplicates", "none"
    else:
        yield "duplicates", f"[yellow]{rows.duplicates:,}, and {rows.near_duplicates:,} more but for white space[/]"
    if rows.same_prompts:
        yield (
            "same prompt",
            f"[yellow]{counted(rows.same_prompts, 'row')} ask what another row asks, with another answer[/]",
        )


def _languages(found: "Languages") -> str:
    from trainer.data.files.languages import UNDETERMINED, name_of

    most = list(found.by_code.items())[:SHOWN_PLACES]
    shown = ", ".join(f"{name_of(code)} {count:,}" for code, count in most if code != UNDETERMINED)
    unsure = f"{found.by_code.get(UNDETERMINED, 0):,} undetermined"
    sure = "" if found.confidence is None else f"; median confidence {found.confidence:.2f}"
    return ", ".join(filter(None, [shown, unsure])) + sure


def _token_facts(tokens: "TokenStatistics") -> Iterator[tuple[str, str]]:
    total = tokens.tokens.total
    yield "trained", f"{tokens.supervised.total:,} of {total:,} tokens ({tokens.supervised_share:.1%})"
    repeated = f"{total - tokens.unique:,} tokens ({tokens.shared_prefix_share:.1%})"
    yield "shared prefix", f"{repeated} repeat how another row begins; a prefix tree computes them once"
    if steps := tokens.steps:
        packed = f"{steps.computed:,} tokens in {counted(steps.counted_steps, 'step')} of {steps.rows_per_step:,} rows"
        more = f"{steps.fewer_than_unshared:.2f} times as many without sharing, {steps.fewer_than_padded:.2f} padded"
        yield "packing", f"{packed}; {more} (a count of tokens, not of time)"
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
