"""`train`: from a config and a data file to an adapter."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, Format, Notes, Output, Root, RunName, Version, command, err, loading, out, say
from trainer.cli.runs import print_run
from trainer.errors import Attempts, ConfigError
from trainer.runs import Run, find_run, refuse_existing
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig
    from trainer.runs.outcome import Outcome
    from trainer.training.prepare import Prepared

AllowChange = Annotated[
    list[str] | None,
    typer.Option("--allow-change", metavar="SETTING", help="Go on although this setting is another one now."),
]


@command
def train(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. training.n_epochs=1.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="The run's YAML file.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a stopped run; needs no --config.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Verify config, data, tokens and memory; train nothing.")
    ] = False,
    preview: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Show which tokens of the first N rows are trained.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Train in the background; see trainer logs --follow.")
    ] = False,
    auto_resume: Annotated[
        bool, typer.Option("--auto-resume", help="Go on with the run named in the config if it exists, else start it.")
    ] = False,
    allow_change: AllowChange = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something that costs money.")] = False,
    version: Version = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Fine-tune a model as a config says.

    train --config own.yaml training.n_epochs=5

    trainer init writes such a file.

    Exit codes: 0 done, 1 the run failed, 2 config or data, 75 stopped and resumable, 130 stopped with Ctrl-C.
    """
    if (config is None) == (resume is None):
        raise ConfigError("train: expected --config FILE to start a run, or --resume RUN to go on with one")
    if resume is not None:
        return _resume(find_run(resume, root), overrides or [], allow_change or [], detach, output)
    assert config is not None

    from trainer.config.load import load_config

    settings = _rooted(context, load_config(config, overrides or []), overrides or [], root)
    if preview is not None and output is Format.json:
        raise ConfigError("--preview: is given with --format json, expected one of them; it is for people")
    if auto_resume and settings.run.name is None:
        raise ConfigError("--auto-resume: the run has no name, expected one that stays the same; set run.name")
    if auto_resume and detach and settings.backend.kind == "local":  # elsewhere it is how a script submits once
        raise ConfigError("--auto-resume: is given with --detach, expected one of them; remove one")

    if settings.backend.kind != "local":
        from trainer.cli.remote import train_remotely

        if preview is not None:
            raise ConfigError("--preview: is for backend.kind=local, expected none; add backend.kind=local to look")
        return train_remotely(settings, check, detach, auto_resume, yes, output)

    return _stoppable(lambda: _train_here(settings, check, preview, detach, auto_resume, allow_change or [], output))


def _rooted(context: typer.Context, settings: "RunConfig", overrides: list[str], root: Path) -> "RunConfig":
    """The settings with the folder that holds the runs: --root, else run.root, else TRAINER_RUNS, else runs.

    Raises: ConfigError, when the command line names two.
    """
    source = context.get_parameter_source("root")
    is_option = source is not None and source.name == "COMMANDLINE"
    if is_option and any(text.startswith("run.root=") for text in overrides) and Path(settings.run.root) != root:
        raise ConfigError(f"--root: is {str(root)!r} beside run.root={settings.run.root}, expected one; remove one")
    if not is_option and "root" in settings.run.model_fields_set:
        return settings
    return settings.model_copy(update={"run": settings.run.model_copy(update={"root": str(root)})})


def _train_here(
    settings: "RunConfig",
    check: bool,
    preview: int | None,
    detach: bool,
    auto_resume: bool,
    allowed: list[str],
    output: Format,
) -> int:
    _refuse_at_once(settings, auto_resume)
    if not (check or preview or detach) and (code := _in_processes()) is not None:
        return code
    from trainer.data.read.sources import check_data
    from trainer.training.garbage import all_stays

    with all_stays():
        checked = check_data(settings.data)
    with loading(), all_stays():
        from trainer.backends import local  # torch and transformers: only once config and data are right

    notes = Notes()
    prepared = local.check(settings, notes, may_exist=auto_resume, checked=checked)
    if preview is not None:
        from trainer.cli.preview import show_rows
        from trainer.data.render.rendering import Renderer

        show_rows(prepared.data, Renderer(prepared.tokenizer), prepared.plan.max_length, preview)
        return 0
    _show_plan(prepared)
    if check and output is Format.json:
        from trainer.cli.documents.of_plan import local_check

        local_check(prepared, notes.told).print()
        return 0
    if check:
        out.print("[green]ready to train[/]: config, data, tokens and memory are in order")
        return 0
    run, existed = local.create(prepared, auto_resume)
    say(f"run {run.path}")
    if existed:
        return _finish(run, local.go_on(prepared, run, err, allowed), output)
    if detach:
        return _detach(run, output)
    return _finish(run, local.launch(prepared, run, err), output)


def _refuse_at_once(settings: "RunConfig", auto_resume: bool) -> None:
    """Raises: ConfigError, DataError, for names and paths that cannot be right: known before anything is loaded."""
    from trainer.data.read.sources import refuse_unreadable
    from trainer.extras import NEEDED_BY, need
    from trainer.model.first_look import refuse_model

    extra, modules = NEEDED_BY["local"]
    attempts = Attempts()
    attempts.make(need, "the local backend", *modules, extra=extra)
    if not auto_resume:
        attempts.make(refuse_existing, settings)
    attempts.make(refuse_model, settings)
    attempts.make(refuse_unreadable, settings.data)
    attempts.end()


