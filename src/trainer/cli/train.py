"""`train`: from a config and a data file to an adapter."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.backends import agree, backend_of, show_plan
from trainer.cli.console import Debug, Format, Notes, Output, Root, RunName, Version, command, out, say
from trainer.cli.runs import print_run
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run, find_run
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.backends.contract import Backend, Changes, Plan, Preview
    from trainer.config.schema import RunConfig

AllowChange = Annotated[
    list[str] | None,
    typer.Option("--allow-change", metavar="SETTING", help="Resume although this setting is another one now."),
]


@dataclass(frozen=True, slots=True)
class _Wishes:
    """Options of `train`."""

    check: bool
    preview: int | None
    detach: bool
    auto_resume: bool
    changes: "Changes"
    yes: bool
    output: Format

    @property
    def trains_here(self) -> bool:
        """Whether this process would train."""
        return not (self.check or self.preview or self.detach)


@command
def train(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. training.n_epochs=1.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="The run's YAML file.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Resume a stopped run; needs no --config.")] = None,
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
        bool, typer.Option("--auto-resume", help="Resume the run named in the config if it exists, else start it.")
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
        raise ConfigError("train: expected --config FILE to start a run, or --resume RUN to resume one")
    from trainer.backends.contract import Changes

    if resume is not None:
        return _resume(find_run(resume, root), Changes(overrides or (), allow_change or ()), detach, output)
    assert config is not None

    from trainer.config.load import load_config

    settings = _rooted(context, load_config(config, overrides or []), overrides or [], root)
    if preview is not None and output is Format.json:
        raise ConfigError("--preview: is given with --format json, expected one of them; it is for people")
    if auto_resume and settings.run.name is None:
        raise ConfigError("--auto-resume: the run has no name, expected one that stays the same; set run.name")
    wishes = _Wishes(check, preview, detach, auto_resume, Changes(allowed=allow_change or ()), yes, output)
    return _start(settings, wishes)


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


def _start(settings: "RunConfig", wishes: _Wishes) -> int:
    """Check, show, agree, create, launch, follow: the same for every backend."""
    from trainer.backends.quote import hold_cap

    backend = backend_of(settings.backend.kind)
    if wishes.preview is not None and not backend.has_preview:
        raise ConfigError("--preview: is for backend.kind=local, expected none; add backend.kind=local to look")
    if wishes.auto_resume and (run := backend.existing(settings)):
        return _resume(run, wishes.changes, wishes.detach, wishes.output)
    with Interruption() as interruption:
        try:
            backend.refuse_at_once(settings, wishes.auto_resume, wishes.detach)
            if wishes.trains_here and (code := backend.in_processes(_words(), say)) is not None:
                return code
            notes = Notes()
            plan = backend.check(settings, notes, wishes.auto_resume)
            if wishes.preview is not None:
                _show_rows(backend.preview(plan), wishes.preview)
                return ExitCode.DONE
            show_plan(plan.rows, plan.quote)
            hold_cap(plan.quote, settings.backend.spend_cap)
            if wishes.check:
                _show_check(plan, notes, wishes.output)
                return ExitCode.DONE
            if plan.quote.bills:
                agree(f"start this run on {settings.backend.kind}?", wishes.yes)
            run = backend.create(plan, wishes.auto_resume)
        except KeyboardInterrupt:
            say("stopped before training began; the same command begins again")
            return interruption.exit_code
        say(f"run {run.path}")
        begin = partial(backend.launch, plan, run, say, wishes.changes)
        return _carry_out(backend, run, begin, wishes.detach, wishes.output, interruption)


@command
def resume(
    run: RunName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change; see --allow-change.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Resume in the background; see trainer logs --follow.")
    ] = False,
    allow_change: AllowChange = None,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Resume a stopped run; the same as train --resume RUN."""
    from trainer.backends.contract import Changes

    return _resume(find_run(run, root), Changes(overrides or (), allow_change or ()), detach, output)


def _words() -> list[str]:
    """The arguments of `trainer` that repeat this command."""
    return [*(["train"] if Path(sys.argv[0]).name == "train" else []), *sys.argv[1:]]


def _resume(run: Run, changes: "Changes", detach: bool, output: Format) -> int:
    if detach and changes:
        raise ConfigError("--detach: is given with changed settings, expected none; resume without --detach")
    backend = backend_of(run.backend)

    def begin() -> int | None:
        backend.resume(run, say, changes)
        return None if detach else backend.in_processes(_words(), say)

    with Interruption() as interruption:
        return _carry_out(backend, run, begin, detach, output, interruption)


def _carry_out(
    backend: "Backend[Any]",
    run: Run,
    begin: Callable[[], int | None],
    detach: bool,
    output: Format,
    interruption: Interruption,
) -> int:
    """Begin and follow, unless other processes have, whose exit code `begin` then returns.

    However that ends, --format json prints the run: its folder is there.
    """
    is_shown = output is Format.json
    try:
        if (code := begin()) is not None:
            is_shown = False  # the first of them has printed it
            return code
        if detach:
            backend.detach(run, say)
            return ExitCode.DONE
        outcome = backend.follow(run, say)
        say(outcome.summary)
        if outcome.exit_code is ExitCode.DONE and not is_shown:
            _show_result(run, outcome.try_it or f"trainer chat {run.path}")
        return outcome.exit_code
    except KeyboardInterrupt:  # something may bill already
        say(backend.after_interrupt(run))
        return interruption.exit_code
    finally:
        if is_shown:
            print_run(run)


def _show_result(run: Run, try_it: str) -> None:
    for remark in run.remarks():
        say(remark)
    if (run.adapter / "adapter_model.safetensors").is_file():
        out.print(f"adapter  {run.adapter}", markup=False)
    if run.comparison():
        say(f"report:     {run.report / 'report.html'}")
    say(f"look at it: trainer show {run.path}\ntry it:     {try_it}")


def _show_check(plan: "Plan[Any]", notes: Notes, output: Format) -> None:
    if output is Format.json:
        from trainer.cli.documents.plans import train_check

        train_check(plan, notes.told).print()
        return
    if plan.text:
        out.print(plan.text, markup=False)
    out.print(f"[green]ready to train[/]: {plan.ready}")


def _show_rows(preview: "Preview", num_rows: int) -> None:
    from trainer.cli.preview import show_rows

    show_rows(preview.data, preview.renderer, preview.max_length, num_rows)
