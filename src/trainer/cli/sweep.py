"""`trainer sweep`: a grid of settings as runs in the queue of this machine, and the best of them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from trainer.cli.backends import ACTIVE, agree, backend_of, print_verdict, settle
from trainer.cli.console import Debug, Format, Output, Root, command, out, say
from trainer.cli.train import Yes, rooted
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run
from trainer.runs.lifecycle import failed_gate, is_worked_on, queue_note, silence
from trainer.runs.queue import Queue, entry_of, refuse_gpus
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.backends.quote import Quote
    from trainer.backends.sweep import Member

MAX_RUNS = 64
POLL_SECONDS = 0.5
GRACE_SECONDS = 20.0  # in which a worker that was just started loads
CAP = "raise it, or give fewer values"


@command
def sweep(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of all runs.")],
    settings: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE,VALUE...", help="Values of each setting, e.g. lora.r=8,16.")
    ],
    check: Annotated[bool, typer.Option("--check", help="Verify each run and show the grid; start nothing.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait until all runs have ended, and compare them.")
    ] = False,
    cap: Annotated[
        float | None,
        typer.Option("--cap", metavar="USD", min=0, help="The most the whole grid may cost; else backend.spend_cap."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", min=1, help="GPUs of each run; all without it.")
    ] = None,
    max_runs: Annotated[int, typer.Option("--max-runs", metavar="N", min=1, help="Refuse a larger grid.")] = MAX_RUNS,
    yes: Yes = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Run every combination of some settings, one after another, and compare the results.

    trainer sweep own.yaml training.learning_rate=1e-4,2e-4 lora.r=8,16

    Each run is checked first; then all wait in the queue, named by their values. A list in brackets is one value. The
    same command again continues: it adds only runs that are missing. What bills needs a cap for the whole grid.

    With --follow it ends when all runs have: 0 succeeded, 1 one failed or was cancelled, 75 one is stopped and can be
    resumed, 3 a gate does not hold. Ctrl-C ends the command (130) and leaves the runs alone.
    """
    from trainer.backends.sweep import check_members, quote_of
    from trainer.config.grid import combinations

    if check and follow:
        raise ConfigError("--follow: is given with --check, which starts nothing, expected one of them; remove one")
    refuse_gpus(gpus)
    wanted = combinations(settings, max_runs)
    backends, notes = cache(backend_of), _NotesOnce()
    with Interruption() as interruption:
        try:
            members = check_members(
                config, wanted, backends, lambda found: rooted(context, found, settings, root), gpus, notes
            )
            Queue(members[0].path.parent).entries()  # a damaged file is known before a run is made
            backend = members[0].settings.backend
            allowed, quote = backend.spend_cap if cap is None else cap, quote_of(members)
            grid = _Grid(members, quote, allowed, list(dict.fromkeys(_doubts(members))), notes.lines, output)
            _show(members, quote)
            _hold(quote, allowed, "backend.spend_cap" if cap is None else "--cap", check)
            if check:
                if grid.is_text:
                    print_verdict("ready to train", "nothing has been created and nothing bills", grid.doubts)
                grid.print()
                return ExitCode.DONE
            missing = [member for member in members if member.waits_to_begin]
            if missing:
                settle(grid.doubts)
            if any(member.price is not None for member in missing):
                agree(f"start {_counted(len(missing))} on {backend.kind}?", yes or not sys.stdin.isatty())
            grid.num_enqueued = _enqueue(missing, backends(backend.kind), gpus)
        except KeyboardInterrupt:
            say("stopped; the same command puts into the queue what is missing")
            return interruption.exit_code
        return _end(grid, follow, interruption)


