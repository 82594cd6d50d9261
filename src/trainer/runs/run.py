"""One run: a folder whose files are the interface between training, commands, dashboards and people.

config.yaml      the settings, resolved (no `auto` left)         status.json     state, step, process, error
manifest.json    data, base model, versions, hardware;          events.jsonl    what happened, in words
                 every row that on_overlength touched
results.csv      loss and token accuracy by step                metrics.jsonl   everything else that is measured
checkpoints/     resumable states by step                       adapter/        the result, in PEFT's format
lock.json        the process that writes, while it does         output.log      what a run in the background printed
process.json     the process of a run in the background         request.json    pause or cancel, until it is answered
report/          base and tuned model on held-out rows, as a page and as JSON
ledger.jsonl     what the run has created at a service, and what of it still bills
.azure-llm-trainer   the sign that train made this folder, so that it may be deleted
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import ConfigError, similar
from trainer.runs import files, results
from trainer.runs import manifest as manifests
from trainer.runs.manifest import DamagedManifest, Manifest
from trainer.runs.ownership import MARKER, SIGN, STATES, foreign, in_short, is_run
from trainer.runs.process import is_alive, process_of, this_process
from trainer.runs.removal import beside, remove, sweep

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig

Request = Literal["pause", "cancel"]
State = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warning", "error"]

CONFIG = "config.yaml"
LAUNCHED = "process.json"


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
        found = files.read_record(self.report / "report.json")
        verdict = found.get("verdict")
        return found if isinstance(verdict, dict) and isinstance(verdict.get("sentence"), str) else {}

    def remarks(self) -> list[str]:
        """What a reader of the comparison's sentence must know beside it."""
        found = self.comparison().get("verdict", {}).get("remarks")
        return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []

    def config(self) -> "RunConfig":
        """The resolved settings of this run."""
        from trainer.config.load import load_config  # pydantic is slow to import, and listing runs needs none

        return load_config(self.path / "config.yaml")

    def manifest(self) -> Manifest:
        """What the run was made from. Raises: ConfigError, when nothing says it, or a newer version has written it."""
        if (found := self.find_manifest()) is None:
            raise DamagedManifest(self.path / manifests.NAME)
        return found

    def find_manifest(self) -> Manifest | None:
        """What the run was made from, None before that is written. Raises: ConfigError, as `manifest` does."""
        return manifests.read(self.path / manifests.NAME)

    def write_manifest(self, manifest: Manifest) -> None:
        files.write_json(self.path / manifests.NAME, manifest.as_json())

    def status(self) -> dict[str, Any]:
        """The last status written; a run on this machine whose process is gone is reported as paused."""
        status = {"state": "queued"} | files.read_record(self.path / "status.json")
        if status["state"] not in STATES:
            status["state"] = "paused"
        if status.get("backend", "local") == "local" and self._is_abandoned(status):
            status["state"] = "paused"
        return status

    def _is_abandoned(self, status: dict[str, Any]) -> bool:
        """Whether the process that should move the run on is gone."""
        if status["state"] in ("running", "validating_files"):
            return not is_alive(status)
        return status["state"] == "queued" and "pid" in status and not (is_alive(status) or self.is_launched)

    def launched(self, pid: int) -> None:
        """Note the process in the background that is to execute the run; it writes the status itself."""
        files.write_json(self.path / LAUNCHED, process_of(pid))

    @property
    def is_launched(self) -> bool:
        """Whether a process in the background is at the run, or about to be."""
        process = files.read_record(self.path / LAUNCHED)
        return bool(process) and is_alive(process)

    @property
    def backend(self) -> str:
        """Where the run executes, in the config's word."""
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
        return files.read_lines(self.path / "events.jsonl")

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
        """What was asked for and not yet answered."""
        return files.read_record(self.path / "request.json").get("request")

    def answer(self) -> None:
        """Forget what was asked for."""
        (self.path / "request.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the folder and everything in it. Raises: ConfigError, when it holds anything that is not of a run."""
        remove(self.path)


def create_run(config: "RunConfig") -> Run:
    """Make the run's folder with its config in it; it appears whole or not at all.

    Raises: ConfigError, when a run of that name exists or the folder cannot be written.
    """
    refuse_existing(config)
    root = Path(config.run.root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        made = root / beside(config.run.name or "run", "new")
        made.mkdir(mode=_mode_below(root))
        try:
            _begin(Run(made), config)
            return Run(_named(made, config))
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"run.root: {str(root)!r} cannot be written: {error.strerror}; choose another folder"
        ) from None


def _mode_below(root: Path) -> int:
    """A run holds rows of the data: it is its owner's, but where the folder of runs is kept for a group."""
    return 0o777 if root.stat().st_mode & 0o020 else 0o700


def _begin(run: Run, config: "RunConfig") -> None:
    from trainer.config.load import dump_config

    files.write_whole(run.path / MARKER, f"{SIGN}\n")
    run.set_status("validating_files", created_at=now(), backend=config.backend.kind)
    run.checkpoints.mkdir(exist_ok=True)
    files.write_whole(run.path / "config.yaml", dump_config(config))


def find_or_adopt(config: "RunConfig") -> Run | None:
    """The run of the config's name, None where there is no such folder.

    Of a run that was killed while its folder was made, or whose files a mount has not shown yet, the rest is made.

    Raises: ConfigError, when the folder holds something else.
    """
    assert config.run.name is not None
    run = Run(Path(config.run.root) / config.run.name)
    if not run.path.exists():
        return None
    if not run.path.is_dir() or (not is_run(run.path) and foreign(run.path)):
        raise ConfigError(f"run.name: {str(run.path)!r} holds something else than a run; choose another name")
    if not (run.path / CONFIG).is_file():
        _begin(run, config)
    return run


def refuse_existing(config: "RunConfig") -> None:
    """Raises: ConfigError, when a run of the given name exists already, or its root is no folder."""
    root = Path(config.run.root)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"run.root: {str(root)!r} is a file, expected a folder; choose another")
    if config.run.name is not None and os.path.lexists(path := root / config.run.name):
        raise ConfigError(
            f"run.name: {config.run.name!r} exists in {str(root)!r}, expected a new name; "
            f"choose another{_instead(path)}"
        )


