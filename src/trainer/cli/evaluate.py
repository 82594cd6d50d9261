"""`trainer evaluate` and `trainer compare`: whether a fine-tune got better, and which of several is the best."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from trainer.cli.benchmarks import refuse_mixed, run_tasks
from trainer.cli.console import Debug, Format, Output, Root, RunName, clean, command, err, loading, out, say
from trainer.cli.judge import judged, refuse_stray
from trainer.cli.train import Yes
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run, find_run

if TYPE_CHECKING:
    from trainer.inference.report.standings import Contestant, Judgement

MAX_NAME = 100  # characters of a page's name
TONES = {"good": "green", "bad": "red", "": "default"}

GateName = Annotated[
    Literal["better", "not-worse"] | None,
    typer.Option("--gate", help="End with exit code 3 unless the run is so, by more than chance."),
]


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
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="builtin|none|FILE", help="General items that show what was lost. Default: as configured."
        ),
    ] = None,
    suite_items: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most N items of the suite, evenly of every kind.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="TASK,…", help="Published benchmarks of lm-eval, which join the run's report. Alone."),
    ] = None,
    tasks_path: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Task files of yours, for --tasks.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N questions of each of --tasks.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Examples before each question of --tasks.")
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Put the questions of --tasks into the chat template.")
    ] = False,
    gate: GateName = None,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Compare a run's model with its base on held-out rows, as a run does at its end.

    The run's report is replaced by one of the same or more rows; any other is written beside it.
    With --gate the exit code is 3 where the run is not better than its base, or is worse, by more than chance.
    With --tasks nothing is compared: the benchmarks join the report that is there.
    """
    from trainer.backends.data_sources import local_file

    found = find_run(run, root)
    comparing: dict[str, object] = {
        "--rows": rows,
        "--max-rows": max_rows,
        "--max-new-tokens": max_new_tokens,
        "--suite": suite,
        "--suite-items": suite_items,
    }
    comparing |= {"--gate": gate, "--replace": replace or None}
    benchmarks: dict[str, object] = {"--tasks-path": tasks_path, "--limit": limit, "--num-fewshot": num_fewshot}
    benchmarks["--apply-chat-template"] = apply_chat_template or None
    refuse_mixed(tasks, comparing, benchmarks)
    if tasks is not None:
        names = tuple(name.strip() for name in tasks.split(",") if name.strip())
        return run_tasks(found, names, tasks_path, limit, num_fewshot, apply_chat_template, output)
    rows = None if rows is None else local_file(rows, say).path
    _refuse_at_once(found, rows, suite, suite_items)

    if found.config().memory.shard_base is True:
        from trainer.training.launch import in_processes

        if (code := in_processes(sys.argv[1:], say)) is not None:
            return code
    with loading():
        from trainer.backends.local import execute
        from trainer.inference.report.standings import Gate, judge
        from trainer.training.ranks import join

    ranks = join()
    result = execute.evaluate(found, err, rows, max_rows, max_new_tokens, ranks, replace, suite, suite_items)
    judgement = judge(Gate(gate), result) if gate is not None and ranks.is_first else None
    page = Path(result.get("page", found.report / "report.html"))  # the first process writes it
    if output is Format.json:
        from trainer.cli.documents.verdicts import evaluated

        evaluated(result, page, judgement).print()
        return _code(judgement)
    show_measures(result)
    out.print(escape(result["verdict"]["sentence"]), style="bold")
    for remark in result["verdict"]["remarks"]:
        out.print(remark, markup=False, soft_wrap=True)
    say(f"report  {page}")
    if page.stem != "report":
        own = "the run's own report was kept" if found.comparison() else "this is not the run's own report"
        say(f"{own}, since this one has fewer rows, or others; with --replace it is what trainer compare reads")
    return _show_gate(judgement)


def _refuse_at_once(run: Run, rows: Path | None, suite: str | None, suite_items: int | None) -> None:
    """Raises: ConfigError, DataError, for what can be seen to be wrong before anything is loaded."""
    from trainer.data.read.data_files import opened
    from trainer.inference.suite.items import NO_SUITE, asked_suite, read_suite
    from trainer.inference.trained import trained_adapter

    trained_adapter(run)
    if suite_items is not None and asked_suite(suite, run.config().evaluation) == NO_SUITE:
        raise ConfigError("--suite-items: is given and no suite is asked, expected both; add --suite builtin")
    if suite is not None and suite != NO_SUITE:
        read_suite(suite)
    if rows is not None:
        with opened(rows):
            pass


