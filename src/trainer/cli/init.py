"""`trainer init`: from a base and a file of rows to a config, with questions for what is not given."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import BackendName, Debug, Root, clean, command, err, out, say
from trainer.data.quoting import counted
from trainer.errors import ConfigError, TrainerError
from trainer.kinds import executes_here, learns_from_pairs
from trainer.runs import find_run
from trainer.runs.files import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from trainer.data.layouts.columns import Columns
    from trainer.start.begin import Started, Wish
    from trainer.start.config_text import Backend

ROW_FILES = (".jsonl", ".csv", ".tsv", ".json", ".parquet")
SHOWN_FILES = 5
JOB = "ftjob-"


@command
def init(
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model to start from: a hub id, a folder, builtin:tiny.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to train on: chat JSONL, JSON, CSV, TSV or Parquet.")
    ] = None,
    backend: Annotated[BackendName | None, typer.Option(help="Where it is trained. Default: local.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The new config. Default: beside FILE.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that are held out already. Default: a tenth of FILE's.")
    ] = None,
    hold_out: Annotated[bool, typer.Option("--hold-out/--no-hold-out", help="Hold a tenth of the rows out.")] = True,
    columns: Annotated[
        str | None,
        typer.Option(metavar="prompt=COLUMN,answer=COLUMN", help="Which columns of a table are question and answer."),
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help='Instead of a prompt column: "What is {term}?".')
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The system prompt for rows that have none.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="Take the settings of an earlier run, or of a job: ftjob-ID."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Write sample rows too, and begin with them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what would be proposed.")] = False,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Write a config beside your data: what is not given is asked for in a terminal.

    trainer init --base HuggingFaceTB/SmolLM2-135M-Instruct --data rows.csv

    Rows of another layout are converted, and a tenth of them is held out. Only new files are written. The last line is
    the next command. With --from the settings come from a run, or from a job of the fine-tuning service that the
    environment names, whose rows are fetched too.
    """
    from trainer.data.layouts.columns import parse_columns
    from trainer.start.begin import Wish, begin

    if source is not None:
        beside = {"--base": base, "--backend": backend, "--columns": columns, "--question": question}
        _refuse_beside("--from", {**beside, "--system": system, "--sample": sample})
        _clone(source, output, data, validation, root)
        return
    asks = sys.stdin.isatty() and err.is_terminal and not yes
    if sample:
        given = {"--data": data, "--validation": validation, "--columns": columns, "--question": question}
        _refuse_beside("--sample", {**given, "--system": system})
    if not asks:
        _refuse_missing(base, data, sample, yes)
    data = data or (None if sample else _ask_data())
    chosen = backend or (_ask_backend() if asks and base is None else BackendName.local)
    kind: Backend = chosen.value
    wish = Wish(
        base or _base(kind, sample, asks),
        data,
        kind,
        output,
        validation,
        hold_out,
        parse_columns(columns, question or []),
        system,
        named_service(),
    )
    _report(wish, begin(_asked_about(wish) if asks else wish))


def named_service() -> "Literal['azure', 'openai']":
    """The fine-tuning service that the environment names."""
    return "openai" if "OPENAI_API_KEY" in os.environ and "AZURE_OPENAI_ENDPOINT" not in os.environ else "azure"


def _clone(source: str, output: Path | None, data: Path | None, validation: Path | None, root: Path) -> None:
    """Write the config of an earlier run or job again, as a new one."""
    from trainer.config.openai import OpenAIConfig
    from trainer.start.clone import GivenRows, clone_job, clone_run

    rows = GivenRows(data, validation)
    if source.startswith(JOB):
        target = output or Path(f"{source}.yaml")
        written = clone_job(source, OpenAIConfig(service=named_service()), target, rows, say)
    else:
        run = find_run(source, root)
        target = output or Path(f"{run.name}.yaml")
        written = clone_run(run, target, rows)
    for path in written:
        say(f"written: {path}")
    out.print(clean(f"train --config {shlex.quote(str(target))} --check"), markup=False)


def _refuse_beside(option: str, given: "Mapping[str, object]") -> None:
    """Raises: ConfigError, for what is given beside an option that decides it."""
    if named := [name for name, value in given.items() if value]:
        raise ConfigError(*(f"{name}: is given beside {option}, which decides it; remove one" for name in named))


def _refuse_missing(base: str | None, data: Path | None, sample: bool, yes: bool) -> None:
    """Raises: ConfigError, for what must be given where nobody can be asked."""
    missing = []
    if data is None and not sample:
        missing.append("--data: missing, expected a file of rows; add --data FILE, or --sample for rows to begin with")
    if base is None and not yes:
        missing.append("--base: missing, expected a model; add --base MODEL, or --yes to take the proposed one")
    if missing:
        raise ConfigError(*missing)


def _ask_data() -> Path:
    from trainer.start.rows import look_at

    found = sorted(file.name for file in Path().iterdir() if file.suffix.lower() in ROW_FILES)
    if found:
        say(f"here: {', '.join(found[:SHOWN_FILES])}{', …' if len(found) > SHOWN_FILES else ''}")

    def read(text: str) -> Path:
        path = expanded(text.strip())
        _or_again(lambda: look_at(path))
        return path

    path: Path = typer.prompt("file of rows (chat JSONL, JSON, CSV, TSV or Parquet)", value_proc=read, err=True)
    return path


