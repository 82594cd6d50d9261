"""`trainer logs`: what happened in a run, and with --follow its steps and losses until it ends."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.console import Debug, Root, RunName, clean, command, out, say
from trainer.cli.remote import ACTIVE, refreshed
from trainer.runs import Run, find_run
from trainer.runs.growing import NewLines, last_records, record_of
from trainer.runs.pending import is_worked_on, pending_note
from trainer.runs.results import last_values

LEVEL_COLORS = {"warning": typer.colors.YELLOW, "error": typer.colors.RED}
FOLLOW_SECONDS = 0.5
REMOTE_SECONDS = 5.0  # a service is asked less often than a file


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
    debug: Debug = False,
) -> None:
    """Print what happened in a run, oldest first."""
    found = find_run(run, root)
    events, shown_step = NewLines(found.path / "events.jsonl"), None
    if tail is not None:
        refreshed(found)
        _print(last_records(events.path, tail))
        events.skip()
    while True:
        over = refreshed(found).state not in ACTIVE and not is_worked_on(found)
        _print(record for line in events.read() if (record := record_of(line)) is not None)
        if follow and (progress := _progress(found)) is not None and progress[0] != shown_step:
            shown_step = progress[0]
            out.file.write(f"{progress[1]}\n")
            out.file.flush()
        if over or not follow:
            break
        time.sleep(FOLLOW_SECONDS if found.backend == "local" else REMOTE_SECONDS)
    if note := pending_note(found):
        say(note)


def _print(events: Iterable[Mapping[str, Any]]) -> None:
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


def _progress(run: Run) -> tuple[float, str] | None:
    """The last measured step, and it in words with its losses and the time that is left."""
    values = last_values(run.path / "results.csv", ("step", "train_loss", "train_mean_token_accuracy", "valid_loss"))
    step, total = values.get("step"), run.status().get("total_steps")
    if step is None:
        return None
    parts = [f"step {step:.0f}{f'/{total}' if isinstance(total, int) else ''}"]
    if (loss := values.get("train_loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if (accuracy := values.get("train_mean_token_accuracy")) is not None:
        parts.append(f"accuracy {accuracy:.1%}")
    if (valid := values.get("valid_loss")) is not None:
        parts.append(f"valid {valid:.3f}")
    if isinstance(total, int) and total > step and (seconds := _seconds_per_step(run)) is not None:
        parts.append(f"about {seconds * (total - step):,.0f} s left")
    return step, "  ".join(parts)


def _seconds_per_step(run: Run) -> float | None:
    """From the tokens of a step and the tokens per second, as they were measured last."""
    for row in reversed(last_records(run.path / "metrics.jsonl", 1)):
        step, tokens, speed = (row.get(name) for name in ("step", "num_tokens", "tokens_per_second"))
        if all(isinstance(value, (int, float)) and value > 0 for value in (step, tokens, speed)):
            return float(tokens / step / speed)
    return None
