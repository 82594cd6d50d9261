"""Progress of a run for a person: a live bar in a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trainer.runs.progress import figures

PLAIN_SECONDS = 10.0  # between two lines in a log file
SHOWN = ("train_loss", "train_mean_token_accuracy", "train_reward_accuracy", "valid_loss", "tokens_per_second")


class Display(Protocol):
    """Shows the last measurements of a run of `total` steps."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, step: int, measured: dict[str, float]) -> None: ...

    def say(self, message: str) -> None: ...


def make_display(console: Console, total: int) -> Display:
    """A bar where `console` is a terminal, else lines."""
    return Bar(console, total) if console.is_terminal else Lines(console, total)


class Bar:
    """A progress bar that is redrawn in place."""

    def __init__(self, console: Console, total: int) -> None:
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[measured]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self.task: TaskID = self.progress.add_task("training", total=total, measured="")
        self.last: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, step: int, measured: dict[str, float]) -> None:
        self.last |= measured
        self.progress.update(self.task, completed=step, measured=figures(self.last, SHOWN))

    def say(self, message: str) -> None:
        self.progress.console.print(message, highlight=False, markup=False)


class Lines:
    """A line every few seconds, and for each evaluation and the last step."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.last: dict[str, float] = {}
        self.started_at = self.shown_at = time.monotonic()
        self.first_step: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, step: int, measured: dict[str, float]) -> None:
        self.last |= measured
        if self.first_step is None:
            self.first_step = step - 1
        now = time.monotonic()
        if now - self.shown_at < PLAIN_SECONDS and "valid_loss" not in measured and step != self.total:
            return
        self.shown_at = now
        left = (now - self.started_at) / (step - self.first_step) * (self.total - step)
        self.say(f"step {step}/{self.total}  {figures(self.last, SHOWN)}  {left:,.0f} s left")

    def say(self, message: str) -> None:
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)
