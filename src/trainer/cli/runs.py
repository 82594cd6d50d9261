"""Commands that look at runs, and the one that deletes them. They read the run's files and nothing else."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.backends import backend_of, print_last_output, refreshed
from trainer.cli.console import Debug, Format, Output, Root, RunName, clean, command, err, out, print_as_is, say
from trainer.errors import ConfigError
from trainer.runs import Run, find_folder, find_run
from trainer.runs import list_runs as runs_below
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.damage import damaged
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import failed_gate, pending_note, refuse_deletion
from trainer.runs.manifest import DamagedManifest, LongRow, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.cli.documents.runs import RunSummary

STATE_COLORS = {"succeeded": "green", "failed": "red", "cancelled": "red", "paused": "yellow", "running": "cyan"}
FIGURES = ("step", "train loss", "valid loss", "cost so far")
DAMAGED = {"": "the file is damaged"}


@command
def list_all(root: Root = Path("runs"), output: Output = Format.text, debug: Debug = False) -> None:
    """List the runs with their state, progress and last losses."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--root: {str(root)!r} is a file, expected a folder; choose another")
    from trainer.cli.documents.runs import summary_of

    runs = [summary_of(run, refresh=True) for run in runs_below(root)]
    if output is Format.json:
        from trainer.cli.documents.runs import Runs

        Runs(root=str(root), runs=runs).print()
        return
    if not runs:
        say(f"no runs in {root}; begin with one: trainer init")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    any_costs = any(run.cost_so_far is not None for run in runs)
    costs = ("cost so far",) if any_costs else ()
    for column in ("run", "state", "step", "base", "train loss", "valid loss", *costs, "created"):
        table.add_column(column, justify="right" if column in FIGURES else "left")
    for run in runs:
        *cells, created = _row(run)
        table.add_row(*cells, *([_cost(run)] if any_costs else []), created)
    out.print(table)


def _row(run: "RunSummary") -> list[str]:
    """A run's cells; what is damaged is named in them."""
    if run.problem is not None:
        return [escape(clean(run.name)), "", "", f"[red]cannot be read: {escape(clean(run.problem))}[/]", "", "", ""]
    words = f"[red]damaged: {', '.join(run.damaged)}[/]" if run.damaged else ""
    words += f"[yellow]{run.silence}[/]" if run.silence else ""
    words += f"waits in the queue, place {run.queue_place}" if run.queue_place else ""
    return [
        escape(clean(run.name)),
        _colored(run.state or ""),
        f"{run.step or 0}/{run.total_steps}" if run.total_steps is not None else "",
        " ".join(filter(None, [escape(clean(run.base or "")), words])),
        _number(run.train_loss),
        _number(run.valid_loss),
        escape(clean(run.created_at or ""))[:16].replace("T", " "),
    ]


@command
def show(run: RunName, root: Root = Path("runs"), output: Output = Format.text, debug: Debug = False) -> None:
    """Show a run: state, loss and token accuracy as curves, settings, files."""
    found = refreshed(find_run(run, root))
    if output is Format.json:
        print_run(found)
        return
    from trainer.cli.documents.runs import summary_of

    status = found.status()
    summary = escape(clean(str(status.get("summary", ""))))
    out.print(f"[bold]{escape(clean(found.name))}[/]  {_colored(status['state'])}  {summary}")
    if broken := damaged(found):
        out.print(f"[red]damaged: {', '.join(broken)}[/]")
    if "error" in status:
        out.print(f"[red]{escape(clean(str(status['error'])))}[/]")
    if comparison := found.comparison():
        words = f"{comparison['verdict']['sentence']}  {found.report / 'report.html'}"
        out.print(clean(words), markup=False, style="bold")
        for remark in found.remarks():
            out.print(clean(remark), markup=False)
    if words := failed_gate(found):
        out.print(f"[red]{escape(clean(words))}[/]")
    if note := pending_note(found):
        out.print(f"[yellow]{escape(note)}[/]")
    print_last_output(found)
    backend = backend_of(found.backend, asks=False)
    cost = _cost(summary_of(found))
    so_far = {"cost so far": f"about {cost}, by quoted prices"} if cost else {}
    _print_section(backend.where, _known(backend.facts(found)) | so_far | _bills(found))
    results = found.results()
    for title, columns in (
        ("loss", ("train_loss", "valid_loss", "full_valid_loss")),
        (
            "token accuracy",
            ("train_mean_token_accuracy", "valid_mean_token_accuracy", "full_valid_mean_token_accuracy"),
        ),
    ):
        _plot(title, columns, results)
    _print_section("last measurements", _last_values(results))
    try:
        made_from = _origin(found.find_manifest())
    except DamagedManifest:
        made_from = {"damaged": "manifest.json"}
    _print_section("made from", made_from)
    _print_section(f"settings that are no defaults; all of them: {found.path / 'config.yaml'}", _settings(found))
    out.print("\n[bold]files[/]")
    for path in sorted(found.path.iterdir()):
        size = (
            sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            if path.is_dir()
            else path.stat().st_size
        )
        out.print(clean(f"  {size:>12,} bytes  {path}"), markup=False)


def print_run(run: Run) -> None:
    """All that is known of a run, as JSON."""
    from trainer.cli.documents.runs import shown

    settings = _settings(run)
    shown(run, None if settings == DAMAGED else settings).print()


