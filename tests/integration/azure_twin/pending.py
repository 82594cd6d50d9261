"""What takes time at Azure, and is polled until it has ended."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.integration.azure_twin.refusals import Body


@dataclass
class Operation:
    """What takes time: polled `polls` times while it is under way, unless `ends` says when it has ended."""

    path: str
    finish: Callable[[], None]
    polls: int
    ends: Callable[[], bool] = lambda: True
    status: str = "InProgress"
    error: Body | None = None

    def poll(self) -> None:
        self.polls -= 1
        if self.status == "InProgress" and self.polls < 0 and self.ends():
            self.status = "Succeeded"
            self.finish()
