"""The product's commands in this process, and what each has left."""

import io
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass


@dataclass
class Done:
    """What a command has left: `waited_seconds` counts the waits that were not really waited."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    waited_seconds: float = 0.0
    real_seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.out + self.err


def performed(
    words: tuple[str, ...], waited: Callable[[], float], *surroundings: AbstractContextManager[object]
) -> Done:
    """Run a command within `surroundings`; `waited` tells the waits so far that were not really waited."""
    from trainer.cli.main import train_app, trainer_app

    app, arguments = (train_app, words[1:]) if words[0] == "train" else (trainer_app, words)
    out, err, code, begun, before = io.StringIO(), io.StringIO(), 0, time.perf_counter(), waited()
    with ExitStack() as stack:
        for entered in (*surroundings, redirect_stdout(out), redirect_stderr(err)):
            stack.enter_context(entered)
        try:
            app(args=list(arguments), standalone_mode=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
    seconds = time.perf_counter() - begun
    return Done(words, code, out.getvalue(), err.getvalue(), waited() - before, seconds)
