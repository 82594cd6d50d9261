"""One run: a folder whose files are the interface between training, commands, dashboards and people.

config.yaml      the settings, resolved (no `auto` left)         status.json     state, step, process, error
manifest.json    data, base model, versions, hardware;          events.jsonl    what happened, in words
                 every row that on_overlength touched
results.csv      loss and token accuracy by step                metrics.jsonl   everything else that is measured
checkpoints/     resumable states by step                       adapter/        the result, in PEFT's format
lock.json        the process that writes, while it does         output.log      what a run in the background printed
process.json     the process of a run in the background         request.json    pause or cancel, until it is answered
reference.safetensors   of preference training, the reference's log-probabilities of every answer
report/          base and tuned model on held-out rows, as a page and as JSON
ledger.jsonl     what the run has created at a service, and what of it still bills
data/            of a job of the API, its rows           findings.jsonl  what is wrong with them
api_job.json, api_admission.json, api_outcome.json, api_deleted.json: that job, from its request to its model's end
.azure-llm-trainer   the sign that train made this folder, so that it may be deleted
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import ExitCode
from trainer.kinds import executes_here, is_kind
from trainer.runs import files, results
from trainer.runs import manifest as manifests
from trainer.runs.manifest import DamagedManifest, Manifest
from trainer.runs.ownership import STATES, remove
from trainer.runs.process import is_alive, process_of, this_process
from trainer.runs.queue import entry_of

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig

Request = Literal["pause", "cancel"]
State = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warning", "error"]

CONFIG = "config.yaml"
LAUNCHED = "process.json"
OUTPUT = "output.log"
WHOLE = ("step", "total_steps", "adapter_step", "trained_tokens")  # numbers of a status
TEXTS = ("summary", "error", "created_at", "updated_at", "finished_at", "model_until", "fine_tuned_model")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A code for the shell, a sentence for people, and how to try the model if not by talking to it at once."""

    exit_code: ExitCode
    summary: str
    try_it: str = ""  # a command