class _NotesOnce:
    """Says each line once, however many runs it is about, and keeps it for a document."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, message: str) -> None:
        if message not in self.lines:
            self.lines.append(message)
            say(message)


@dataclass
class _Grid:
    """A checked grid, and what is printed of it with --format json once the end is known."""

    members: "Sequence[Member]"
    quote: "Quote"
    cap: float | None
    doubts: Sequence[str]
    notes: Sequence[str]
    output: Format
    num_enqueued: int = 0

    @property
    def is_text(self) -> bool:
        return self.output is Format.text

    @property
    def runs(self) -> list[Run]:
        return [member.run for member in self.members]

    def print(self, verdict: tuple[str, str] | None = None) -> None:
        """Nothing for people, who have read it on the way."""
        if self.is_text:
            return
        from trainer.cli.documents.sweep import sweep_of

        states = {run.name: run.state for run in self.runs if run.path.is_dir()}
        cap, found = self.cap if self.quote.bills else None, (self.doubts, self.notes)
        sweep_of(self.members, states, self.quote, cap, self.num_enqueued, found, verdict).print()


def _doubts(members: "Sequence[Member]") -> list[str]:
    return [doubt for member in members if member.plan is not None for doubt in member.plan.doubts]


def _show(members: "Sequence[Member]", quote: "Quote") -> None:
    """The grid: each run with its values and what it takes; below, what all of them cost."""
    titles = [key for key, _ in members[0].combination.varied]
    out_rows = [
        (member.path.name, *(value for _, value in member.combination.varied), _state(member), _takes(member))
        for member in members
    ]
    rows = [("run", *titles, "state", "takes"), *out_rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in quote.lines() if quote.bills else ():
        say(f"cost  {line}")


def _state(member: "Member") -> str:
    return "new" if member.waits_to_begin else member.run.state


def _takes(member: "Member") -> str:
    """Money, or steps and tokens, as far as they are known."""
    if (price := member.price) is not None:
        return "price not known" if price.total is None else f"{price.total:,.2f} {price.currency}"
    numbers = None if member.plan is None else member.plan.numbers
    if numbers is None:
        return ""
    return f"{numbers.total_steps:,} steps, {numbers.num_tokens * numbers.n_epochs:,} tokens"


def _hold(quote: "Quote", cap: float | None, name: str, check: bool) -> None:
    """Raises: ConfigError, for a grid that bills above the cap, or without one; a check only says that."""
    from trainer.backends.quote import hold_cap

    if not quote.bills:
        if name == "--cap":
            raise ConfigError("--cap: is given and nothing of this grid bills, expected none; remove it")
        return
    if cap is not None:
        hold_cap(quote, cap, CAP, name)
        return
    words = "--cap: is not given, and these runs bill, expected the most that they may cost together; add --cap USD"
    if not check:
        raise ConfigError(words)
    say(words)


def _enqueue(missing: "Sequence[Member]", backend: Any, num_gpus: int | None) -> int:
    from trainer.backends.sweep import enqueue

    done = 0
    try:
        for member in missing:
            enqueue(member, backend, num_gpus)
            done += 1
    finally:
        if missing:
            root = missing[0].path.parent
            say(f"{done} of {_counted(len(missing))} put into the queue; see all: trainer queue --root {root}")
    return done


def _counted(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"


def _end(grid: _Grid, follow: bool, interruption: Interruption) -> int:
    """Wait and compare, or say how to."""
    runs = grid.runs
    queue = Queue(runs[0].path.parent)
    if any(entry.waits for entry in queue.entries()):
        queue.start_worker()  # an earlier one may be gone
    if not follow:
        say(f"compare them at the end: trainer compare {' '.join(run.name for run in runs)} --root {queue.root}")
        grid.print()
        return ExitCode.DONE
    try:
        _wait(runs)
        verdict = _compare(runs, queue.root, grid.is_text)
    except KeyboardInterrupt:
        say("the runs continue; wait for them again with the same command")
        grid.print()
        return interruption.exit_code
    grid.print(verdict)
    return _code(runs)


def _wait(runs: Sequence[Run]) -> None:
    """Until each run has ended; says how each did."""
    left, said, begun = list(runs), set[str](), time.monotonic()
    while left:
        for run in list(left):
            state = run.state
            if (state not in ACTIVE and not is_worked_on(run)) or silence(run) is not None:
                left.remove(run)
                say(f"{run.name}: {state}{_why(run)}")
            elif run.name not in said and time.monotonic() - begun > GRACE_SECONDS and _lacks_worker(run):
                said.add(run.name)
                say(f"{run.name} {queue_note(run)}")
        if left:
            time.sleep(POLL_SECONDS)


def _lacks_worker(run: Run) -> bool:
    place = entry_of(run.path)
    return place is not None and not place.has_worker


def _why(run: Run) -> str:
    """The reason of an end that is no success, and where to look."""
    error = run.status().get("error")
    return "" if run.state == "succeeded" else f"{f': {error}' if error else ''}; see: trainer show {run.path}"


def _compare(runs: Sequence[Run], root: Path, is_text: bool) -> tuple[str, str] | None:
    """The best run and the verdict; None, and the reason in words, where they cannot be compared."""
    from trainer.cli.evaluate import MAX_NAME, show_standings
    from trainer.inference.report.standings import leaders, write_comparison

    done = [run for run in runs if run.state == "succeeded"]
    if len(done) < 2:
        say(f"{len(done)} of {len(runs)} runs succeeded, too few to compare")
        return None
    page = root / f"{'-vs-'.join(run.name for run in done)[:MAX_NAME]}.html"
    try:
        sentence, ranked = write_comparison(done, page)
    except ConfigError as error:
        say(str(error))
        return None
    best = leaders(ranked)[0].name
    if is_text:
        show_standings(ranked)
        out.print(escape(sentence), style="bold")
    say(f"page  {page}\nbest  {best}; try it: trainer chat {root / best}")
    return best, sentence


def _code(runs: Sequence[Run]) -> ExitCode:
    """The worst end of a run."""
    states = {run.state for run in runs}
    if states & {"failed", "cancelled"}:
        return ExitCode.RUN_FAILED
    if states != {"succeeded"}:
        return ExitCode.RESUMABLE
    return ExitCode.GATE_FAILED if any(map(failed_gate, runs)) else ExitCode.DONE
