"""The run's files, brought up to date with what the service says of its job. The second time changes nothing."""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainer.backends.http import Say, patiently
from trainer.backends.openai import metrics
from trainer.backends.openai.adapter_home import bring_adapter, is_metrics
from trainer.backends.openai.catalog import family_of
from trainer.backends.openai.client import OURS, PAGE_SIZE, FineTuningService, Record
from trainer.backends.openai.jobs import ENDED, get_job, hyperparameters, state_of
from trainer.backends.openai.models import list_models
from trainer.backends.openai.names import job_thing, model_thing
from trainer.backends.openai.prices import cost, quoted_price
from trainer.backends.openai.upload import read_content
from trainer.config.load import dump_config
from trainer.errors import BackendError
from trainer.runs import Run, checkpoint, files
from trainer.runs.ledger import Ledger
from trainer.runs.run import Level, State

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

LEVELS: dict[str, Level] = {"info": "info", "warn": "warning", "warning": "warning", "error": "error"}
TOLD_STEPS, STEPS_APART = 100, 50  # of a job; where its length is not known
WHOLE = ("n_epochs", "batch_size")


def bring_home(service: FineTuningService, run: Run, job_id: str, say: Say) -> list[Record]:
    """Bring the run's files up to date, its state last; returns the events that are new."""
    job = patiently(lambda: get_job(service, job_id), f"reading the job {job_id}", say)
    fresh = _bring_events(service, run, job_id)
    found = _checkpoints(service, job_id)
    _write_checkpoints(run, found)
    rows = [event["data"] for event in run.events() if event.get("type") == "metrics"]
    rows += [{"step": float(step)} | item["metrics"] for step, item in found.items()]
    rows += _result_rows(service, job, say)
    merged = metrics.by_step(rows)
    run.write_results(metrics.results(merged))
    _write_metrics(run, metrics.others(merged))
    _write_config(run, job)
    _write_ledger(service, run, job)
    if state_of(job.get("status")) == "succeeded":
        bring_adapter(service, run, job, say)
    _write_status(service, run, job, merged)
    return fresh


def is_told(event: Record) -> bool:
    """True for a line of events that a terminal shows: of thousands of steps about a hundred."""
    step, total = (event["data"].get(name) for name in ("step", "total_steps"))
    if event["type"] != "metrics" or not step:
        return True
    apart = max(1, math.ceil(total / TOLD_STEPS)) if total else STEPS_APART
    return bool(step == 1 or step == total or step % apart == 0)


def time_of(seconds: object) -> str:
    """A time of the service as ours are written; where it gives none, the beginning of time."""
    number = seconds if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else 0
    try:
        return datetime.fromtimestamp(number, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="milliseconds")


def level_of(word: object) -> Level:
    """The level of an event; what is unknown is worth a look."""
    return LEVELS.get(str(word or "info").lower(), "warning")


def _bring_events(service: FineTuningService, run: Run, job_id: str) -> list[Record]:
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


def _line(event: Record, name: str) -> Record:
    message = str(event.get("message") or "")
    data = event.get("data")
    figures = metrics.in_text(message) | metrics.in_our_names(data if isinstance(data, dict) else {})
    return {
        "created_at": time_of(event.get("created_at")),
        "level": level_of(event.get("level")),
        "type": "metrics" if "step" in figures else "message",
        "message": message,
        "data": {"service_id": name} | figures,
    }


def _digest(event: Record) -> str:
    """A name for an event that has none."""
    return hashlib.sha256(f"{event.get('created_at')} {event.get('message')}".encode()).hexdigest()[:16]


def _checkpoints(service: FineTuningService, job_id: str) -> dict[int, Record]:
    """The checkpoints by step: the model that was made of each, and what was measured at it."""

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        listing = client.fine_tuning.jobs.checkpoints.with_raw_response.list(job_id, extra_query=dict(query))
        return listing.http_response

    found: dict[int, Record] = {}
    for item in service.listed(page, "reading the job's checkpoints"):
        step, measured = item.get("step_number"), item.get("metrics")
        model = item.get("fine_tuned_model_checkpoint") or item.get("id")
        if isinstance(step, (int, float)) and model:
            figures = metrics.in_our_names(measured if isinstance(measured, dict) else {})
            made = {"id": item.get("id"), "model": str(model), "created_at": time_of(item.get("created_at"))}
            found[int(step)] = made | {"metrics": {key: value for key, value in figures.items() if key != "step"}}
    return found


def _write_checkpoints(run: Run, found: Mapping[int, Record]) -> None:
    """A folder for each checkpoint that can be used; of older ones the service keeps nothing."""
    for step, item in found.items():
        there = checkpoint.Checkpoint(checkpoint.folder_of(run.checkpoints, step))
        if there.problem() is not None or there.state() != item:
            checkpoint.write(run.checkpoints, step, {}, item)
    for there in checkpoint.list_checkpoints(run.checkpoints):
        if found and there.step not in found:
            there.delete()


