"""Streams of the studio: deltas from a cursor on, shared looks at the files, and an end with their reader."""

import json
import re
import threading
import time
from collections.abc import Hashable, Iterator
from datetime import datetime

import pytest
from starlette.requests import Request

from tests.studio import Stream, Studio, make_run, stream, studio, write_results, write_status
from tests.waiting import until
from trainer.web.app import studio_of
from trainer.web.routes import Access, Route
from trainer.web.server import STOP_SECONDS
from trainer.web.streaming import Delta, Event, EventStream, Together, cursors

CURSOR = re.compile(r"cursor=([^\"&]+)")


class Counter:
    """A feed of numbers; the cursor is the last one that was sent."""

    def __init__(self, name: str = "counter") -> None:
        self.key: Hashable = name
        self.number, self.looks = 0, 0

    def state(self) -> Hashable:
        self.looks += 1
        return self.number

    def since(self, cursor: str) -> Delta:
        seen = int(cursor or 0)
        return Delta([Event(f"{self.key} {number}") for number in range(seen + 1, self.number + 1)], str(self.number))


@pytest.fixture
def counted(tmp_path) -> Iterator[tuple[Studio, Counter]]:
    counter = Counter()

    def live(request: Request) -> EventStream:
        return studio_of(request).streams.open(request, counter)

    with studio(tmp_path, [Route("/live", live, Access.STREAM)], []) as served:
        yield served, counter


def is_left(served: Studio) -> bool:
    return served.server.studio.streams.num_open == 0


def test_a_reader_gets_what_is_new_and_resumes_at_its_cursor(counted):
    served, counter = counted
    counter.number = 2
    with stream(served, "/live") as reader:
        assert reader.answer.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert [reader.next()["data"], reader.next()["data"]] == ["counter 1", "counter 2"]
        counter.number = 3
        event = reader.next()
        assert (event["data"], event["id"]) == ("counter 3", "3")
    counter.number = 4
    with stream(served, "/live?cursor=1", Last_Event_ID=event["id"]) as reader:
        assert reader.next()["data"] == "counter 4"


def test_a_break_between_two_events_of_one_read_loses_neither(counted):
    served, counter = counted
    counter.number = 2
    with stream(served, "/live") as reader:
        first, second = reader.next(), reader.next()
    assert "id" not in first, "a browser returns the cursor before both"
    assert second["id"] == "2"


def test_a_reader_that_leaves_takes_its_watcher_along(counted):
    served, counter = counted
    streams = served.server.studio.streams
    with stream(served, "/live") as first, stream(served, "/live") as second:
        counter.number = 1
        assert first.next()["data"] == second.next()["data"] == "counter 1"
        assert (streams.num_open, len(streams.watchers)) == (2, 1)
    until(lambda: is_left(served), "the readers' places are free", 10, 0.02)
    assert streams.watchers == {}
    looks = counter.looks
    threading.Event().wait(0.3)
    assert counter.looks == looks


@pytest.mark.parametrize("method", ["state", "since"])
def test_a_page_goes_on_after_a_look_or_a_read_that_failed(method, counted):
    served, counter = counted
    works, failures = getattr(counter, method), []

    def breaks(*given):
        failures.append(given)
        raise FileNotFoundError("step-00000004")

    with stream(served, "/live") as reader:
        counter.number = 1
        assert reader.next()["data"] == "counter 1"
        setattr(counter, method, breaks)
        counter.number = 2
        until(lambda: len(failures) > 2, "it is tried again", 10, 0.02)
        events = [reader.next()]
        while "event" not in events[-1]:  # a look that fails leaves a read as it is
            events.append(reader.next())
        told = json.loads(events[-1]["data"])
        assert told["failing"], "the page is not current"
        setattr(counter, method, works)
        while len(events) < 3:
            events.append(reader.next())
        assert "counter 2" in [event["data"] for event in events]
        health = json.loads(events[-1]["data"])
        assert not health["failing"]
        assert datetime.fromisoformat(health["at"]) >= datetime.fromisoformat(told["at"])
        with stream(served, "/live?cursor=2") as second:
            counter.number = 3
            assert reader.next()["data"] == second.next()["data"] == "counter 3"
    assert [str(mistake) for mistake in served.mistakes] == ["step-00000004"], "said once, not at each look"
    served.mistakes.clear()


def test_many_readers_look_at_the_files_as_often_as_one(counted):
    served, counter = counted
    readers = [stream(served, "/live") for _ in range(8)]
    for reader in readers:
        reader.__enter__()
    until(lambda: served.server.studio.streams.num_open == 8, "all read", 10, 0.02)
    before = counter.looks
    threading.Event().wait(0.5)
    assert counter.looks - before <= 11
    for reader in readers:
        reader.__exit__(None, None, None)


def test_one_reader_too_many_is_refused(counted):
    served, counter = counted
    served.server.studio.streams.most = 1
    with stream(served, "/live") as first:
        counter.number = 1
        first.next()
        refused = served.get("/live")
        assert refused.status == 503
        assert "which is the limit" in refused.text


