"""`train`: from a config and a data file to an adapter."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.backends import agree, backend_of, print_verdict, settle, show_plan
from trainer.cli.console import Debug, Format, Notes, Output, Root, RunName, Version, clean, command, out, say
from trainer.cli.runs import print_run
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run, find_run
from trainer.runs.lifecycle import failed_gate
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.backends.contract import Backend, Changes, Plan, Preview
    from trainer.backends.quote import Quote
    from trainer.config.schema import RunConfig

AllowChange = Annotated[
    list[str] | None,
    typer.Option("--allow-change", metavar="SETTING", help="Resume although this setting is another one now."),
]


@dataclass(frozen=True, slots=True)
class _Wishes:
    """Options of `train`."""

    check: bool
    files: bool
    preview: int | None
    detach: bool
    auto_resume: bool
    changes: "Changes"
    queue: bool
    gpus: int | None
    yes: bool
    output: Format
    words: Sequence[str] = ()  # that repeat the command in another process, where they are not this one's own

    @property
    def trains_here(self) -> bool:
        """True if this process would train."""
        return not (self.check or self.preview or self.detach or self.queue)

    def refuse_contradictions(self) -> None:
        """Raises: ConfigError."""
        if self.preview is not None and self.output is Format.json:
            raise ConfigError("--preview: is given with --format json, expected one of them; it is for people")
        if self.files and not self.check:
            raise ConfigError("--files: is given without --check, expected both; add --check")
        others = {"check": self.check, "preview": self.preview, "detach": self.detach, "auto-resume": self.auto_resume}
        refuse_beside_queue(self.queue, self.gpus, [name for name, is_given in others.items() if is_given])


Queued = Annotated[
    bool, typer.Option("--queue", help="Wait in this machine's queue until earlier runs have ended; see trainer queue.")
]
NumGpus = Annotated[
    int | None, typer.Option("--gpus", metavar="N", min=1, help="With --queue: GPUs of this run; all without it.")
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something that costs money.")]


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
    files: Annotated[
        bool, typer.Option("--files", help="With --check: list the files that would be uploaded.")
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
    queue: Queued = False,
    gpus: NumGpus = None,
    allow_change: AllowChange = None,
    yes: Yes = False,
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
        refuse_beside_queue(queue, gpus, ["detach"] if detach else [])
        found = find_run(resume, root)
        return _resume(found, Changes(overrides or (), allow_change or ()), detach, output, queue, gpus, yes)
    assert config is not None

    from trainer.config.load import load_config

    settings = rooted(context, load_config(config, overrides or []), overrides or [], root)
    if auto_resume and settings.run.name is None:
        raise ConfigError("--auto-resume: the run has no name, expected one that stays the same; set run.name")
    changes = Changes(allowed=allow_change or ())
    wishes = _Wishes(check, files, preview, detach, auto_resume, changes, queue, gpus, yes, output)
    wishes.refuse_contradictions()
    return _start(settings, wishes)


def train_as(settings: "RunConfig", words: Sequence[str], check: bool, yes: bool) -> int:
    """Start or resume the run of a config, or check it, as `train` does; the exit code.

    `words` are the arguments of `trainer` that do this again in other processes.
    """
    from trainer.backends.contract import Changes

    return _start(
        settings, _Wishes(check, False, None, False, True, Changes(), False, None, yes, Format.text, tuple(words))
    )


def refuse_beside_queue(queue: bool, gpus: int | None, others: Sequence[str]) -> None:
    """Raises: ConfigError, for options that contradict --queue, or mean nothing without it."""
    if gpus is not None and not queue:
        raise ConfigError("--gpus: is given without --queue, expected both; choose GPUs with CUDA_VISIBLE_DEVICES")
    if queue and others:
        raise ConfigError(*(f"--queue: is given with --{other}, expected one of them; remove one" for other in others))


def rooted(context: typer.Context, settings: "RunConfig", overrides: list[str], root: Path) -> "RunConfig":
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
    from trainer.backends.data_sources import with_local_data
    from trainer.backends.quote import hold_cap

    backend = backend_of(settings.backend.kind)
    if wishes.preview is not None and not backend.has_preview:
        raise ConfigError("--preview: is for backend.kind=local, expected none; add backend.kind=local to look")
    if wishes.auto_resume and not wishes.check and (run := backend.existing(settings)):
        return _resume(run, wishes.changes, wishes.detach, wishes.output, yes=wishes.yes)
    with Interruption() as interruption:
        try:
            settings = with_local_data(settings, say)
            backend.refuse_at_once(settings, wishes.auto_resume, wishes.detach, wishes.changes)
            if wishes.trains_here and (code := backend.in_processes(wishes.words or _words(), say)) is not None:
                return code
            notes = Notes()
            plan = _checked(backend, settings, notes, wishes)
            if wishes.preview is not None:
                _show_rows(backend.preview(plan), wishes.preview)
                return ExitCode.DONE
            if wishes.check:
                _show_check(plan, notes, wishes)
                return ExitCode.DONE
            show_plan(plan.rows, plan.quote, [check for check in plan.checks if check.outcome != "ok"])
            hold_cap(plan.quote, settings.backend.spend_cap)
            settle(plan.doubts)
            if plan.quote.bills:
                agree(f"start this run on {settings.backend.kind}?", wishes.yes or _is_capped(settings, wishes))
            run = backend.create(plan, wishes.auto_resume)
        except KeyboardInterrupt:
            say("stopped before training began; the same command begins again")
            return interruption.exit_code
        say(f"run {run.path}")
        if wishes.queue:
            return _enqueue(backend, run, wishes.gpus, plan.quote, wishes.output)
        begin = partial(backend.launch, plan, run, say, wishes.changes)
        return _carry_out(backend, run, begin, wishes.detach, wishes.output, interruption)


def _checked(backend: "Backend[Any]", settings: "RunConfig", notes: Notes, wishes: _Wishes) -> "Plan[Any]":
    """The plan of a run that starts now, or waits."""
    if not wishes.queue:
        return backend.check(settings, notes, wishes.auto_resume)
    from trainer.runs.queue import Queue, refuse_gpus

    refuse_gpus(wishes.gpus)
    Queue(Path(settings.run.root)).entries()  # a damaged file is known before a run is made
    return backend.check_waiting(settings, notes, wishes.gpus)


def _is_capped(settings: "RunConfig", wishes: _Wishes) -> bool:
    """True where nobody can be asked, and the owner has written down what a run that waits may cost."""
    return wishes.queue and settings.backend.spend_cap is not None and not sys.stdin.isatty()


def _enqueue(backend: "Backend[Any]", run: Run, num_gpus: int | None, quote: "Quote | None", output: Format) -> int:
    """Let the run wait; --format json prints it."""
    backend.enqueue(run, say, num_gpus, quote)
    if output is Format.json:
        print_run(run)
    return ExitCode.DONE


@command
def resume(
    run: RunName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change; see --allow-change.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Resume in the background; see trainer logs --follow.")
    ] = False,
    queue: Queued = False,
    gpus: NumGpus = None,
    allow_change: AllowChange = None,
    yes: Yes = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Resume a stopped run; the same as train --resume RUN."""
    from trainer.backends.contract import Changes

    refuse_beside_queue(queue, gpus, ["detach"] if detach else [])
    changes = Changes(overrides or (), allow_change or ())
    return _resume(find_run(run, root), changes, detach, output, queue, gpus, yes)


