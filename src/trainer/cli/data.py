"""`trainer data`: look at the training data before anything is spent on it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from trainer.cli.clean import clean as clean_rows
from trainer.cli.console import (
    BackendName,
    Debug,
    Format,
    Output,
    clean,
    command,
    loading,
    out,
    print_as_is,
    reading_bar,
    say,
)
from trainer.cli.convert import Force, convert
from trainer.cli.doctor import doctor
from trainer.cli.generate import generate
from trainer.cli.split import split
from trainer.cli.stats import stats
from trainer.data.quoting import counted
from trainer.errors import ConfigError, ExitCode
from trainer.kinds import learns_from_pairs
from trainer.runs.files import refuse_other_file

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig
    from trainer.data.files.rejects import Rejects

app = typer.Typer(
    help="Generate, convert, check, clean, measure, split and preview chat JSONL files.", no_args_is_help=True
)
app.command("clean")(clean_rows)
app.command()(convert)
app.command()(doctor)
app.command()(generate)
app.command()(split)
app.command()(stats)

SHOWN_FINDINGS = 20
SHOWN_ROWS = 5
SEVERITY_COLORS = {"error": "red", "warning": "yellow"}


@app.command()
@command
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Training files of chat or preference rows.")],
    validation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A held-out file; its rows must not be in FILE.")
    ] = None,
    backend: Annotated[BackendName, typer.Option(help="The backend whose rules apply.")] = BackendName.local,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="CONFIG", help="Also render each row as the model of this config does."),
    ] = None,
    output: Output = Format.text,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Accept validation rows that are trained on.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Print every finding, not the first 20.")] = False,
    reject: Annotated[
        Path | None,
        typer.Option(metavar="REJECTED", help="Write rows with an error there, the others beside it, as .clean.jsonl."),
    ] = None,
    force: Force = False,
    debug: Debug = False,
) -> int:
    """Check every rule of chat or preference rows; exit code 2 when a row cannot be trained as written."""
    from trainer.backends.data_sources import local_files
    from trainer.data.files.rejects import set_aside
    from trainer.data.read.checks import check_files

    if force and reject is None:
        raise ConfigError("--force: is given without --reject, expected both or none; remove it")
    files, validation = ([file.path for file in local_files(paths, say)] for paths in (files, validation or []))
    sources = [*files, *validation]
    limit = None if show_all or reject is not None or output is Format.json else SHOWN_FINDINGS
    settings = None if config is None else _settings_for(config, files, validation, backend)
    with reading_bar(sources) as progress:
        report = check_files(
            files,
            validation,
            backend=backend.value,
            allow_leak=allow_leak,
            keep_rows=reject is not None or settings is not None,
            max_findings=limit,
            progress=progress,
        )
    if settings is not None:
        with loading():
            from trainer.training.row_findings import with_model_findings

        report = with_model_findings(settings, report, limit)
    rejects = None if reject is None else set_aside(report, sources, reject, force=force)
    num_errors, num_warnings = report.severities["error"], report.severities["warning"]
    code = ExitCode.BAD_INPUT if num_errors else ExitCode.DONE
    if output is Format.json:
        from trainer.cli.documents.data import DataCheck

        findings = [finding.to_json() for finding in report.findings]
        counts = {"rows": report.rows, "validation_rows": report.validation_rows, "counts": report.counts}
        set_apart = None if rejects is None else rejects.to_json()
        found = {"severities": report.severities, "reject": set_apart, "findings": findings, "method": report.method}
        DataCheck.model_validate(counts | found).print()
        return code
    shown = report.findings if show_all else report.findings[:SHOWN_FINDINGS]
    for finding in shown:
        out.print(f"[{SEVERITY_COLORS[finding.severity]}]{finding.severity:<7}[/] {escape(clean(str(finding)))}")
    if hidden := report.left_out.total() + len(report.findings) - len(shown):
        out.print(f"… and {hidden:,} more: add --all")
    if report.findings:
        out.print("  ".join(f"{name} {count:,}" for name, count in report.counts.items()), style="dim")
    pairs = ", as preference rows with training.method=dpo" if learns_from_pairs(report.method) else ""
    verdict = "[red]cannot be trained as written[/]" if num_errors else f"[green]can be trained[/]{pairs}"
    rows = counted(report.rows, "row") + (f" and {report.validation_rows:,} held out" if validation else "")
    out.print(f"{rows}, {counted(num_errors, 'error')}, {counted(num_warnings, 'warning')}: {verdict}")
    if reject is not None:
        _tell_rejects(rejects, num_errors)
    return code


def _settings_for(config: Path, files: list[Path], validation: list[Path], backend: BackendName) -> "RunConfig":
    """The config with these files in place of its own. Raises: ConfigError."""
    from trainer.config.load import load_config
    from trainer.model.lineage import refuse_model

    if backend is BackendName.openai:
        raise ConfigError("--config: is given with --backend openai, whose models nobody can render for; remove it")
    trained, held_out = (json.dumps([str(file) for file in names]) for names in (files, validation))
    given = [f"data.train={trained}", f"data.validation={held_out if validation else ''}"]
    settings = load_config(config, given, together=False)
    refuse_model(settings)
    return settings


def _tell_rejects(rejects: "Rejects | None", num_errors: int) -> None:
    if rejects is None:
        why = "no file has rows with an error beside rows without" if num_errors else "no row has an error"
        say(f"nothing was set aside: {why}")
        return
    out.print(escape(clean(f"{counted(rejects.rows, 'row')} with an error written to {rejects.file}")))
    for copy in rejects.clean:
        out.print(escape(clean(f"{counted(copy.rows, 'row')} without one of {copy.source} written to {copy.file}")))


@app.command()
@command
def preview(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chat JSONL file.")],
    config: Annotated[Path, typer.Option("--config", "-c", metavar="CONFIG", help="The config that names the model.")],
    rows: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many rows. Default: 5, and all with --html.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the rows as a searchable page for the browser.")
    ] = None,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Show which tokens of FILE are trained, as the config's model and chat template see them."""
    from trainer.backends.data_sources import local_file

    file = local_file(file, say).path
    if html is not None and output is Format.json:
        raise ConfigError("--html: is given with --format json, expected one of them; remove one")
    if html is not None:
        if html.resolve() == file.resolve():
            raise ConfigError(
                f"--html: {html} is the file that is previewed, expected another one; choose another name"
            )
        refuse_other_file("--html", html)
    from trainer.config.load import load_config
    from trainer.data.read.sources import check_data
    from trainer.model.lineage import refuse_model

    settings = load_config(config, [f"data.train={json.dumps(str(file))}", "data.validation="], together=False)
    refuse_model(settings)
    checked = check_data(settings.data, None)
    with loading():
        from trainer.cli.preview import print_document, show_rows, write_page
        from trainer.training.prepare import render

        preprocessing, data = render(settings, checked)
    if html is not None:
        write_page(preprocessing.config, data, preprocessing.renderer, preprocessing.max_length, html, rows)
    elif output is Format.json:
        print_document(data, preprocessing.renderer, preprocessing.max_length, rows or SHOWN_ROWS)
    else:
        show_rows(data, preprocessing.renderer, preprocessing.max_length, rows or SHOWN_ROWS)


@app.command()
@command
def rules(debug: Debug = False) -> None:
    """Print every rule with its severity, its reason, what to do and an example, in Markdown."""
    from trainer.data.rules.page import markdown

    print_as_is(markdown().rstrip("\n"))