class Run:
    """A run's folder. Readable at any instant; written by the one process that executes the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def reference(self) -> Path:
        """Log-probabilities of every answer by the reference of preference training."""
        return self.path / "reference.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def comparison(self) -> dict[str, Any]:
        """The comparison of base and tuned model; empty before it is made, and where the file is damaged."""
        found = files.read_record(self.report / "report.json")
        verdict = found.get("verdict")
        return found if isinstance(verdict, dict) and isinstance(verdict.get("sentence"), str) else {}

    def verdict_sentence(self) -> str:
        """The verdict of the comparison; empty where there is no comparison."""
        found = self.comparison()
        return str(found["verdict"]["sentence"]) if found else ""

    def remarks(self) -> list[str]:
        """Remarks without which the comparison's sentence misleads."""
        found = self.comparison().get("verdict", {}).get("remarks")
        return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []

    def base_name(self) -> str | None:
        """model.base of the config, None where it names none; a hundred times faster than `config`. Raises: OSError."""
        import yaml

        lines = iter((self.path / CONFIG).read_text(encoding="utf-8", errors="replace").splitlines())
        head = next((line for line in lines if line.startswith("model:")), None)
        if head is None:
            return None
        section = takewhile(lambda line: not line or line[0] in " \t#", lines)
        try:
            values: Any = yaml.safe_load("\n".join([head, *section]))
        except (yaml.YAMLError, RecursionError):
            return None
        model = values.get("model") if isinstance(values, dict) else None
        base = model.get("base") if isinstance(model, dict) else None
        return base if isinstance(base, str) else None

    def config(self) -> "RunConfig":
        """The resolved settings of this run."""
        from trainer.config.load import load_config  # pydantic is slow to import, and listing runs needs none

        return load_config(self.path / CONFIG)

    def manifest(self) -> Manifest:
        """The run's origin. Raises: ConfigError, when no file says it, or a newer version wrote the file."""
        if (found := self.find_manifest()) is None:
            raise DamagedManifest(self.path / manifests.NAME)
        return found

    def find_manifest(self) -> Manifest | None:
        """The run's origin, None before it is written. Raises: ConfigError, where the file is damaged or newer."""
        return manifests.read(self.path / manifests.NAME)

    def write_manifest(self, manifest: Manifest) -> None:
        files.write_json(self.path / manifests.NAME, manifest.as_json())

    def status(self) -> dict[str, Any]:
        """The last status written, without damaged details; a run on this machine without its process is paused."""
        written = files.read_record(self.path / "status.json")
        unfit = unfit_details(written)
        status = {"state": "queued"} | {name: value for name, value in written.items() if name not in unfit}
        if status["state"] not in STATES:
            status["state"] = "paused"
        if executes_here(status.get("backend", "local")) and self._is_abandoned(status):
            status["state"] = "paused"
        return status

    def _is_abandoned(self, status: dict[str, Any]) -> bool:
        """True where the process that should advance the run is gone."""
        if status["state"] in ("running", "validating_files"):
            return not is_alive(status)
        if status["state"] != "queued" or "pid" not in status or is_alive(status) or self.is_launched:
            return False
        return entry_of(self.path) is None

    def launched(self, pid: int) -> None:
        """Note the process in the background that is to execute the run; it writes the status itself."""
        files.write_json(self.path / LAUNCHED, process_of(pid))

    @property
    def is_launched(self) -> bool:
        """True while a process in the background works on the run, or is about to."""
        process = files.read_record(self.path / LAUNCHED)
        return bool(process) and is_alive(process)

    @property
    def backend(self) -> str:
        """Backend that executes the run, in the config's word."""
        return str(self.status().get("backend", "local"))

    @property
    def state(self) -> State:
        state: State = self.status()["state"]
        return state

    def set_status(self, state: State, **details: Any) -> None:
        """Move to `state`, keeping earlier details that are not given anew; a detail of None is removed."""
        before = files.read_record(self.path / "status.json")
        merged = before | {"state": state, "updated_at": now()} | this_process() | details
        files.write_json(self.path / "status.json", {key: value for key, value in merged.items() if value is not None})

    def event(self, message: str, level: Level = "info", kind: str = "message", **data: Any) -> None:
        """Append to the run's log."""
        entry = {"created_at": now(), "level": level, "type": kind, "message": message, "data": data}
        files.append_line(self.path / "events.jsonl", entry)

    def events(self) -> Iterator[dict[str, Any]]:
        return self.in_order(files.read_lines(self.path / "events.jsonl"))

    def in_order(self, events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Events by their time. A job's arrive late, among those of the process that follows it."""
        if executes_here(self.backend):
            return iter(events)
        return iter(sorted(events, key=lambda event: str(event.get("created_at", ""))))

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        files.append_line(self.path / "metrics.jsonl", dict(row))

    def metrics(self) -> Iterator[dict[str, Any]]:
        return files.read_lines(self.path / "metrics.jsonl")

    def results(self) -> list[dict[str, float]]:
        """The rows of results.csv; a cell that was not measured is absent."""
        try:
            text = (self.path / "results.csv").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return results.parse(text)[0]

    def append_result(self, row: Mapping[str, float]) -> None:
        path = self.path / "results.csv"
        header = "" if path.exists() else ",".join(results.COLUMNS) + "\n"
        files.append_text(path, header + results.as_line(row))

    def write_results(self, rows: Sequence[Mapping[str, float]]) -> None:
        """All rows of results.csv in one step; a file that holds them already stays untouched."""
        path, text = self.path / "results.csv", ",".join(results.COLUMNS) + "\n" + "".join(map(results.as_line, rows))
        if rows and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            files.write_whole(path, text)

    @property
    def measured(self) -> tuple[Path, Path]:
        """The files that grow with each measurement; a checkpoint holds them as they were at its step."""
        return self.path / "results.csv", self.path / "metrics.jsonl"

    def ask(self, request: Request) -> None:
        """Ask the process that executes the run, wherever it is, to stop at its next step boundary."""
        files.write_json(self.path / "request.json", {"request": request, "created_at": now()})

    def asked(self) -> Request | None:
        """The request that no process has answered yet."""
        return files.read_record(self.path / "request.json").get("request")

    def answer(self) -> None:
        """Forget what was asked for."""
        (self.path / "request.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the folder and everything in it. Raises: ConfigError, when it holds anything that is not of a run."""
        remove(self.path)


def unfit_details(status: Mapping[str, Any]) -> set[str]:
    """Names of the details of a status that hold what no run writes."""
    unfit = {name for name in WHOLE if isinstance(found := status.get(name, 0), bool) or not isinstance(found, int)}
    unfit |= {name for name in TEXTS if not isinstance(status.get(name, ""), str)}
    return unfit | (set() if is_kind(status.get("backend", "local")) else {"backend"})


def now() -> str:
    """The time in UTC, ISO 8601, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
