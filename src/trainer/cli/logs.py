"""`trainer logs`: what happened in a run, and with --follow its steps and losses until it ends."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.backends import ACTIVE, backend_of, print_last_output, refreshed
from trainer.cli.console import Debug, Format, Output, Root, RunName, clean, command, out, say
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run, find_run
from trainer.runs.files import NewLines, last_records, record_of
from trainer.runs.lifecycle import failed_gate, further, is_worked_on, last_output, pending_note, queue_note, silence
from trainer.runs.progress import in_words, seconds_left, total_steps
from trainer.runs.results import row_of

LEVEL_COLORS = {"warning": typer.colors.YELLOW, "error": typer.colors.RED}
ENDS = {
    "succeeded": ExitCode.DONE,
    "failed": ExitCode.RUN_FAILED,
    "cancelled": ExitCode.RUN_FAILED,
    "paused": ExitCode.RESUMABLE,
}


@command
def logs(
    run: RunName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show steps, losses and what happens until the run ends.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N things that happened.")
    ] = None,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> int:
    """Print what happened in a run, oldest first.

    With --follow it ends when the run ends, and as the run did: 0 succeeded, 1 failed or cancelled, 75 stopped and
    resumable, or silent. A job that lost its machine gets another, as train --resume does. Ctrl-C ends the command
    (130) and leaves the run alone. After a failure come the last lines that the run printed.
    """
    found = find_run(run, root)
    if output is Format.json:
        if follow:
            raise ConfigError(
                "--format json: is given with --follow, expected one of them; ask from time to time with: "
                f"trainer show {found.path} --format json"
            )
        _print_document(found, tail)
        return ExitCode.DONE
    events = NewLines(found.path / "events.jsonl")
    if tail is not None:
        refreshed(found)
        _print_events(found.in_order(last_records(events.path, tail)))
        events.skip()
    steps, waiting = _Steps(found) if follow else None, ""
    while True:
        state = refreshed(found, attended=follow).state
        over = (state not in ACTIVE and not is_worked_on(found)) or silence(found) is not None
        new = (record for line in events.read() if (record := record_of(line)) is not None)
        if steps is not None:  # which prints what was measured
            new = (record for record in new if record.get("type") != "metrics")
        _print_events(found.in_order(new))
        if steps is not None:
            waiting = _say_new(queue_note(found) or "", waiting)
            steps.print_new(is_going=state in ACTIVE)
        if over or not follow:
            break
        time.sleep(backend_of(found.backend, asks=False).poll_seconds)
    if note := pending_note(found):
        say(note)
    elif follow and state != "succeeded":
        reason = found.status().get("error")
        say(f"{found.name} is {state}{f': {reason}' if reason else ''}; {further(found)}")
    print_last_output(found)
    if follow and (reason := found.status().get("deployment_error")):
        say(f"its deployment failed: {reason}; try again: train --resume {found.path}")
        return ExitCode.RUN_FAILED
    if follow and (words := failed_gate(found)):
        say(words)
        return ExitCode.GATE_FAILED
    return ENDS.get(state, ExitCode.RESUMABLE) if follow else ExitCode.DONE  # silent: its process may be gone


def _say_new(note: str, said: str) -> str:
    """Say a note once; returns what was said last."""
    if note and note != said:
        say(note)
    return note


def _print_document(run: Run, tail: int | None) -> None:
    from trainer.cli.documents.runs import Logs, event_of, summary_of

    summary = summary_of(run, refresh=True)
    records = run.events() if tail is None else last_records(run.path / "events.jsonl", tail)
    events = [event for record in run.in_order(records) if (event := event_of(record)) is not None]
    Logs(run=summary, note=pending_note(run), events=events, output=last_output(run)).print()


class _Steps:
    """The measured steps of a run as they come, each once, after the last one that was there before."""

    def __init__(self, run: Run) -> None:
        self.run, self.lines, self.shown = run, NewLines(run.path / "results.csv"), 0.0
        self.waiting = self._read()[-1:]

    def _read(self) -> list[dict[str, float]]:
        return [row for line in self.lines.read() if (row := row_of(line)) is not None]

    def print_new(self, is_going: bool) -> None:
        rows, self.waiting = [*self.waiting, *self._read()], []
        new = [row for row in rows if row["step"] > self.shown]  # a resumed run's file begins anew
        if not new or out.quiet:
            return
        total, self.shown = total_steps(self.run), new[-1]["step"]
        for row in new:
            left = seconds_left(self.run, row["step"]) if is_going and row is new[-1] else None
            out.file.write(f"{in_words(row, total, left)}\n")
        out.file.flush()


def _print_events(events: Iterable[Mapping[str, Any]]) -> None:
    """By hand: rich takes longer for a line than everything else together."""
    if out.quiet:
        return
    in_color = out.is_terminal and not out.no_color
    for event in events:
        level, at = clean(str(event.get("level", ""))), clean(str(event.get("created_at", "")))[:19].replace("T", " ")
        words = f"{level:<7}"
        if in_color:
            at, words = typer.style(at, dim=True), typer.style(words, fg=LEVEL_COLORS.get(level))
        out.file.write(f"{at} {words} {clean(str(event.get('message', '')))}\n")
    out.file.flush()
