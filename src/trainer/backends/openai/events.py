"""Events of a job as lines of events.jsonl: each once, in the order in which they happened, in our words."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainer.backends.openai.client import PAGE_SIZE, Record, Service
from trainer.backends.openai.metrics import in_our_names
from trainer.backends.openai.statuses import level_of
from trainer.runs import Run, files

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

# "Step 31/40: training loss=0.07, validation loss=0.61, full validation loss=0.53"
STEP = re.compile(r"^Step (?P<step>\d+)(?:/(?P<total>\d+))?\b")
FIGURE = re.compile(r"(?P<name>full validation|validation|training) loss=(?P<value>[0-9.eE+-]+)")
LOSSES = {"training": "train_loss", "validation": "valid_loss", "full validation": "full_valid_loss"}


def bring_events(service: Service, run: Run, job_id: str) -> list[Record]:
    """Append what is new to the run's events; returns it. Called twice, the second time adds nothing."""
    known = {event["data"].get("service_id") for event in run.events() if isinstance(event.get("data"), dict)}

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        listing = client.fine_tuning.jobs.with_raw_response.list_events(job_id, extra_query=dict(query))
        return listing.http_response

    fresh: dict[str, Record] = {}
    num_known = 0
    for event in service.listed(page, "reading the job's events"):  # the newest come first
        name = str(event.get("id") or _digest(event))
        if name not in known:
            fresh.setdefault(name, _line(event, name))
            continue
        num_known += 1
        if num_known >= PAGE_SIZE:
            break
    oldest_first = list(reversed(fresh.values()))  # sorting keeps the order of those of one second
    lines = sorted(oldest_first, key=lambda line: line["created_at"])
    for line in lines:
        files.append_line(run.path / "events.jsonl", line)
    return lines


def time_of(seconds: object) -> str:
    """A time of the service as ours are written; where it gives none, the beginning of time."""
    number = seconds if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else 0
    try:
        return datetime.fromtimestamp(number, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="milliseconds")


def _line(event: Record, name: str) -> Record:
    message = str(event.get("message") or "")
    data = event.get("data")
    figures = _figures(message) | in_our_names(data if isinstance(data, dict) else {})
    return {
        "created_at": time_of(event.get("created_at")),
        "level": level_of(event.get("level")),
        "type": "metrics" if "step" in figures else "message",
        "message": message,
        "data": {"service_id": name} | figures,
    }


def _figures(message: str) -> dict[str, float]:
    """What the text of an event tells of a step; some services put it nowhere else."""
    step = STEP.match(message)
    if step is None:
        return {}
    found = {"step": float(step["step"])} | ({"total_steps": float(step["total"])} if step["total"] else {})
    for figure in FIGURE.finditer(message):
        try:
            found[LOSSES[figure["name"]]] = float(figure["value"].rstrip("."))
        except ValueError:
            continue
    return in_our_names(found)


def _digest(event: Record) -> str:
    """A name for an event that has none."""
    return hashlib.sha256(f"{event.get('created_at')} {event.get('message')}".encode()).hexdigest()[:16]
