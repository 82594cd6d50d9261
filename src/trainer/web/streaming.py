"""Server-sent events: what is new in files since a reader's cursor, and nothing twice.

A page names its cursor when it connects, and each read carries the next one, which the browser returns after a break
(Last-Event-ID). Files are looked at once per interval for all readers together; each reader then reads on by itself.

Beside the news a page gets the health of its feed, in each heartbeat and as soon as it changes: while the files cannot
be read it must not take what it shows for current.
"""

import asyncio
import contextlib
import json
import traceback
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import anyio.to_thread
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from trainer.runs.files import stamp
from trainer.web.problems import Problem

MOST_STREAMS = 64
POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
BETWEEN = "~"  # in no feed's cursor
HEALTH = "feed"  # the name of its event


@dataclass(frozen=True, slots=True)
class Event:
    """HTML that htmx swaps into the page; with a name, data that the page's script gets as a DOM event."""

    data: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """Events since a cursor, and the cursor after them."""

    events: Sequence[Event]
    cursor: str


class Feed(Protocol):
    """Something that grows or changes. Both methods run in a thread."""

    @property
    def key(self) -> Hashable:
        """Feeds of one key share their looks at the files."""

    def state(self) -> Hashable:
        """A value that differs as soon as there may be something new."""

    def since(self, cursor: str) -> Delta:
        """News since `cursor`; empty or unknown cursors get all that a reader needs. None left: no events."""


def state_of(paths: Iterable[Path]) -> Hashable:
    """Sizes and times of files, which differ once one has changed."""
    return tuple(map(stamp, paths))


class RenderedPart:
    """A part of a page, which is sent again where it reads otherwise. Its cursor is a digest of its text.

    `look` is a cheap value that differs where the part may, and `render` makes it.
    """

    def __init__(self, target: str, key: Hashable, look: Callable[[], Hashable], render: Callable[[], str]) -> None:
        self.target, self.key, self.look, self.render = target, key, look, render

    def state(self) -> Hashable:
        return self.look()

    def since(self, cursor: str) -> Delta:
        html = self.render()
        digest = digest_of(html)
        return Delta([] if digest == cursor else [partial(self.target, html)], digest)


def digest_of(html: str) -> str:
    """The cursor of a part that is rendered so."""
    return sha256(html.encode("utf-8", "replace")).hexdigest()[:16]


class Together:
    """Several feeds in one stream, since a page has one; `cursors` makes the cursor of theirs."""

    def __init__(self, *feeds: Feed) -> None:
        self.feeds = feeds
        self.key: Hashable = tuple(feed.key for feed in feeds)

    def state(self) -> Hashable:
        return tuple(feed.state() for feed in self.feeds)

    def since(self, cursor: str) -> Delta:
        known = [*cursor.split(BETWEEN), *[""] * len(self.feeds)]
        deltas = [feed.since(part) for feed, part in zip(self.feeds, known, strict=False)]
        return Delta(
            [event for delta in deltas for event in delta.events], cursors(*(delta.cursor for delta in deltas))
        )


def cursors(*parts: str) -> str:
    """The cursor of feeds that are sent together, in their order."""
    return BETWEEN.join(parts)


class _Health:
    """Success or failure of what is tried again and again, with the time of the last success."""

    def __init__(self) -> None:
        self.is_failing, self.succeeded_at = False, datetime.now(UTC)

    def succeeded(self) -> None:
        self.is_failing, self.succeeded_at = False, datetime.now(UTC)


class _Watcher:
    """Looks at the state of one key while anybody reads it, also after a look that failed."""

    def __init__(self, feed: Feed, poll_seconds: float, failed: Callable[[Exception], None]) -> None:
        self.feed, self.poll_seconds, self.failed = feed, poll_seconds, failed
        self.health = _Health()
        self.wakers: set[asyncio.Event] = set()
        self.task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def reader(self) -> Iterator[asyncio.Event]:
        """An event that is set when there may be news, or the health has changed."""
        waker = asyncio.Event()
        self.wakers.add(waker)
        if self.task is None:
            self.task = asyncio.create_task(self._watch())
        try:
            yield waker
        finally:
            self.wakers.discard(waker)
            if not self.wakers and self.task is not None:
                self.task.cancel()
                self.task = None

    async def _watch(self) -> None:
        before: Hashable = object()
        while True:
            was_failing = self.health.is_failing
            try:
                state = await anyio.to_thread.run_sync(self.feed.state)
                self.health.succeeded()
            except Exception as error:
                self.failed(error)
                self.health.is_failing = True
                state = before = object()  # the next look that succeeds is news
            if state != before or self.health.is_failing != was_failing:
                before = state
                for waker in self.wakers:
                    waker.set()
            await asyncio.sleep(self.poll_seconds)


