"""Work on many things at a time."""

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from trainer.workshop.asking.pace import STEP_SECONDS
from trainer.workshop.asking.sender import Ended

T = TypeVar("T")


def side_by_side(work: Callable[[T], None], things: deque[T], count: int, stop: threading.Event) -> None:
    """Work on things with threads that a second Ctrl-C need not wait for. Raises: Ended, and what `work` raises."""
    errors: list[BaseException] = []

    def take() -> None:
        while not stop.is_set():
            try:
                work(things.popleft())
            except IndexError:
                return
            except BaseException as error:
                errors.append(error)
                stop.set()

    threads = [threading.Thread(target=take, daemon=True) for _ in range(min(count, len(things)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(STEP_SECONDS)
    if errors:
        raise next((error for error in errors if not isinstance(error, Ended)), errors[0])
    if things:
        raise Ended("stopped")