def _instead(path: Path) -> str:
    """What else can be done about a folder whose name is taken."""
    if path.is_symlink() or not path.is_dir():
        return ""
    if (path / CONFIG).is_file() and is_run(path):
        from trainer.runs.advice import way_on  # it looks at runs, too

        return f", or {way_on(Run(path)) or f'remove that run with: trainer delete {path}'}"
    if not foreign(path):
        return f", or remove what is left of a run that never began with: trainer delete {path}"
    return ""


def _named(made: Path, config: "RunConfig") -> Path:
    """Give a run's folder its name. Of several processes that want the same name, one gets it. Raises: OSError."""
    root = Path(config.run.root)
    if config.run.name is not None:
        return _renamed(made, root / config.run.name)
    base = config.model.base.rstrip("/").rsplit("/", 1)[-1].replace(":", "-").replace("@", "-")
    stem = "-".join(filter(None, [datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"), base, config.run.suffix]))
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        try:
            return _renamed(made, root / name)
        except FileExistsError:
            continue
    raise ConfigError(f"run.root: no free name for {stem!r} in {str(root)!r}; give run.name")


def _renamed(made: Path, path: Path) -> Path:
    """Raises: FileExistsError, and OSError."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        made.rename(path)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise
    files.flush_folder(path.parent)
    return path


def list_runs(root: Path) -> list[Run]:
    """The runs below `root`, oldest first."""
    folders = [path.parent for path in root.glob("[!.]*/config.yaml") if is_run(path.parent)]
    return sorted(map(Run, folders), key=lambda run: (str(run.status().get("created_at", "")), run.name))


def find_run(name: str, root: Path) -> Run:
    """A run by its name below `root`, or by its folder.

    Raises: ConfigError, when there is none, with the nearest name there is, or a newer version wrote it.
    """
    places = _places(name, root)
    for path in places:
        if (path / CONFIG).is_file() and is_run(path):
            manifests.refuse_newer(path / manifests.NAME)
            return Run(_plain(path))
    for path in places:
        if is_run(path):
            raise ConfigError(
                f"run {name!r}: was stopped while its folder was made, expected one that has begun; "
                f"start it again after: trainer delete {path}"
            )
        if (path / CONFIG).is_file():
            raise ConfigError(
                f"run {name!r}: {str(path)!r} holds {in_short(foreign(path)) or 'a config'} and no sign of being a "
                "run, expected a folder that train made; list the runs with: trainer runs"
            )
    raise _not_found(name, root)


def find_folder(name: str, root: Path) -> Run:
    """A run, or what may be left of one that never began: `delete` looks at what is in it.

    Raises: ConfigError, when there is no such folder.
    """
    places = _places(name, root)
    for path in (*filter(is_run, places), *places):
        return Run(_plain(path))
    raise _not_found(name, root)


def _places(name: str, root: Path) -> list[Path]:
    return [path for path in (root / name, Path(name)) if path.is_dir()]


def _not_found(name: str, root: Path) -> ConfigError:
    known = [run.name for run in list_runs(root)]
    return ConfigError(
        f"run {name!r}: not found in {str(root)!r}{similar(Path(name).name, known)}; list the runs with: trainer runs"
    )


def _plain(path: Path) -> Path:
    """The path with a name at its end, which `.` and `..` are not."""
    return path.resolve() if path.name in ("", "..") else path


def now() -> str:
    """The time in UTC, ISO 8601, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
