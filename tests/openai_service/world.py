"""A service with everything around it: its host names, a login, a folder with config and data, and the commands.

Commands run in this process, in a time of their own: a wait costs nothing real, but is counted, and the service's
clock moves with it. So a command's patience is the real one, of minutes, and a test of it takes milliseconds.
"""

import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from tests.commands import Done, performed
from tests.entra import CREDENTIAL, LOGIN, Entra
from tests.loopback import Loopback
from tests.openai_service import arm, retail
from tests.openai_service.contract import Contract, document
from tests.openai_service.service import KEY, Service
from tests.openai_service.state import ACCOUNT, ENDED, TARGET, Flavour, placed
from tests.proxy import Authority, Proxy
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing

MODEL = "gpt-4o-mini-2024-07-18"
HOSTS = {
    "openai": ("api.openai.com",),
    "azure": (*(f"{name}.openai.azure.com" for name in (ACCOUNT, TARGET)), "management.azure.com", retail.HOST),
}
ENCODINGS = "openaipublic.blob.core.windows.net:443"  # tiktoken's; it is refused, and the quote says an upper estimate
TIMEOUT_SECONDS, HANG_SECONDS = 1.0, 1.2
RUN = "glossary"
SECRETS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")


@dataclass
class Snapshot:
    """A service and a folder at one moment, to begin again from."""

    service: Service
    folder: Path


@dataclass
class World:
    flavour: Flavour
    folder: Path
    loopback: Loopback
    environment: dict[str, str]
    contract: Contract
    proxy: Proxy
    waited: float = 0.0
    patches: dict[str, Any] = field(default_factory=dict)  # more of the product's constants, by their dotted names

    @property
    def service(self) -> Service:
        service = self.loopback.handler
        assert isinstance(service, Service)
        return service

    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / RUN)

    def config(self, **changes: Any) -> Path:
        """The config of the run, written."""
        openai = {"service": self.flavour}
        if self.flavour == "azure":
            openai |= {"subscription": arm.SUBSCRIPTION, "resource_group": arm.GROUP}
        settings: dict[str, Any] = {
            "model": {"base": MODEL},
            "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
            "backend": {"kind": "openai"},
            "openai": openai,
            "training": {"n_epochs": 2, "batch_size": 4, "seed": 7},
            "run": {"name": RUN},
        }
        for name, value in changes.items():
            settings[name] = settings.get(name, {}) | value if isinstance(value, dict) else value
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    def snapshot(self, name: str) -> Snapshot:
        kept = self.folder.parent / f"snapshot-{name}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder, kept)
        return Snapshot(self._copied(self.service), kept)

    def restore(self, snapshot: Snapshot) -> None:
        """Be as at the snapshot. The files keep their times: the product may look at them."""
        self.loopback.handler = self._copied(snapshot.service)
        self.loopback.faults, self.loopback.kills, self.loopback.requests = [], [], []
        shutil.rmtree(self.folder)
        shutil.copytree(snapshot.folder, self.folder)

    def _copied(self, service: Service) -> Service:
        copied = copy.deepcopy(service, {id(self.contract): self.contract})
        copied.watch = self.contract
        return copied

    def command(self, *words: str) -> Done:
        """Run a command in this process, in virtual time."""
        return performed(words, lambda: self.waited, self._virtual_time(), self.surroundings())

    def start(self, *words: str, **more: str) -> "subprocess.Popen[str]":
        """Run a command as a process of its own, in real time."""
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *words], cwd=self.folder, env=os.environ | self.environment | more,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ledger(self) -> list[tuple[str, str]]:
        """What the run's ledger holds that exists, or may exist: kind, and the service's id where it is known."""
        if not (self.run.path / "ledger.jsonl").exists():
            return []
        return sorted((entry.thing.kind, _id_of(entry.thing, entry.facts)) for entry in Ledger(self.run.path).open())

    def inventory(self) -> list[tuple[str, str]]:
        return sorted((kept.kind, kept.id) for kept in self.service.inventory())

    def difference(self) -> str:
        """How ledger and service differ; empty where they agree.

        The record of a job that has ended costs nothing, and OpenAI deletes none: a ledger may have closed it.
        """
        ended = {("job", job.id) for job in self.service.state.jobs.values() if job.state in ENDED}
        ledger, inventory = self.ledger(), self.inventory()
        kept = [thing for thing in inventory if thing in ledger or self.flavour == "azure" or thing not in ended]
        return "" if kept == ledger else f"the ledger holds {ledger}, the service {inventory}"

    @contextlib.contextmanager
    def _virtual_time(self) -> Iterator[None]:
        sleep, monotonic, here = time.sleep, time.monotonic, threading.main_thread()

        def waits(seconds: float) -> None:
            if threading.current_thread() is not here:
                sleep(seconds)
                return
            self.waited += seconds
            self.service.advance(seconds)

        def now() -> float:
            return monotonic() + self.waited

        with mock.patch("time.sleep", waits), mock.patch("time.monotonic", now):
            yield

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(self.folder))
            stack.enter_context(mock.patch.dict(os.environ, self.environment))
            for name, value in self.patches.items():
                stack.enter_context(mock.patch(name, value))
            for name in SECRETS:
                if name not in self.environment:
                    os.environ.pop(name, None)
            yield