def test_a_silent_stream_sends_heartbeats(counted):
    served, _ = counted
    served.server.studio.streams.heartbeat_seconds = 0.05
    with stream(served, "/live") as reader:
        lines = [reader.answer.readline() for _ in range(9)]
    assert lines.count(b"event: feed\n") >= 2
    assert any(line.startswith(b'data: {"failing": false, "at": "20') for line in lines)


def test_a_server_ends_while_streams_are_open(tmp_path):
    def live(request: Request) -> EventStream:
        return studio_of(request).streams.open(request, Counter())

    with studio(tmp_path, [Route("/live", live, Access.STREAM)], []) as served:
        reader = Stream(served, "/live", {})
        begun = time.monotonic()
    assert time.monotonic() - begun < STOP_SECONDS - 1  # after that the server drops what is open
    reader.connection.close()


def test_data_of_many_lines_stays_one_event(counted):
    served, counter = counted
    counter.since = lambda cursor: Delta([] if cursor else [Event("a\nid: x\r\ndata: b\rc")], "1")  # type: ignore[method-assign]
    with stream(served, "/live") as reader:
        assert reader.next() == {"id": "1", "data": "a\nid: x\ndata: b\nc"}


def test_feeds_together_keep_their_own_cursors():
    first, second = Counter("a"), Counter("b")
    both = Together(first, second)
    first.number = 1
    found = both.since("")
    assert ([event.data for event in found.events], found.cursor) == (["a 1"], cursors("1", "0"))
    second.number = 2
    assert [event.data for event in both.since(found.cursor).events] == ["b 1", "b 2"]
    assert [event.data for event in both.since("1").events] == ["b 1", "b 2"]


@pytest.fixture
def listed(tmp_path) -> Iterator[Studio]:
    for number in range(3):
        make_run(
            tmp_path,
            f"run-{number}",
            "running",
            step=1,
            total_steps=9,
            created_at=f"2026-11-0{number + 1}T10:00:00+00:00",
        )
    with studio(tmp_path) as served:
        yield served


def live_address(served: Studio, page: str) -> str:
    found = re.search(r'hx-sse:connect="([^"]+)"', served.get(page).text)
    assert found is not None
    return found[1].replace("&amp;", "&")


def test_a_changed_run_is_sent_alone(listed, tmp_path):
    address = live_address(listed, "/runs")
    with stream(listed, address) as reader:
        write_results(tmp_path / "run-1", [{"step": 1, "train_loss": 2.0, "valid_loss": 1.25}])
        event = reader.next()
    assert "1.2500" in event["data"]
    assert "run-0" not in event["data"]
    assert "run-2" not in event["data"]


def test_a_page_that_was_away_gets_the_list_once_and_a_current_one_nothing(listed, tmp_path):
    address = live_address(listed, "/runs")
    make_run(tmp_path, "run-9", created_at="2026-11-09T10:00:00+00:00")
    with stream(listed, address) as reader:
        event = reader.next()
        assert 'hx-target="#rows"' in event["data"]
        assert event["data"].index("run-9") < event["data"].index("run-2")
        last = reader.next()
        assert "4 of 4 runs" in last["data"]
    with stream(listed, address, Last_Event_ID=last["id"]) as reader:
        write_results(tmp_path / "run-0", [{"step": 1, "valid_loss": 1.5}])
        assert "run-9" not in reader.next()["data"]


def test_a_run_of_another_filter_is_not_sent(listed, tmp_path):
    address = live_address(listed, "/runs?q=run-2")
    with stream(listed, address) as reader:
        write_results(tmp_path / "run-1", [{"step": 1, "valid_loss": 1.5}])
        threading.Event().wait(0.3)
        write_results(tmp_path / "run-2", [{"step": 1, "valid_loss": 1.75}])
        event = reader.next()
    assert "1.7500" in event["data"]
    assert "1.5000" not in event["data"]


def test_a_deleted_run_leaves_the_list_and_its_own_page_says_so(listed, tmp_path):
    from trainer.runs import Run

    with (
        stream(listed, live_address(listed, "/runs")) as reader,
        stream(listed, live_address(listed, "/runs/run-1")) as own,
    ):
        folder = tmp_path / "run-1"
        write_status(folder, state="succeeded", host="h", pid=1, updated_at="x")
        while "succeeded" not in own.next()["data"]:  # a change in the middle of a look is sent again
            pass
        Run(folder).delete()
        while "has been deleted" not in own.next()["data"]:
            pass
        while "2 of 2 runs" not in reader.next()["data"]:
            pass


def test_the_head_of_a_run_is_sent_where_it_changed(listed, tmp_path):
    address = live_address(listed, "/runs/run-0")
    with stream(listed, address) as reader:
        write_status(tmp_path / "run-0", state="failed", error="no memory is left", host="h", pid=1, updated_at="x")
        while "no memory is left" not in (event := reader.next())["data"]:
            pass
        assert event["data"].startswith('<hx-partial hx-target="#run-head"')
