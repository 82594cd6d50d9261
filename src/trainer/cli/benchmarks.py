"""`trainer evaluate RUN --tasks`: published benchmarks of base and tuned model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from trainer.cli.console import Format, loading, out, say
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run


def refuse_mixed(tasks: str | None, own: Mapping[str, object], benchmarks: Mapping[str, object]) -> None:
    """Refuse options of the comparison with --tasks, and those of --tasks without it. Raises: ConfigError."""
    if tasks is not None and not tasks.strip(", "):
        raise ConfigError("--tasks: is empty, expected names of tasks, such as hellaswag,arc_easy; name some")
    words = "is given with --tasks, expected benchmarks alone; remove it, or run two commands"
    if tasks is None:
        words, own = "is given without --tasks, expected both; add --tasks TASK,…", benchmarks
    if stray := [name for name, value in own.items() if value is not None]:
        raise ConfigError(*(f"{name}: {words}" for name in stray))


def run_tasks(
    run: Run,
    names: tuple[str, ...],
    folder: Path | None,
    limit: int | None,
    num_fewshot: int | None,
    chat: bool,
    output: Format,
) -> int:
    """Run published benchmarks, write them into the run's report, and print them."""
    from trainer.inference.benchmarks import BenchmarkSettings, find_tasks, run_benchmarks
    from trainer.inference.report.run_report import own_report, write_report

    own_report(run, "that benchmarks can join")
    settings = BenchmarkSettings(names, folder, limit, num_fewshot, chat)
    with loading("the tasks"):
        index = find_tasks(settings)
    found = run_benchmarks(run, settings, index, say)
    page = write_report(run, own_report(run, "that benchmarks can join") | {"benchmarks": found}, replace=True)
    if output is Format.json:
        from trainer.cli.documents.benchmarks import benchmarked

        benchmarked(run, found, page).print()
        return ExitCode.DONE
    show_benchmarks(found)
    say(f"report  {page}")
    return ExitCode.DONE


def show_benchmarks(found: Mapping[str, Any]) -> None:
    """Print each metric of both models with its standard error."""
    from rich.table import Table

    from trainer.inference.report.run_page import benchmarks_view

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("task", "metric", "base", "tuned"):
        table.add_column(title, justify="left" if title in ("task", "metric") else "right")
    view = benchmarks_view({"benchmarks": found}) or {"rows": []}
    for row in view["rows"]:
        table.add_row(*map(escape, (row["task"], row["metric"], *row["values"])))
    out.print(table)