def _ask_backend() -> BackendName:
    names = [kind.value for kind in BackendName]
    return BackendName(_ask_one_of(f"where to train ({', '.join(names)})", names, BackendName.local.value))


def _ask_one_of(question: str, names: "Sequence[str]", proposed: str) -> str:
    def read(text: str) -> str:
        if text.strip() not in names:
            raise typer.BadParameter(f"{text.strip()!r} is none of {', '.join(names)}")
        return text.strip()

    return str(typer.prompt(question, default=proposed, value_proc=read, err=True))


def _base(backend: "Backend", sample: bool, asks: bool) -> str:
    """The proposed base, or the one that a person names instead."""
    from trainer.start.begin import refuse_unfit
    from trainer.start.config_text import PROPOSED_BASES, TINY

    proposed = TINY if sample and executes_here(backend) else PROPOSED_BASES[backend]

    def read(text: str) -> str:
        _or_again(lambda: refuse_unfit(text.strip(), backend))
        return text.strip()

    return str(typer.prompt("base model", default=proposed, value_proc=read, err=True)) if asks else proposed


def _or_again(look: "Callable[[], object]") -> None:
    """Say what is wrong with an answer, and have the question asked once more."""
    try:
        look()
    except TrainerError as error:
        raise typer.BadParameter(clean(str(error))) from None


def _asked_about(wish: "Wish") -> "Wish":
    """The wish, once a person has agreed to what will be made of the rows."""
    from trainer.data.convert.files import default_output
    from trainer.start.rows import held_out_beside, look_at

    if (data := wish.data) is None:
        return wish
    rows = look_at(data, wish.columns)
    if not rows.is_native:
        names = f" with {', '.join(rows.columns)}" if rows.columns else ""
        say(f"{data}: {rows.layout}{names}")
        if rows.unclear:
            wish = replace(wish, columns=_ask_columns(rows.columns))
        target, kind = default_output(data, rows.method), "preference" if learns_from_pairs(rows.method) else "chat"
        if not typer.confirm(f"convert it to {kind} JSONL, as {clean(str(target))}?", default=True, err=True):
            say(f"convert it by hand, and begin with the result: trainer data convert {shlex.quote(str(data))}")
            raise typer.Exit
    if wish.validation is None and wish.hold_out and held_out_beside(data) is None:
        question = "hold a tenth of the rows out, to see whether it gets better?"
        wish = replace(wish, hold_out=typer.confirm(question, default=True, err=True))
    return wish


def _ask_columns(names: tuple[str, ...]) -> "Columns":
    from trainer.data.layouts.columns import Columns, parse_columns

    def asked(text: str) -> Columns:
        if text in names:
            return Columns(None, prompt=text)
        _or_again(lambda: parse_columns(None, [text]))
        made = Columns(None, questions=(text,))
        if missing := made.needed - set(names):
            raise typer.BadParameter(f"{min(missing)!r} is no column, expected one of {', '.join(names)}")
        return made

    example = f"{names[0]}, or What is {{{names[0]}}}?"
    columns = typer.prompt(
        f"the question: a column, or a text with columns in braces ({example})", value_proc=asked, err=True
    )
    answer = _ask_one_of(f"the answer: a column ({', '.join(names)})", names, names[-1])
    return Columns(answer, columns.prompt, questions=columns.questions)


def _report(wish: "Wish", made: "Started") -> None:
    """Print what was found and made; the next command stands alone on standard output."""
    if made.conversion is not None:
        read = counted(made.conversion.num_read, "row")
        say(f"{wish.data}: {made.conversion.layout}, {read}; {counted(made.conversion.num_written, 'row')} made of it")
        for name, count in made.conversion.dropped.items():
            kind = "preference" if learns_from_pairs(made.contents.method) else "chat"
            say(f"not carried, as a {kind} row has no place for it: {name} ({counted(count, 'row')})")
    contents = made.contents
    say(
        f"{counted(contents.rows, 'row')} to train on, {contents.held_out:,} held out; about {made.num_tokens:,} tokens"
    )
    if made.why_whole:
        say(f"no rows are held out: {made.why_whole}; more rows, or --validation FILE, will show whether it got better")
    if warnings := made.report.severities["warning"]:
        say(f"{counted(warnings, 'warning')}: trainer data check {shlex.quote(contents.train)}")
    for path in made.written:
        say(f"written: {path}")
    if lacking := _lacking(wish.backend):
        say(lacking)
    out.print(clean(f"train --config {shlex.quote(contents.file)} --check"), markup=False)


def _lacking(backend: "Backend") -> str | None:
    """Packages that must be installed before the config can be used here."""
    from trainer.extras import NEEDED_BY, absent, missing

    extra, modules = NEEDED_BY[backend]
    return str(missing(f"the {backend} backend", *gone, extra=extra)) if (gone := absent(modules)) else None
