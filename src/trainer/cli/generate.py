"""`trainer data generate`: a chat set from documents, written by a model behind an endpoint."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from trainer.cli.backends import agree, show_plan
from trainer.cli.console import Debug, Format, Output, clean, command, err, loading, out, say
from trainer.cli.train import Yes
from trainer.data.quoting import counted
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.workshop.generate.generate import Generated, GenerationPlan, Progress, Settings

LINE_SECONDS = 10.0  # between lines of progress where the output is no terminal
SAMPLE_SECONDS = 5.0
SHOWN_FAILURES = 5
SAMPLE_CHARACTERS = 400


def _print_kinds(wanted: bool) -> None:
    if wanted:
        from trainer.workshop.generate.kinds import KINDS

        for kind in KINDS.values():
            out.print(f"{kind.name:<18} {kind.summary}", markup=False)
        raise typer.Exit


Kinds = Annotated[
    bool, typer.Option("--kinds", callback=_print_kinds, is_eager=True, help="List the kinds of rows and leave.")
]


@command
def generate(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Documents, folders or globs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.jsonl", help="The new file; others go beside it.")
    ],
    endpoint: Annotated[
        str,
        typer.Option(metavar="URL", help="A service with OpenAI's chat route, such as https://NAME.openai.azure.com."),
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="The model there; on Azure the deployment.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="The kind of rows; --kinds lists all.")] = "qa",
    rows_per_chunk: Annotated[int, typer.Option(metavar="N", help="Rows to ask for from each chunk.")] = 3,
    rows: Annotated[
        int | None, typer.Option(metavar="N", help="Rows in all, from chunks of everywhere. Default: of every chunk.")
    ] = None,
    chunk_size: Annotated[int, typer.Option(metavar="N", help="The longest chunk, in characters.")] = 4000,
    language: Annotated[str | None, typer.Option(help="The language to write in. Default: the model's choice.")] = None,
    tone: Annotated[str | None, typer.Option(help="The assistant's tone, such as 'friendly and brief'.")] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt of each row.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="A,B,…", help="The labels of --kind classify.")] = None,
    examples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that show style and length; the first five count.")
    ] = None,
    no_judge: Annotated[
        bool, typer.Option("--no-judge", help="Do not have each row judged against its source: cheaper, and unchecked.")
    ] = False,
    validation_share: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of rows to hold out, by whole chunks; 0 for none.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Draws personas, forms, difficulties and the split.")] = 0,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="The longest answer, in tokens.")] = 2048,
    temperature: Annotated[float, typer.Option(help="Of the writing; the judge's is 0.")] = 0.7,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Requests at a time.")] = 4,
    cap: Annotated[
        float | None, typer.Option(metavar="USD", help="Send nothing that could bring the cost above it, in all.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(metavar="USD", help="The price of a million tokens read.")] = None,
    price_out: Annotated[
        float | None, typer.Option(metavar="USD", help="The price of a million tokens written.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="The environment variable that holds the endpoint's key.")
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Send nothing; write the rows that earlier answers give.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "--overwrite", help="Write over files that exist.")] = False,
    yes: Yes = False,
    output_format: Output = Format.text,
    kinds: Kinds = False,
    debug: Debug = False,
) -> int:
    """Have a model write chat rows from documents; each row cites its source and is judged against it.

    Every answer is kept beside FILE.jsonl: the same command resumes, however it ended, and pays for no answer twice.
    """
    from trainer.workshop.generate.generate import Settings, finish_early, make_plan

    settings = Settings(
        tuple(map(Path, sources)),
        output,
        endpoint,
        model,
        kind=kind,
        rows_per_chunk=rows_per_chunk,
        rows=rows,
        chunk_size=chunk_size,
        language=language,
        tone=tone,
        system=system,
        labels=tuple(label.strip() for label in (labels or "").split(",") if label.strip()),
        examples=examples,
        judge=not no_judge,
        validation_share=validation_share,
        seed=seed,
        max_tokens=max_tokens,
        temperature=temperature,
        concurrency=concurrency,
        cap=cap,
        price_in=price_in,
        price_out=price_out,
        key_variable=key_env,
        force=force,
    )
    with loading("the sources"):
        plan = make_plan(settings, say)
    with plan, Interruption() as interruption:
        if finish:
            return _report(finish_early(plan), settings, output_format)
        show_plan(plan.facts(), plan.quote)
        if plan.quote.bills:
            agree(f"have {model} write these rows?", yes)
        return _generate(plan, interruption, output_format)


def _generate(plan: "GenerationPlan", interruption: Interruption, output: Format) -> int:
    from trainer.workshop.asking.sender import Unfinished
    from trainer.workshop.generate.generate import generate

    stop = threading.Event()

    def end() -> None:
        stop.set()
        say("ending after the requests that are on their way; Ctrl-C again leaves them, paid or not")

    try:
        with interruption.calls(end), _shown(plan) as show:
            made = generate(plan, plan.quote, show, stop)
    except Unfinished as unfinished:
        if interruption.signal is None:
            raise
        say(str(unfinished))
        return interruption.exit_code
    except KeyboardInterrupt:
        say("left at once: requests that were on their way may be paid and lost; the same command resumes")
        return interruption.exit_code
    return _report(made, plan.settings, output)


@contextmanager
def _shown(plan: "GenerationPlan") -> "Iterator[Callable[[Progress], None]]":
    """Progress on the terminal: a line that stays up to date, and now and then a row; elsewhere a line now and then."""
    spoke = sampled = time.monotonic()

    def state(now: "Progress") -> str:
        money = "" if plan.prices.is_free else " cost not known" if now.cost is None else f" {now.cost:,.4f} USD"
        failed = f", {now.failures:,} failed" if now.failures else ""
        return (
            f"{now.chunks_done:,} of {now.chunks:,} chunks, {now.rows:,} rows, {now.dropped:,} dropped{failed}{money}"
        )

    with err.status("asking …") as status:

        def show(now: "Progress") -> None:
            nonlocal spoke, sampled
            status.update(escape(state(now)))
            at = time.monotonic()
            if err.is_terminal and now.sample is not None and (at - sampled > SAMPLE_SECONDS or now.chunks_done == 1):
                sampled = at
                text = json.dumps(now.sample, ensure_ascii=False)
                err.print(clean(text[:SAMPLE_CHARACTERS]), markup=False, style="dim")
            elif not err.is_terminal and (at - spoke > LINE_SECONDS or now.chunks_done == now.chunks):
                spoke = at
                say(state(now))

        yield show


def _report(made: "Generated", settings: "Settings", output: Format) -> int:
    if output is Format.json:
        from trainer.cli.documents.data import DataGenerate

        DataGenerate.of(made).print()
        return 0
    for failure in made.failures[:SHOWN_FAILURES]:
        out.print(f"[yellow]failed[/] {escape(clean(failure))}")
    if hidden := len(made.failures) - SHOWN_FAILURES:
        out.print(f"… and {hidden:,} more") if hidden > 0 else None
    if made.failures:
        out.print(
            "with --force the same command asks again where a request was refused; answers that cannot be used are "
            "kept, and another --max-tokens or --temperature asks anew"
        )
    if settings.rows is not None and made.rows + made.validation_rows < settings.rows:
        out.print(f"[yellow]{settings.rows:,} rows were wanted: the sources give no more[/]")
    if made.dropped:
        out.print("dropped: " + ", ".join(f"{count:,} {code}" for code, count in made.dropped.items()))
    if made.cost:
        unknown = ""
        if made.unknown_requests:
            unknown = f", with {counted(made.unknown_requests, 'request')} that may have been paid without an answer"
        out.print(f"cost: {made.cost:,.4f} USD{unknown}")
    out.print(escape(clean(f"{counted(made.rows, 'row')} written to {made.files.rows}")), style="bold")
    if made.validation_rows:
        held_out = f"{counted(made.validation_rows, 'row')} written to {made.files.validation}"
        out.print(escape(clean(held_out)), style="bold")
    out.print(escape(clean(f"where each row is from, and what was dropped: {made.files.provenance}")))
    return 0
