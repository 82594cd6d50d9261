"""The run that has been trained elsewhere, in the folder of the run that asked for it.

Records grow while the job runs and are taken over as they are, but for what only is true here: paths, the backend, the
state. Adapter, report and checkpoints come at the end, each compared with the sha256 that the node wrote down.
"""

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.backends.azureml.copies import FILES
from trainer.backends.azureml.datastore import Datastore
from trainer.backends.azureml.snapshot import data_names
from trainer.backends.http import Say, failure_of, is_failure, refusal
from trainer.config.load import dump_config, load_config
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run, files
from trainer.runs.manifest import Manifest, parse
from trainer.runs.ownership import FOLDERS

GROWING = ("results.csv", "metrics.jsonl")
RECORDS = frozenset({"status.json", "events.jsonl", "manifest.json", "config.yaml", *GROWING})
TRIES = 3


class Mirror:
    """Keeps a run's records as the node writes them. `seen`: which version of each file has been taken over."""

    def __init__(self, run: Run, store: Datastore) -> None:
        self.run, self.store, self.seen = run, store, dict[str, str]()
        self.node: dict[str, Any] = {}  # the node's last status.json

    def update(self) -> None:
        """Take over every record that has changed. Raises: BackendError."""
        versions = {blob.name: blob.etag for blob in self.store.list()}
        for name in sorted(RECORDS):
            remote = f"{self.run.name}/{name}"
            if remote in versions and versions[remote] != self.seen.get(name):
                if (content := self.store.read(remote)) is not None:
                    self._take(name, content)
                self.seen[name] = versions[remote]

    def _take(self, name: str, content: bytes) -> None:
        """Store a record; one that a mount shows half-written stays for the next time."""
        with contextlib.suppress(ValueError, KeyError, ConfigError):
            match name:
                case "status.json":
                    self.node = json.loads(content)
                case "events.jsonl":
                    _add_events(self.run, content)
                case "manifest.json":
                    self.run.write_manifest(_manifest_at_home(self.run.config(), parse(content, self.run.path / name)))
                case "config.yaml":
                    _resolve(self.run, content)
                case _:
                    files.write_whole(self.run.path / name, content[: content.rfind(b"\n") + 1])


def bring_home(run: Run, store: Datastore, checkpoints: bool, say: Say) -> None:
    """Everything that the node wrote down, each file whole and verified; what is here already is not fetched again.

    Raises: BackendError, when something is missing or differs.
    """
    listed = store.read(FILES)
    if listed is None:
        raise BackendError(
            f"run {run.name!r}: its job has ended without {FILES}, expected the list of its files; "
            f"look at output.log, then: trainer resume {run.path}"
        )
    entries: dict[str, dict[str, Any]] = json.loads(listed)["files"]
    wanted = {
        name: entry
        for name, entry in entries.items()
        if name not in RECORDS and (checkpoints or not name.startswith("checkpoints/"))
    }
    for name in wanted:
        _check_name(name)
    missing = {name: entry for name, entry in wanted.items() if not _is_here(run.path / name, entry)}
    if missing:
        megabytes = sum(entry["size"] for entry in missing.values()) / 1e6
        say(f"bringing {len(missing)} files home, {megabytes:,.1f} MB")
    # A checkpoint counts once its manifest is there: it comes last.
    for name in sorted(missing, key=lambda name: (name.endswith("MANIFEST.json"), name)):
        _fetch(run.path / name, f"{run.name}/{name}", missing[name], store, say)


def _fetch(target: Path, remote: str, entry: dict[str, Any], store: Datastore, say: Say) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    found = ""
    for number in range(TRIES):
        digest = hashlib.sha256()
        try:
            with beside.open("wb") as file:
                for chunk in store.chunks(remote):
                    digest.update(chunk)
                    file.write(chunk)
        except Exception as error:
            beside.unlink(missing_ok=True)
            if not is_failure(error):
                raise
            failure = failure_of(error)
            if number == TRIES - 1 or not failure.is_temporary:
                raise refusal(failure, f"downloading {remote}") from error
            continue
        found = digest.hexdigest()
        if found == entry["sha256"]:
            beside.replace(target)
            return
        say(f"{remote}: differs from what the node wrote; fetching it again")
    beside.unlink(missing_ok=True)
    raise BackendError(
        f"{remote}: has sha256 {found[:12]}…, expected {entry['sha256'][:12]}…, which the node wrote; "
        "was it changed in the datastore? run the same command again"
    )


def _check_name(name: str) -> None:
    """The list comes from a storage account that others can write to. Raises: BackendError."""
    parts = Path(name).parts
    if len(parts) < 2 or parts[0] not in FOLDERS or ".." in parts or "\\" in name:
        raise BackendError(f"{FILES}: names {name!r}, expected a file of the run; the datastore was tampered with")


def _is_here(path: Path, entry: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry["size"]:
        return False
    with path.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"])


def _add_events(run: Run, content: bytes) -> None:
    """Events that are not here yet. Node and home both write into the same log here, so lines are compared whole."""
    known = {json.dumps(event, sort_keys=True) for event in run.events()}
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and json.dumps(event, sort_keys=True) not in known:
            files.append_line(run.path / "events.jsonl", event)


def _manifest_at_home(config: RunConfig, manifest: Manifest) -> Manifest:
    """The manifest with the paths that this machine knows."""
    paths = {name: path for path, name in reversed(data_names(config).items())}
    data = tuple(replace(file, path=paths.get(file.path, file.path)) for file in manifest.data)
    base = replace(manifest.base, name=config.model.base) if manifest.base.name == "base" else manifest.base
    return replace(manifest, data=data, base=base)


def _resolve(run: Run, content: bytes) -> None:
    """Put the numbers that the node found for `auto` into the run's config; paths and backend stay this machine's."""
    beside = run.path / ".node-config.yaml"
    files.write_whole(beside, content)
    try:
        node = load_config(beside)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    here = run.config()
    data = {"max_length": node.data.max_length}
    model = {name: getattr(node.model, name) for name in ("quantization", "dtype")}
    resolved = here.model_copy(
        update={name: getattr(node, name) for name in ("lora", "training", "memory", "evaluation")}
        | {"data": here.data.model_copy(update=data), "model": here.model.model_copy(update=model)}
    )
    if resolved != here:
        files.write_whole(run.path / "config.yaml", dump_config(resolved))