def _words() -> list[str]:
    """The arguments of `trainer` that repeat this command."""
    return [*(["train"] if Path(sys.argv[0]).name == "train" else []), *sys.argv[1:]]


def _resume(
    run: Run,
    changes: "Changes",
    detach: bool,
    output: Format,
    queue: bool = False,
    gpus: int | None = None,
    yes: bool = False,
) -> int:
    if (detach or queue) and changes:
        option = "--queue" if queue else "--detach"
        raise ConfigError(f"{option}: is given with changed settings, expected none; resume without {option}")
    from trainer.backends.data_sources import fetch_again

    fetch_again(run, say)
    backend = backend_of(run.backend)
    if queue:
        return _enqueue(backend, run, gpus, None, output)

    def begin() -> int | None:
        _resume_agreed(backend, run, changes, yes)
        return None if detach else backend.in_processes(_words(), say)

    with Interruption() as interruption:
        return _carry_out(backend, run, begin, detach, output, interruption)


def _resume_agreed(backend: "Backend[Any]", run: Run, changes: "Changes", yes: bool) -> None:
    """Resume; a run that would begin at a price that nobody has agreed to shows it and asks first."""
    from trainer.backends.quote import NotAgreed, note_agreed

    try:
        backend.resume(run, say, changes)
    except NotAgreed as error:
        show_plan((), error.quote)
        agree(f"start this run on {run.backend}?", yes)
        note_agreed(run, error.quote)
        backend.resume(run, say, changes)


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
        if outcome.exit_code is ExitCode.DONE and (words := failed_gate(run)):
            say(words)
            return ExitCode.GATE_FAILED
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


def _show_check(plan: "Plan[Any]", notes: Notes, wishes: _Wishes) -> None:
    """Price and verdict come last, below all that is long."""
    from trainer.backends.quote import hold_cap

    is_text = wishes.output is Format.text
    if plan.text and is_text:
        out.print(plan.text, markup=False)
    if wishes.files and is_text:
        for file in plan.files:
            out.print(f"{file.bytes:>14,}  {clean(file.path)}", markup=False)
    show_plan(plan.rows, plan.quote, plan.checks)
    hold_cap(plan.quote, plan.config.backend.spend_cap)
    if not is_text:
        from trainer.cli.documents.plans import train_check

        train_check(plan, notes.lines).print()
        return
    print_verdict("ready to train", plan.ready, plan.doubts)


def _show_rows(preview: "Preview", num_rows: int) -> None:
    from trainer.cli.preview import show_rows

    show_rows(preview.data, preview.renderer, preview.max_length, num_rows)
