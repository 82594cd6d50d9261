"""Pace of requests: what the endpoint asks for in refusals and headers, for all threads together."""

import re
import threading
import time
from collections.abc import Mapping

from trainer.backends.http import FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS

STEP_SECONDS = 0.2  # of a wait, after which a stop is noticed
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|)")  # 1s, 6m0s, 120ms; Azure: seconds without a unit
UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class Pace:
    """The moment before which nobody sends; and how long it is since the endpoint has answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._answered_at = time.monotonic()
        self._pause = FIRST_WAIT_SECONDS

    def wait(self, stop: threading.Event) -> None:
        """Wait until requests may be sent, or `stop` is set."""
        while not stop.is_set() and (left := self._not_before - time.monotonic()) > 0:
            stop.wait(min(left, STEP_SECONDS))

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take in an answer, and what its headers say about the next one."""
        with self._lock:
            self._answered_at, self._pause = time.monotonic(), FIRST_WAIT_SECONDS
            if (seconds := exhausted_seconds(headers)) > 0:
                self._not_before = max(self._not_before, time.monotonic() + seconds)

    def refused(self, asked: float | None) -> float:
        """Take in a refusal that may pass; everybody waits as it asks, else longer each time. Returns the seconds."""
        with self._lock:
            seconds = self._pause if asked is None else asked
            if self._not_before <= time.monotonic():  # of many at once the first one counts
                self._pause = min(self._pause * 2, MOST_WAIT_SECONDS)
            self._not_before = max(self._not_before, time.monotonic() + seconds)
            return seconds

    def silent_seconds(self) -> float:
        """Time since the last answer, or since the beginning."""
        return time.monotonic() - self._answered_at


def exhausted_seconds(headers: Mapping[str, str]) -> float:
    """Seconds until the limit of requests or tokens allows another one; 0 while it does."""
    lower = {str(name).lower(): str(value) for name, value in headers.items()}
    waits = [
        span_seconds(lower.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if lower.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return min(max(waits, default=0.0), MOST_WAIT_SECONDS)


def span_seconds(text: str) -> float:
    """Seconds of a span such as `1m30s`; 0 of anything else."""
    parts = SPAN.findall(text.strip())
    return sum(float(number) * UNITS[unit] for number, unit in parts) if SPAN.sub("", text.strip()) == "" else 0.0