def _id_of(thing: Thing, facts: Mapping[str, Any]) -> str:
    """By what the service knows a thing: deployments and models bear the names we gave or read."""
    if thing.kind == "deployment":
        return placed(thing.place.rpartition("/")[2], thing.key)
    return thing.key if thing.kind in ("model", "copy") else str(facts.get("id") or f"unknown: {thing.key}")


@contextlib.contextmanager
def world(folder: Path, flavour: Flavour, with_key: bool = False) -> Iterator[World]:
    """Everything started. `with_key`: Azure is spoken to with a key and not with a token."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    contract, authority = Contract(document()), Authority(folder / "authority")
    service, entra = Service(flavour, watch=contract), Entra()
    with contextlib.ExitStack() as stack:
        loopback = stack.enter_context(Loopback(service, authority.context(*HOSTS[flavour])))
        login = stack.enter_context(Loopback(entra, authority.context(LOGIN)))
        loopback.hang_seconds = HANG_SECONDS
        routes = dict.fromkeys(HOSTS[flavour], loopback.port) | {LOGIN: login.port}
        proxy = stack.enter_context(Proxy(authority, routes))
        environment = proxy.environment() | {"TRAINER_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS), "HOME": str(folder)}
        if flavour == "openai":
            environment |= {"OPENAI_API_KEY": KEY}
        else:
            environment |= CREDENTIAL | {"AZURE_OPENAI_ENDPOINT": f"https://{HOSTS['azure'][0]}"}
            environment |= {"AZURE_OPENAI_API_KEY": KEY} if with_key else {}
        made = World(flavour, home, loopback, environment, contract, proxy)
        write_rows(home)
        made.config()
        yield made
        foreign = set(proxy.refused) - {ENCODINGS, ""}  # nothing was asked for where a client was killed
        assert foreign == set(), f"the product asked for hosts that are not of the service: {foreign}"


def write_rows(folder: Path, train: int = 12, validation: int = 10) -> None:
    """Chat rows that pass every check, each unlike the others."""
    for name, count in (("train", train), ("validation", validation)):
        lines = []
        for number in range(count):
            question, answer = f"What is {name} term {number}?", f"Term {number} of {name} is a word for a test."
            lines.append({"messages": [
                {"role": "system", "content": "You explain terms."}, {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]})  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def write_pairs(folder: Path, train: int = 12, validation: int = 10) -> None:
    """Preference rows that pass every check, each unlike the others, in place of the chat rows."""
    for name, count in (("train", train), ("validation", validation)):
        lines = []
        for number in range(count):
            question, answer = f"What is {name} term {number}?", f"Term {number} of {name} is a word for a test."
            lines.append({
                "input": {"messages": [{"role": "user", "content": question}]},
                "preferred_output": [{"role": "assistant", "content": answer}],
                "non_preferred_output": [{"role": "assistant", "content": f"I do not know {number}."}],
            })  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def one_message(done: Done) -> str:
    """The command's one error line. Raises: AssertionError, where it told another number, or a traceback."""
    assert not done.has_traceback, done.err
    assert len(done.errors) == 1, done.err
    assert re.search(r"[;,:] .*", done.errors[0]), done.errors
    return done.errors[0]
