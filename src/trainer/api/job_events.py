"""Events of a job: those of its run, and between them its measurements, in the order of its steps."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse

from trainer.api.job import ENDED, Job
from trainer.api.job_state import plain, seconds_of, shown_job
from trainer.runs import files
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.progress import total_steps
from trainer.runs.results import COLUMNS
from trainer.web.app import studio_of

POLL_SECONDS = 0.5
LEVELS = {"info": "info", "warning": "warn", "error": "error"}
END = "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event, in OpenAI's form."""

    id: str
    created_at: int
    level: str
    message: str
    type: str = "message"
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> dict[str, Any]:
        return {
            "object": "fine_tuning.job.event", "id": self.id, "created_at": self.created_at, "level": self.level,
            "message": self.message, "type": self.type, "data": self.data,
        }  # fmt: skip


def events_of(job: Job) -> list[JobEvent]:
    """All events so far, the oldest first. A step's measurements come before what was noted at that step."""
    total, rows = total_steps(job.run), iter(job.run.results())
    waiting = next(rows, None)
    found: list[JobEvent] = []
    at = job.created_at
    lines = enumerate(files.read_lines(job.run.path / "events.jsonl"))
    for number, line in sorted(lines, key=lambda entry: str(entry[1].get("created_at", ""))):
        at = seconds_of(line.get("created_at")) or at
        step = (line.get("data") or {}).get("step")
        while isinstance(step, int) and waiting is not None and waiting["step"] <= step:
            found.append(_measured(job, waiting, total, at))
            waiting = next(rows, None)
        found.append(_told(job, number, line, at))
    measured_at = files.stamp(job.run.path / "results.csv")
    at = max(at, measured_at[2] // 10**9) if measured_at else at
    while waiting is not None:
        found.append(_measured(job, waiting, total, at))
        waiting = next(rows, None)
    return found


def _told(job: Job, number: int, line: dict[str, Any], at: int) -> JobEvent:
    level, data = LEVELS.get(str(line.get("level")), "info"), line.get("data")
    step = data.get("step") if isinstance(data, dict) else None
    shown = {"step": step} if isinstance(step, int) else {}
    words = plain(job, str(line.get("message", "")))
    return JobEvent(f"ftevent-{job.tail}e{number}", at, level, words, data=shown)


def _measured(job: Job, row: dict[str, float], total: int | None, at: int) -> JobEvent:
    step = int(row["step"])
    loss = row.get("train_loss", row.get("valid_loss"))
    words = f"Step {step}{'' if total is None else f'/{total}'}"
    if loss is not None:
        words += f": {'training' if 'train_loss' in row else 'validation'} loss={loss:.2f}"
    data = {"step": step, "total_steps": total} | {name: row[name] for name in COLUMNS[1:] if name in row}
    return JobEvent(f"ftevent-{job.tail}m{step}", at, "info", words, "metrics", data)


class JobStream:
    """Events as they come, each once, as server-sent events; it ends with the job."""

    def __init__(self, request: Request, job: Job) -> None:
        self.request, self.job, self.sent = request, job, set[str]()

    def answer(self) -> StreamingResponse:
        """The response, which lasts as long as the job or its reader."""
        return StreamingResponse(self._text(), media_type="text/event-stream")

    async def _text(self) -> AsyncIterator[str]:
        streams = studio_of(self.request).streams
        while True:
            has_ended, fresh = await anyio.to_thread.run_sync(self._news)
            for event in fresh:
                yield f"data: {json.dumps(event.shown)}\n\n"
            if has_ended:
                yield END
                return
            if await self.request.is_disconnected() or (streams.ending is not None and streams.ending.is_set()):
                return
            await anyio.sleep(POLL_SECONDS)

    def _news(self) -> tuple[bool, list[JobEvent]]:
        has_ended = shown_job(self.job)["status"] in ENDED  # before the events, which then are all
        fresh = [event for event in events_of(self.job) if event.id not in self.sent]
        self.sent |= {event.id for event in fresh}
        return has_ended, fresh


@dataclass(frozen=True, slots=True)
class JobCheckpoint:
    """A whole checkpoint, in OpenAI's form."""

    id: str
    shown: dict[str, Any]


def checkpoints_of(job: Job) -> Iterator[JobCheckpoint]:
    """The checkpoints that can be used, the newest first."""
    measured: dict[int, dict[str, float]] = {}
    for row in job.run.results():
        measured.setdefault(int(row["step"]), {}).update(row)
    for kept in reversed(list_checkpoints(job.run.checkpoints)):
        made = files.stamp(kept.path / "MANIFEST.json")
        if made is None or kept.problem(reads=False) is not None:
            continue
        at_step = measured.get(kept.step, {})
        figures = {name: at_step[name] for name in COLUMNS if name in at_step}
        id_ = f"ftckpt-{job.tail}{kept.step:x}"
        yield JobCheckpoint(
            id_,
            {
                "id": id_,
                "object": "fine_tuning.job.checkpoint",
                "created_at": made[2] // 10**9,
                "fine_tuned_model_checkpoint": job.checkpoint_name(kept.step),
                "fine_tuning_job_id": job.id,
                "step_number": kept.step,
                "metrics": {"step": kept.step} | figures,
            },
        )