@command
def resume(
    run: RunName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change; see --allow-change.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on in the background; see trainer logs --follow.")
    ] = False,
    allow_change: AllowChange = None,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Go on with a stopped run; the same as train --resume RUN."""
    return _resume(find_run(run, root), overrides or [], allow_change or [], detach, output)


def _stoppable(work: Callable[[], int]) -> int:
    """Do what a signal may end before training listens to it: SIGTERM and SIGHUP mean that it can be tried again."""
    with Interruption() as interruption:
        try:
            return work()
        except KeyboardInterrupt:
            say("stopped before training began; the same command begins again")
            return interruption.exit_code


def _in_processes() -> int | None:
    """With several GPUs this command only starts one process for each, which run it again."""
    from trainer.training.launch import in_processes

    return in_processes([*(["train"] if Path(sys.argv[0]).name == "train" else []), *sys.argv[1:]], say)


def _resume(run: Run, overrides: list[str], allowed: list[str], detach: bool, output: Format) -> int:
    if run.backend != "local":
        from trainer.cli.remote import go_on

        if overrides or allowed:
            raise ConfigError(
                f"run {run.name!r}: its job has its settings already, expected no others; start a new run"
            )
        return go_on(run, detach, output)

    from trainer.backends.resumable import refuse_to_resume

    refuse_to_resume(run)
    if detach:
        if overrides or allowed:
            raise ConfigError("--detach: is given with changed settings, expected none; go on without --detach")
        return _detach(run, output)
    return _stoppable(lambda: _resume_here(run, overrides, allowed, output))


def _resume_here(run: Run, overrides: list[str], allowed: list[str], output: Format) -> int:
    if (code := _in_processes()) is not None:
        return code
    from trainer.training.garbage import all_stays

    with loading(), all_stays():
        from trainer.backends import local

    return _finish(run, local.resume(run, err, say, overrides, allowed), output)


def _detach(run: Run, output: Format) -> int:
    """Train, or go on, in a process of its own that outlives this one."""
    from trainer.backends.detached import launch_detached

    pid = launch_detached(run)
    say(f"training in the background as process {pid}\nfollow it: trainer logs {run.path} --follow")
    say(f"stop it:   trainer pause {run.path}")
    if output is Format.json:
        print_run(run)
    return 0


def _finish(run: Run, outcome: "Outcome", output: Format) -> int:
    say(outcome.summary)
    if output is Format.json:
        print_run(run)
        return outcome.exit_code
    if outcome.exit_code == 0:
        for remark in run.remarks():
            say(remark)
        out.print(f"adapter  {run.adapter}", markup=False)
        if run.comparison():
            say(f"report:     {run.report / 'report.html'}")
        say(f"look at it: trainer show {run.path}\ntry it:     trainer chat {run.path}")
    return outcome.exit_code


def _show_plan(prepared: "Prepared") -> None:
    """What is about to happen, in numbers."""
    from rich.markup import escape
    from rich.table import Table

    from trainer.data.read.sources import without_validation
    from trainer.data.render.overlength import in_words
    from trainer.model.device import describe

    plan, data, model = prepared.plan, prepared.data, prepared.config.model
    share = data.num_supervised / data.num_tokens
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    revision = f" at {prepared.base.revision[:12]}" if prepared.base.revision else ""
    number_format = str(prepared.dtype).removeprefix("torch.")
    weights = number_format if model.quantization == "none" else f"{model.quantization}, computing in {number_format}"
    table.add_row("model", f"{model.base}{revision}, {weights}")
    table.add_row("device", describe(prepared.device))
    table.add_row(
        "data",
        f"{len(data.train):,} rows to train on, {len(data.validation):,} to validate; "
        f"{data.num_tokens:,} tokens, {data.num_supervised:,} supervised ({share:.0%}); longest row {data.longest:,}",
    )
    if lacking := without_validation(prepared.config.data):
        table.add_row("[yellow]held out[/]", escape(lacking))
    table.add_row(
        "plan",
        f"{plan.n_epochs} epochs of {plan.steps_per_epoch:,} steps with {plan.batch_size} conversations each, "
        f"{plan.total_steps:,} steps in all; learning rate {plan.learning_rate:.2g}, seed {plan.seed}",
    )
    table.add_row("memory", _memory(prepared))
    if data.touched:
        table.add_row("[yellow]length[/]", in_words(data.touched, plan.max_length))
    for note in data.touched[:5]:
        table.add_row("", escape(f"{note.place}: {note.num_tokens:,} tokens, {note.outcome}"))
    if (hidden := len(data.touched) - 5) > 0:
        table.add_row("", f"and {hidden:,} more; the run's manifest.json lists them all")
    for finding in data.report.findings[:5]:
        table.add_row("[yellow]warning[/]", str(finding).replace("[", "\\["))
    if (hidden := len(data.report.findings) - 5) > 0:
        table.add_row("", f"and {hidden} more warnings: trainer data check FILE")
    err.print(table)


def _memory(prepared: "Prepared") -> str:
    """What will be needed, and of a CPU's process what a person will see of it."""
    from trainer.model.device import held_memory_bytes
    from trainer.training.memory import gib, process_bytes

    plan, memory = prepared.plan, prepared.memory
    needed = f"about {gib(memory.peak_bytes)} of {gib(memory.free_bytes)} free"
    if prepared.device.type == "cpu":
        whole = process_bytes(memory, held_memory_bytes(), prepared.dtype.itemsize == 2)
        needed = (
            f"the process will take about {gib(whole)} (libraries and comparison included, as top shows it), "
            f"{gib(memory.peak_bytes)} of them for training; {gib(memory.free_bytes)} are free"
        )
    parts = f"; the base in {memory.num_parts} parts, one in each process" if memory.num_parts > 1 else ""
    return (
        f"{needed}; {plan.token_budget:,} tokens at a time, {plan.recompute_layers} of {memory.footprint.num_layers} "
        f"layers computed again{parts} (estimated)"
    )
