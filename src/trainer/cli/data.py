"""`trainer data`: look at the training data before anything is spent on it."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from trainer.cli.console import Debug, clean, command, out, reading_bar, say
from trainer.errors import ExitCode

app = typer.Typer(help="Check and preview chat JSONL files.", no_args_is_help=True)

SHOWN_FINDINGS = 20
SEVERITY_COLORS = {"error": "red", "warning": "yellow"}


class Format(StrEnum):
    """How findings are printed."""

    text = "text"
    json = "json"


class BackendName(StrEnum):
    """Whose rules apply."""

    local = "local"
    azureml = "azureml"
    openai = "openai"


@app.command()
@command
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Training files in chat JSONL format.")],
    validation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A held-out file; its rows must not be in FILE.")
    ] = None,
    backend: Annotated[BackendName, typer.Option(help="The backend whose rules apply.")] = BackendName.local,
    output: Annotated[Format, typer.Option("--format", help="For people, or for machines.")] = Format.text,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Accept validation rows that are trained on.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Print every finding, not the first 20.")] = False,
    debug: Debug = False,
) -> int:
    """Check every rule of the chat format; exit code 2 when a row cannot be trained as written."""
    from trainer.data.checks import check_files

    limit = None if show_all or output is Format.json else SHOWN_FINDINGS
    with reading_bar([*files, *(validation or [])]) as progress:
        report = check_files(
            files,
            validation or [],
            backend=backend.value,
            allow_leak=allow_leak,
            keep_rows=False,
            max_findings=limit,
            progress=progress,
        )
    num_errors, num_warnings = report.severities["error"], report.severities["warning"]
    code = ExitCode.BAD_INPUT if num_errors else ExitCode.DONE
    if output is Format.json:
        findings = [finding.to_json() for finding in report.findings]
        summary = {"rows": report.rows, "validation_rows": report.validation_rows, "counts": report.counts}
        typer.echo(json.dumps(summary | {"severities": report.severities, "findings": findings}, indent=2))
        return code
    for finding in report.findings:
        out.print(f"[{SEVERITY_COLORS[finding.severity]}]{finding.severity:<7}[/] {escape(clean(str(finding)))}")
    if hidden := report.left_out.total():
        out.print(f"… and {hidden:,} more: add --all")
    if report.findings:
        out.print("  ".join(f"{name} {count:,}" for name, count in report.counts.items()), style="dim")
    verdict = "[red]cannot be trained as written[/]" if num_errors else "[green]can be trained[/]"
    rows = f"{report.rows:,} rows" + (f" and {report.validation_rows:,} held out" if validation else "")
    out.print(f"{rows}, {num_errors:,} errors, {num_warnings:,} warnings: {verdict}")
    return code


@app.command()
@command
def preview(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chat JSONL file.")],
    config: Annotated[Path, typer.Option("--config", "-c", metavar="CONFIG", help="The config that names the model.")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 5,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write all rows as a searchable page for the browser.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show which tokens of FILE are trained, as the config's model and chat template see them."""
    from trainer.backends import local
    from trainer.cli.preview import show_rows, write_page
    from trainer.config.load import load_config

    settings = load_config(config, [f"data.train={json.dumps(str(file))}", "data.validation="])
    prepared = local.check(settings, say)
    if html is not None:
        write_page(prepared, html)
    else:
        show_rows(prepared, rows)


@app.command()
@command
def rules() -> None:
    """Print every rule with its severity, its reason, what to do and an example, in Markdown."""
    from trainer.data.rules_page import markdown

    typer.echo(markdown(), nl=False)
