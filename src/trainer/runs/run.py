"""One run: a folder whose files are the interface between training, commands, dashboards and people.

config.yaml      every setting, resolved (no `auto` left)       status.json     state, step, process, error
manifest.json    data, base model, versions, hardware           events.jsonl    what happened, in words
results.csv      loss and token accuracy by step                metrics.jsonl   everything else that is measured
checkpoints/     resumable states by step                       adapter/        the result, in PEFT's format
report/          base and tuned model on held-out rows, as a page and as JSON
"""

import csv
import io
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import ConfigError, similar
from trainer.runs import files
from trainer.runs.process import is_alive, this_process

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig

State = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warning", "error"]

# The fine-tuning service's own columns, so that one reader serves every backend.
RESULT_COLUMNS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


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
    def report(self) -> Path:
        return self.path / "report"

    def comparison(self) -> dict[str, Any]:
        """What comparing base and tuned model has found; empty before that, and where the file is damaged."""
        try:
            return files.read_json(self.report / "report.json") or {}
        except ValueError:
            return {}

    def config(self) -> "RunConfig":
        """The resolved settings of this run."""
        from trainer.config.load import load_config  # pydantic is slow to import, and listing runs needs none

        return load_config(self.path / "config.yaml")

    def manifest(self) -> dict[str, Any]:
        """What the run was made from; empty before it has been written."""
        return files.read_json(self.path / "manifest.json") or {}

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        files.write_json(self.path / "manifest.json", dict(manifest))

    def status(self) -> dict[str, Any]:
        """The last status written; a running run whose process is gone is reported as paused."""
        status: dict[str, Any] = files.read_json(self.path / "status.json") or {"state": "queued"}
        if status["state"] in ("running", "validating_files") and not is_alive(status):
            status["state"] = "paused"
        return status

    @property
    def state(self) -> State:
        state: State = self.status()["state"]
        return state

    def set_status(self, state: State, **details: Any) -> None:
        """Move to `state`, keeping earlier details that are not given anew; a detail of None is removed."""
        before = files.read_json(self.path / "status.json") or {}
        merged = before | {"state": state, "updated_at": now()} | this_process() | details
        files.write_json(self.path / "status.json", {key: value for key, value in merged.items() if value is not None})

    def event(self, message: str, level: Level = "info", kind: str = "message", **data: Any) -> None:
        """Append to the run's log."""
        entry = {"created_at": now(), "level": level, "type": kind, "message": message, "data": data}
        files.append_line(self.path / "events.jsonl", entry)

    def events(self) -> Iterator[dict[str, Any]]:
        return files.read_lines(self.path / "events.jsonl")

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        files.append_line(self.path / "metrics.jsonl", dict(row))

    def metrics(self) -> Iterator[dict[str, Any]]:
        return files.read_lines(self.path / "metrics.jsonl")

    def results(self) -> list[dict[str, float]]:
        """The rows of results.csv; a cell that was not measured is absent."""
        try:
            text = (self.path / "results.csv").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        whole_lines = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(whole_lines))
        return [{key: float(cell) for key, cell in row.items() if key in RESULT_COLUMNS and cell} for row in rows]

    def append_result(self, row: Mapping[str, float]) -> None:
        path = self.path / "results.csv"
        header = "" if path.exists() else ",".join(RESULT_COLUMNS) + "\n"
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(header + _csv_line(row))

    def forget_after(self, step: int) -> None:
        """Drop measurements later than `step`: a resumed run makes them anew."""
        kept = [_csv_line(row) for row in self.results() if row["step"] <= step]
        metrics = [row for row in self.metrics() if row["step"] <= step]
        files.write_whole(self.path / "results.csv", ",".join(RESULT_COLUMNS) + "\n" + "".join(kept))
        (self.path / "metrics.jsonl").unlink(missing_ok=True)
        for row in metrics:
            self.append_metrics(row)

    def delete(self) -> None:
        """Remove the folder and everything in it."""
        shutil.rmtree(self.path)


def create_run(config: "RunConfig") -> Run:
    """Make the run's folder and write its config; the folder appears whole or not at all.

    Raises: ConfigError, when a run of that name exists or the folder cannot be written.
    """
    from trainer.config.load import dump_config

    refuse_existing(config)
    root = Path(config.run.root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        run = Run(_new_folder(root, config))
        try:
            run.set_status("validating_files", created_at=now())
            run.checkpoints.mkdir()
            files.write_whole(run.path / "config.yaml", dump_config(config))  # from here on it counts as a run
        except OSError:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"run.root: {str(root)!r} cannot be written: {error.strerror}; choose another folder"
        ) from None
    return run


def refuse_existing(config: "RunConfig") -> None:
    """Raises: ConfigError, when a run of the given name exists already, or its root is no folder."""
    root = Path(config.run.root)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"run.root: {str(root)!r} is a file, expected a folder; choose another")
    if config.run.name is not None and (path := root / config.run.name).exists():
        raise ConfigError(
            f"run.name: {config.run.name!r} exists in {str(root)!r}, expected a new name; "
            f"choose another or go on with: train --resume {path}"
        )


def _new_folder(root: Path, config: "RunConfig") -> Path:
    if config.run.name is not None:
        path = root / config.run.name
        path.mkdir()
        return path
    base = config.model.base.rstrip("/").rsplit("/", 1)[-1].replace(":", "-").replace("@", "-")
    stem = "-".join(filter(None, [datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"), base, config.run.suffix]))
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        try:
            (root / name).mkdir()
        except FileExistsError:
            continue
        return root / name
    raise ConfigError(f"run.root: no free name for {stem!r} in {str(root)!r}; give run.name")


def list_runs(root: Path) -> list[Run]:
    """The runs below `root`, oldest first."""
    runs = [Run(path.parent) for path in root.glob("*/config.yaml")]
    return sorted(runs, key=lambda run: (run.status().get("created_at", ""), run.name))


def find_run(name: str, root: Path) -> Run:
    """A run by its name below `root`, or by its folder.

    Raises: ConfigError, when there is none, with the nearest name there is.
    """
    for path in (root / name, Path(name)):
        if (path / "config.yaml").is_file():
            return Run(path)
    known = [run.name for run in list_runs(root)]
    raise ConfigError(
        f"run {name!r}: not found in {str(root)!r}{similar(Path(name).name, known)}; list the runs with: trainer runs"
    )


def now() -> str:
    """The time in UTC, ISO 8601, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _csv_line(row: Mapping[str, float]) -> str:
    cells = (row.get(column) for column in RESULT_COLUMNS)
    return ",".join("" if cell is None else f"{cell:.10g}" for cell in cells) + "\n"