@command
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Two or more runs, by name or folder; one with --gate or --judge."),
    ],
    page: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The page's file.")] = None,
    gate: GateName = None,
    judge: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Have this model judge one run's answers; needs --endpoint.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="The judge's service, any with OpenAI's chat route.")
    ] = None,
    cap: Annotated[
        float | None, typer.Option(metavar="USD", help="Send nothing that could bring the judge's cost above it.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(metavar="USD", help="The price of a million tokens read.")] = None,
    price_out: Annotated[
        float | None, typer.Option(metavar="USD", help="The price of a million tokens written.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="The environment variable that holds the judge's key.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="The longest answer of the judge, in tokens. Default: 2048.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Requests to the judge at a time. Default: 4.")
    ] = None,
    yes: Yes = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Put several runs and their base side by side, on the same held-out rows.

    Takes what each run's own report holds, and computes nothing anew. With --gate the exit code is 3 unless the first
    run is better than its base and than each other run, or not worse, by more than chance.

    With --judge a model is asked, in both orders, which of two answers is better: the run's or the one before tuning.
    The outcome joins the run's report and changes neither verdict nor gate. Every answer of the judge is kept: the
    same command resumes, however it ended, and pays for no answer twice.
    """
    from trainer.inference.report.standings import Gate, judge_runs, results_of
    from trainer.inference.report.standings import notes as notes_on

    numbers = {"cap": cap, "price_in": price_in, "price_out": price_out}
    sizes = {"max_tokens": max_tokens, "concurrency": concurrency}
    refuse_stray(judge, runs, endpoint=endpoint, key_env=key_env, **numbers, **sizes)
    found = [find_run(name, root) for name in runs]
    opinion = None
    if judge is not None and endpoint is not None:
        from trainer.workshop.judge.judge import JudgeSettings

        given = {name: size for name, size in sizes.items() if size is not None}
        settings = JudgeSettings(endpoint, judge, cap, price_in, price_out, key_env, **given)
        opinion, code = judged(found[0], settings, yes)
        if opinion is None:
            return code
    judgement = None if gate is None else judge_runs(Gate(gate), found)
    if len(found) == 1 and (judgement is not None or opinion is not None):
        page, sentence, ranked = None, *_one(found[0])
        notes = found[0].remarks()
    else:
        from trainer.inference.report.standings import write_comparison

        page = page or root / f"{'-vs-'.join(run.name for run in found)[:MAX_NAME]}.html"
        sentence, ranked = write_comparison(found, page)
        notes = notes_on(found, results_of(found))
    if output is Format.json:
        from trainer.cli.documents.verdicts import compared

        compared(sentence, notes, ranked, page, judgement, opinion).print()
        return _code(judgement)
    show_standings(ranked)
    out.print(escape(sentence), style="bold")
    for note in notes:
        out.print(note, markup=False)
    if opinion is not None:
        out.print(escape(clean(opinion["sentence"])), style="bold")
        for remark in opinion["remarks"]:
            out.print(remark, markup=False, soft_wrap=True)
    if page is not None:
        say(f"page  {page}")
    return _show_gate(judgement)


def _one(run: Run) -> "tuple[str, list[Contestant]]":
    """The verdict on a single run, and its base and it."""
    from trainer.inference.report.standings import contestants, results_of

    results = results_of([run], least=1)
    return str(results[0]["verdict"]["sentence"]), contestants([run], results)


def _show_gate(judgement: "Judgement | None") -> ExitCode:
    if judgement is not None:
        out.print(escape(str(judgement)), style="green" if judgement.holds else "red")
    return _code(judgement)


def _code(judgement: "Judgement | None") -> ExitCode:
    return ExitCode.DONE if judgement is None or judgement.holds else ExitCode.GATE_FAILED


def show_standings(ranked: "Sequence[Contestant]") -> None:
    """Print what each model has reached, a column a model."""
    from rich.table import Table

    from trainer.inference.report.standings import table

    shown = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", *(model.name for model in ranked)):
        shown.add_column(escape(title), justify="right" if title else "left")
    for row in table(ranked):
        shown.add_row(row["title"], *(cell["value"] for cell in row["cells"]))
    out.print(shown)


def show_measures(result: Mapping[str, Any]) -> None:
    """The measures of each model as a table."""
    from rich.table import Table

    from trainer.inference.report.run_page import measure_rows

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", *map(escape, result["models"].values()), "difference", "95% interval"):
        table.add_column(column, justify="left" if not column else "right")
    for row in measure_rows(result):
        change = f"[{TONES[row['tone']]}]{row['change']}[/]"
        table.add_row(row["title"], *row["values"], change, row["interval"])
    out.print(table)