@command
def checkpoints(run: RunName, root: Root = Path("runs"), output: Output = Format.text, debug: Debug = False) -> None:
    """List a run's checkpoints; each can be a new run's base as model.base=RUN@STEP."""
    from trainer.cli.documents.runs import Checkpoints, checkpoint_of

    found = find_run(run, root)
    measured = {int(row["step"]): row for row in found.results()}
    chosen = found.status().get("adapter_step")
    listed = [checkpoint_of(kept, measured.get(kept.step, {}), chosen) for kept in list_checkpoints(found.checkpoints)]
    if output is Format.json:
        Checkpoints(run=found.name, checkpoints=listed).print()
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("step", "train loss", "valid loss", "state", "folder"):
        table.add_column(column)
    for checkpoint in listed:
        state = checkpoint.problem or ("the adapter" if checkpoint.is_adapter else "complete")
        losses = _number(checkpoint.train_loss), _number(checkpoint.valid_loss)
        table.add_row(str(checkpoint.step), *losses, escape(state), escape(checkpoint.path))
    out.print(table)


@command
def delete(
    run: RunName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Delete a run's folder: its adapter, checkpoints and records."""
    found = find_folder(run, root)
    refuse_deletion(found, say)
    if not yes and not typer.confirm(f"delete {found.path} with everything in it?", err=True):
        say("nothing was deleted")
        return
    backend_of(found.backend).delete(found, say)
    found.delete()
    say(f"deleted {found.path}")


def _plot(title: str, columns: tuple[str, ...], results: list[dict[str, float]]) -> None:
    """Curves by step, as wide as the terminal allows."""
    import plotext

    curves = {name: [(row["step"], row[name]) for row in results if name in row] for name in columns}
    if not any(len(points) > 1 for points in curves.values()):
        return
    plotext.clear_figure()
    plotext.theme("clear")
    for (name, points), marker in zip(curves.items(), ("braille", "dot", "x"), strict=True):
        if points:
            steps, values = zip(*points, strict=True)
            draw = plotext.plot if name.startswith("train") else plotext.scatter
            draw(steps, values, label=name, marker=marker)
    plotext.plotsize(min(err.width, out.width, 100), 14)
    plotext.title(f"{title} by step")
    picture = plotext.build()
    print_as_is(picture if out.is_terminal else plotext.uncolorize(picture))


def _last_values(results: list[dict[str, float]]) -> dict[str, Any]:
    last: dict[str, float] = {}
    for row in results:
        last |= row
    return {name: f"{value:g}" for name, value in last.items()}


def _origin(manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    base, rows = manifest.base, manifest.rows
    return {
        "base": f"{base.name} {base.revision or base.weights_sha256 or ''}",
        "data": ", ".join(f"{file.path} ({file.role}, sha256 {file.sha256[:12]}…)" for file in manifest.data),
        "rows": f"{rows.train:,} trained, {rows.validation:,} held out",
        "too long": _outcomes(manifest.overlength),
        "tokens": f"{manifest.num_tokens:,}, of which {manifest.num_supervised_tokens:,} supervised",
        "device": f"{manifest.device}, {manifest.dtype}",
        "packages": ", ".join(f"{name} {version}" for name, version in manifest.packages.items()),
    }


def _known(facts: "Mapping[str, object]") -> dict[str, str]:
    return {name: str(value) for name, value in facts.items() if value}


def _bills(run: Run) -> dict[str, str]:
    """Things of the run that may bill."""
    try:
        billing = Ledger(run.path).billing()
    except ConfigError:
        return {"still bills": "not known: ledger.jsonl is damaged"}
    things = [entry.thing for entry in billing]
    words = "; ".join(f"{thing.kind} {thing.key} ({thing.bills or thing.delete_with})" for thing in things)
    return {"still bills": words} if words else {}


def _settings(run: Run) -> dict[str, Any]:
    """Settings that distinguish this run: no defaults, and nothing of backends that it did not use."""
    from trainer.config.conflicts import is_default

    try:
        config = run.config()
    except ConfigError:
        return DAMAGED
    others = {"azureml", "openai"} - {run.backend}
    return {
        f"{section}.{name}": _plain(getattr(getattr(config, section), name))
        for section in type(config).model_fields
        if section not in others
        for name in type(getattr(config, section)).model_fields
        if not is_default(config, section, name)
    }


def _plain(value: Any) -> Any:
    """As it stands in the file."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_defaults=True)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _outcomes(overlength: Sequence[LongRow]) -> str:
    """Treatment of rows over data.max_length, in words."""
    counts = Counter(row.outcome for row in overlength)
    words = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
    return f"{words}; manifest.json lists them" if words else "no row"


def _print_section(title: str, values: dict[str, Any]) -> None:
    if values:
        out.print(f"\n[bold]{escape(clean(title))}[/]")
        width = max(map(len, values))
        for name, value in values.items():
            out.print(f"  {name:<{width}}  {clean(str(value))}", markup=False)


def _cost(run: "RunSummary") -> str:
    return "" if run.cost_so_far is None else f"{run.cost_so_far:,.2f} {run.currency}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _colored(state: str) -> str:
    return f"[{STATE_COLORS.get(state, 'default')}]{state}[/]"
