"""Limits of a chat template, which is a program that came with a model: its time, and the memory that it takes.

It runs in this process, as a row takes it a fraction of a millisecond, and may be run by several threads. One more
thread watches their processor time and the memory, and raises an exception in the one that takes too much; the kernel
refuses a single piece of memory that is too large. Nothing can interrupt a single operation on a giant number.
"""

import ctypes
import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MAX_SECONDS = 10.0  # of processor time for one conversation; templates take milliseconds
MAX_BYTES = 4 * 1024**3  # beyond what the process has: libraries may take memory meanwhile
WATCH_SECONDS = 0.2
AGAIN_SECONDS = 2.0  # an exception can be lost where Python ignores them, as in a destructor
MEMORY_SECONDS = 1.0  # how long it counts what the process has


class TemplateLimit(Exception):  # whoever catches it makes an error of it
    """A template takes more than it may."""


@dataclass(eq=False, slots=True)
class _Rendering:
    """One that is under way, and what had been taken when the watch first saw it."""

    thread: int
    seconds: float | None = None
    num_bytes: int = 0
    again: float = 0.0


def limited(work: Callable[[], T]) -> T:
    """Return the result of `work`. Raises: TemplateLimit or MemoryError, when it takes too much.

    The exception comes at any point of this thread's code until `end` has returned, so that all of it stands here.
    """
    rendering = _Rendering(threading.get_ident())
    _WATCH.begin(rendering)
    try:
        _MEMORY.limit()
        try:
            return work()
        except MemoryError:
            if not _MEMORY.outgrown():
                raise
            return work()
    finally:
        while rendering in _WATCH.running:
            try:
                _MEMORY.free()
                _WATCH.end(rendering)
            except TemplateLimit:
                pass


class _Watch:
    """A thread that is there from the first rendering on, and sleeps while there is none."""

    def __init__(self) -> None:
        self.running: set[_Rendering] = set()
        self.busy = threading.Event()
        self.never = threading.Event()
        self.turn = threading.RLock()
        self.thread: threading.Thread | None = None

    def begin(self, rendering: _Rendering) -> None:
        self.running.add(rendering)
        if not self.busy.is_set():
            self.busy.set()
        if self.thread is None:
            with self.turn:
                if self.thread is None:
                    self.thread = threading.Thread(target=self._watch, daemon=True, name="template-limits")
                    self.thread.start()

    def end(self, rendering: _Rendering) -> None:
        """From here on nothing is raised in its thread."""
        with self.turn:
            self.running.discard(rendering)

    def _watch(self) -> None:
        while True:
            self.busy.wait()
            self.never.wait(WATCH_SECONDS)
            for rendering in tuple(self.running.copy()):
                with self.turn:
                    if rendering in self.running and _takes_too_much(rendering):
                        _raise_in(rendering.thread)
            if not self.running:
                self.busy.clear()
                if self.running:  # one began meanwhile
                    self.busy.set()


class _Memory:
    """The kernel's limit of the address space, low while a template runs."""

    def __init__(self) -> None:
        self.own = self.low = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.until = 0.0
        self.taken = 0

    def limit(self) -> None:
        if not self.until:
            self.own = resource.getrlimit(resource.RLIMIT_AS)
        if (now := time.monotonic()) > self.until:
            taken = self.taken = _bytes(0)
            known = [limit for limit in (taken + MAX_BYTES, *self.own) if limit != resource.RLIM_INFINITY]
            self.low, self.until = (min(known), self.own[1]) if taken else self.own, now + MEMORY_SECONDS
        resource.setrlimit(resource.RLIMIT_AS, self.low)

    def outgrown(self) -> bool:
        """True if the process has grown since its measurement, as by a loaded model; it is then measured anew."""
        self.free()
        if _bytes(0) <= self.taken + MAX_BYTES // 2:
            return False
        self.until = 0.0
        self.limit()
        return True

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self.own)


def _takes_too_much(rendering: _Rendering) -> bool:
    seconds, num_bytes, now = _seconds_of(rendering.thread), _bytes(1), time.monotonic()
    if rendering.seconds is None:
        rendering.seconds, rendering.num_bytes = seconds, num_bytes
    if now < rendering.again:
        return False
    too_much = seconds - rendering.seconds > MAX_SECONDS or num_bytes - rendering.num_bytes > MAX_BYTES
    rendering.again = now + AGAIN_SECONDS if too_much else 0.0
    return too_much


def _seconds_of(thread: int) -> float:
    """Processor time, as the machine may be busy; the clock's, where a thread has none of its own."""
    if hasattr(time, "pthread_getcpuclockid"):
        with suppress(OSError):
            return time.clock_gettime(time.pthread_getcpuclockid(thread))
    return time.monotonic()


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TemplateLimit))


def _bytes(column: int) -> int:
    """Of this process: 0 for its address space, 1 for what is in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[column]) * resource.getpagesize()
    except OSError:
        return 0


_WATCH, _MEMORY = _Watch(), _Memory()


def _anew() -> None:
    """A copy of the process has no thread that watches."""
    global _WATCH
    _WATCH = _Watch()


os.register_at_fork(after_in_child=_anew)