class Streams:
    """Open streams of a server, at most `most` at a time."""

    def __init__(
        self, most: int = MOST_STREAMS, poll_seconds: float = POLL_SECONDS, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self.most, self.poll_seconds, self.heartbeat_seconds = most, poll_seconds, heartbeat_seconds
        self.watchers: dict[Hashable, _Watcher] = {}
        self.num_open = 0
        self.ending: asyncio.Event | None = None
        self.report: Callable[[Exception], None] = lambda error: None
        self._reported: set[tuple[object, ...]] = set()

    def failed(self, error: Exception) -> None:
        """Report a look or a read that failed, once for each type and place: the next one is a second away."""
        frames = traceback.extract_tb(error.__traceback__)
        kind = (type(error), *((frames[-1].filename, frames[-1].lineno) if frames else ()))
        if kind not in self._reported:
            self._reported.add(kind)
            self.report(error)

    def end(self) -> None:
        """End all streams, so that the server can stop; browsers connect again when it is back."""
        if self.ending is not None:
            self.ending.set()

    def open(self, request: Request, feed: Feed) -> "EventStream":
        """The response that streams `feed` from the request's cursor on. Raises: Problem, when all are taken."""
        if self.num_open >= self.most:
            raise Problem(503, f"stream: {self.most} pages are live already, which is the limit; close some of them")
        cursor = request.headers.get("last-event-id") or request.query_params.get("cursor", "")
        return EventStream(self, feed, cursor)

    @contextlib.contextmanager
    def _place(self, feed: Feed) -> Iterator[tuple[asyncio.Event, _Health]]:
        watcher = self.watchers.setdefault(feed.key, _Watcher(feed, self.poll_seconds, self.failed))
        self.num_open += 1
        try:
            with watcher.reader() as waker:
                yield waker, watcher.health
        finally:
            self.num_open -= 1
            if not watcher.wakers:
                self.watchers.pop(feed.key, None)


class EventStream:
    """A response that lasts until its reader leaves or the server stops."""

    def __init__(self, streams: Streams, feed: Feed, cursor: str) -> None:
        self.streams, self.feed, self.cursor = streams, feed, cursor
        self.reads = _Health()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = self.streams
        streams.ending = streams.ending or asyncio.Event()
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        work = asyncio.create_task(self._send_all(send))
        ends = [asyncio.create_task(_gone(receive)), asyncio.create_task(streams.ending.wait())]
        try:
            await asyncio.wait([work, *ends], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, *ends):
                task.cancel()
            await asyncio.gather(work, *ends, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        told = False
        with self.streams._place(self.feed) as (waker, looks):
            await _send(send, f"retry: {RETRY_MILLISECONDS}\n\n")
            while True:
                waker.clear()
                async for delta in self._news(waker):
                    await _send(send, _as_text(delta))
                if (is_failing := looks.is_failing or self.reads.is_failing) != told:
                    told = is_failing
                    await _send(send, _health_text(looks, self.reads))
                while not waker.is_set():
                    try:
                        await asyncio.wait_for(waker.wait(), self.streams.heartbeat_seconds)
                    except TimeoutError:  # writing it shows a connection that is gone, here and in the browser
                        await _send(send, _health_text(looks, self.reads))

    async def _news(self, waker: asyncio.Event) -> AsyncIterator[Delta]:
        """Deltas since the cursor; after a read that failed, the waker is set for another."""
        try:
            while (delta := await anyio.to_thread.run_sync(self.feed.since, self.cursor)).events:
                self.cursor = delta.cursor
                yield delta
            self.cursor = delta.cursor
            self.reads.succeeded()
        except Exception as error:
            self.streams.failed(error)
            self.reads.is_failing = True
            asyncio.get_running_loop().call_later(self.streams.poll_seconds, waker.set)


def _health_text(looks: _Health, reads: _Health) -> str:
    """The event of a feed's health. While all works a reader is as current as the looks, since it reads after news."""
    is_failing = looks.is_failing or reads.is_failing
    failing = [each.succeeded_at for each in (looks, reads) if each.is_failing]
    at = min(failing, default=looks.succeeded_at)
    health = {"failing": is_failing, "at": at.isoformat(timespec="seconds")}
    return event_text(Event(json.dumps(health), HEALTH))


async def _send(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True})


def _as_text(delta: Delta) -> str:
    """Events of the format. The last has the cursor: after a break between them, all of them come again."""
    *others, last = delta.events
    return "".join([*(event_text(event) for event in others), f"id: {delta.cursor}\n{event_text(last)}"])


def event_text(event: Event) -> str:
    """An event without a cursor, as it is sent. A line break of any kind in its data begins another `data` line."""
    lines = event.data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    fields = [*([f"event: {event.name}"] if event.name else []), *(f"data: {line}" for line in lines)]
    return "\n".join([*fields, "", ""])


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def partial(target: str, html: str, swap: str = "outerMorph") -> Event:
    """An event that puts `html` in the place of the element with the id `target`. Both are ours; values are escaped."""
    return Event(f'<hx-partial hx-target="#{target}" hx-swap="{swap}">{html}</hx-partial>')