def _result_rows(service: FineTuningService, job: Record, say: Say) -> list[metrics.Figures]:
    """The rows of the job's result files, which exist once it has ended."""
    rows: list[metrics.Figures] = []
    for name in job.get("result_files") or []:
        file_id = str(name.get("id") if isinstance(name, dict) else name)

        if not is_metrics(service, file_id, say):
            continue
        content = read_content(service, file_id, f"reading the result file {file_id}", say)
        rows += metrics.read_csv(content or b"")  # deleted, or not there yet
    return rows


def _write_metrics(run: Run, rows: list[metrics.Figures]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = run.path / "metrics.jsonl"
    if text and (not path.is_file() or path.read_text(encoding="utf-8") != text):
        files.write_whole(path, text)


def _write_config(run: Run, job: Record) -> None:
    """The numbers that the service has chosen in the place of `auto`."""
    config = run.config()
    changes: dict[str, Any] = {}
    for name, value in hyperparameters(job).items():
        changes[name] = int(value) if name in WHOLE else float(value)
    seed = job.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0:
        changes["seed"] = seed
    beta, dpo = changes.pop("beta", None), config.training.dpo
    unresolved = {name: value for name, value in changes.items() if getattr(config.training, name) == "auto"}
    if beta is not None and dpo.beta == "auto":
        unresolved["dpo"] = dpo.model_copy(update={"beta": beta})
    if unresolved:
        training = config.training.model_copy(update=unresolved)
        files.write_whole(run.path / "config.yaml", dump_config(config.model_copy(update={"training": training})))


def _write_ledger(service: FineTuningService, run: Run, job: Record) -> None:
    """A job that has ended bills no more; its model is a thing of its own."""
    ledger, ended = Ledger(run.path), state_of(job.get("status")) in ENDED
    thing = job_thing(run, service.place, bills="")
    entry = ledger.find("job", thing.key)
    if ended and entry is not None and entry.thing.bills:
        ledger.write(thing, "exists", id=job["id"])
    model = job.get("fine_tuned_model")
    if model and ledger.find("model", str(model)) is None:
        ledger.write(model_thing(run, str(model), service.place), "exists", id=str(model))


def _write_status(service: FineTuningService, run: Run, job: Record, merged: Mapping[int, metrics.Figures]) -> None:
    before = run.status()
    word = str(job.get("status"))
    state: State = state_of(word) or ("running" if before["state"] in ENDED else before["state"])
    details = {
        "job": job["id"],
        "service_status": word,
        "step": max(merged, default=None),
        "total_steps": _total_steps(merged),
        "fine_tuned_model": job.get("fine_tuned_model"),
        "trained_tokens": job.get("trained_tokens"),
        "finished_at": time_of(job["finished_at"]) if state in ENDED and job.get("finished_at") else None,
        "estimated_finish": time_of(job["estimated_finish"]) if job.get("estimated_finish") else None,
        "error": _error(job) if state == "failed" else None,
        "model_until": before.get("model_until") or (_until(service, job) if state == "succeeded" else None),
        "summary": _summary(run, job, state),
    }
    if state_of(word) is None and before.get("service_status") != word:
        run.event(f"the service calls the state of the job {word!r}, which is not known here", level="warning")
    if state != before["state"] or any(before.get(name) != value for name, value in details.items()):
        run.set_status(state, **details)


def _until(service: FineTuningService, job: Record) -> str | None:
    """Until when the model will answer, where the service says so."""
    name, found = job.get("fine_tuned_model"), None
    try:
        found = next((model for model in list_models(service) if model.name == name), None)
    except BackendError:  # worth no more than a look
        return None
    return None if found is None or found.inference_until is None else found.inference_until.isoformat()


def _total_steps(merged: Mapping[int, metrics.Figures]) -> int | None:
    return next((int(row["total_steps"]) for row in reversed(list(merged.values())) if "total_steps" in row), None)


def _error(job: Record) -> str:
    """Reason of the job's failure, in the service's words."""
    error = job.get("error")
    if not isinstance(error, dict):
        return str(error or "the service gives no reason")
    parts = [str(error.get(name)) for name in ("code", "param", "message") if error.get(name)]
    return ": ".join(parts) or "the service gives no reason"


def _summary(run: Run, job: Record, state: State) -> str | None:
    """The result in one line: the model, and what was billed for it."""
    if state != "succeeded":
        return None
    model, tokens = job.get("fine_tuned_model"), job.get("trained_tokens")
    if not isinstance(tokens, int):
        return f"model {model}"
    if run.config().openai.service == OURS:
        return f"model {model}; {tokens:,} tokens trained"
    family = family_of(str(job.get("model") or run.config().model.base))
    amount = cost(tokens, quoted_price(run, family))
    billed = "" if amount is None else f", about {amount:,.2f} USD"
    return f"model {model}; {tokens:,} trained tokens billed{billed}"
