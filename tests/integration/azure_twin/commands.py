"""The product's commands in this process, against a twin without machines, in a time of their own.

A wait costs nothing real and is counted: a command's patience is the real one, of minutes, and takes milliseconds.
"""

import contextlib
import copy
import os
import shutil
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests import loopback
from tests.commands import Done, performed
from tests.integration.azure_twin.journey import CLUSTER, CONFIG, MACHINE, SERVER
from tests.integration.azure_twin.refusals import FINAL
from tests.integration.azure_twin.twin import Twin
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

RUN = "glossary"
TIMEOUT_SECONDS, HANG_SECONDS = 2.0, 3.0
ROWS = 8


@dataclass
class Snapshot:
    resources: dict[str, Any]
    keys: dict[str, Any]
    created: list[str]
    folder: Path


class World:
    """A twin and a user's folder, which can go back to how they were."""

    def __init__(self, twin: Twin, folder: Path) -> None:
        self.twin, self.folder, self.waited = twin, folder, 0.0
        twin.service.hang_seconds = twin.door.hang_seconds = twin.endpoints.hang_seconds = HANG_SECONDS
        twin.arm.add_compute(CLUSTER, MACHINE)
        folder.mkdir(parents=True)
        write_config(folder)
        own = {
            "TRAINER_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.environment = twin.environment() | own

    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / RUN)

    def snapshot(self, name: str) -> Snapshot:
        kept, arm = self.folder.parent / f"snapshot-{name}", self.twin.arm
        shutil.copytree(self.folder, kept)
        return Snapshot(copy.deepcopy(arm.resources), copy.deepcopy(arm.keys), list(arm.created), kept)

    def restore(self, snapshot: Snapshot) -> None:
        arm = self.twin.arm
        arm.resources, arm.keys = copy.deepcopy(snapshot.resources), copy.deepcopy(snapshot.keys)
        arm.created = list(snapshot.created)
        arm.operations.clear()
        for service in (self.twin.service, self.twin.door, self.twin.endpoints):
            service.faults, service.kills = [], []
            service.requests.clear()
        shutil.rmtree(self.folder)
        shutil.copytree(snapshot.folder, self.folder)

    def command(self, *words: str) -> Done:
        return performed(words, lambda: self.waited, self._virtual_time(), self._surroundings())

    # What is there, and what the ledger knows

    def ledger(self) -> list[Entry]:
        return Ledger(self.run.path).open() if (self.run.path / "ledger.jsonl").exists() else []

    def unledgered(self) -> list[str]:
        """What was made, exists, and no line of the ledger stands for."""
        entries = self.ledger()
        return [path for path in self.twin.arm.inventory() if not any(stands_for(entry, path) for entry in entries)]

    def vanished(self) -> list[str]:
        """What the ledger says exists and bills, and the workspace does not have."""
        there = self.twin.arm.inventory()
        certain = [entry for entry in self.ledger() if entry.thing.bills and entry.step == "exists"]
        return [entry.thing.key for entry in certain if not any(stands_for(entry, path) for path in there)]

    def duplicates(self) -> list[str]:
        """Things of which one is enough: jobs that have not ended, endpoints, deployments, models."""
        found = []
        for kind in ("jobs/", "onlineEndpoints/", "models/"):
            paths = [path for path in self.twin.arm.inventory() if path.startswith(kind)]
            deployments = [path for path in paths if "/deployments/" in path]
            plain = [path for path in paths if path not in deployments and not self._has_ended(path)]
            found += [group[1:] for group in (plain, deployments)]
        return [path for group in found for path in group]

    def _has_ended(self, path: str) -> bool:
        return self.twin.arm.resources[path]["properties"].get("status") in FINAL

    @contextlib.contextmanager
    def _virtual_time(self) -> Iterator[None]:
        sleep, monotonic = time.sleep, time.monotonic
        lock = threading.Lock()

        def waits(seconds: float) -> None:
            with lock:
                self.waited += seconds
            sleep(0)

        def now() -> float:
            return monotonic() + self.waited

        real = types.SimpleNamespace(sleep=sleep)  # the service hangs for real
        with (
            mock.patch("time.sleep", waits),
            mock.patch("time.monotonic", now),
            mock.patch.object(loopback, "time", real),
        ):
            yield

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        with contextlib.chdir(self.folder), mock.patch.dict(os.environ, self.environment):
            yield


def stands_for(entry: Entry, path: str) -> bool:
    """Whether a line of the ledger is about what has this path at the service."""
    kind, _, rest = path.partition("/")
    name, last = rest.partition("/")[0], path.rsplit("/", 1)[1]
    thing = entry.thing
    match kind:
        case "codes":
            return thing.kind == "code" and (entry.step == "intended" or str(entry.facts.get("id")).endswith(path))
        case "onlineEndpoints" if "/deployments/" in path:
            return (thing.kind, thing.key) == ("deployment", f"{name}/{last}")
        case "onlineEndpoints":
            return (thing.kind, thing.key) == ("endpoint", name)
        case "jobs" | "computes":
            return (thing.kind, thing.key) == (kind.removesuffix("s"), name)
    return thing.kind == kind.removesuffix("s") and thing.key == f"{name}:{last}"


def write_config(folder: Path) -> None:
    """The journey's config, with few rows."""
    from tests.environments import REPOSITORY

    settings = {"data": folder, "compute": CLUSTER, "server": SERVER, "name": RUN}
    (folder / "azure.yaml").write_text(CONFIG.format(**settings), encoding="utf-8")
    for name in ("glossary_train.jsonl", "glossary_validation.jsonl"):
        lines = (REPOSITORY / "data" / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:ROWS]), encoding="utf-8")
