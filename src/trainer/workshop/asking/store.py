"""Folder of what was asked of an endpoint: every answer, kept before it counts, and the ledger of what was paid.

`answers.jsonl` holds the answers by the digest of their requests, `ledger.jsonl` a line before each request that may
cost and one after it. What the ledger has as intended, and no answer for, was on its way when a process ended.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.runs import flock
from trainer.runs.files import append_line, read_lines, refuse_newer
from trainer.runs.ledger import Entry, Ledger, Thing
from trainer.workshop.asking.request import Answer, Request

FORMAT = 1
ANSWERS, DIALECT, LOCK = "answers.jsonl", "endpoint.json", "lock"


class AnswerStore:
    """The answers and the ledger of one folder, for one process at a time; threads may share it."""

    def __init__(self, folder: Path, url: str, model: str) -> None:
        """Raises: ConfigError, where another process works in it, or a newer version has."""
        self.folder, self.url, self.model = folder, url, model
        folder.mkdir(parents=True, exist_ok=True)
        handle = flock.take(folder / LOCK)
        if handle is None:
            raise ConfigError(f"{folder}: another process works in it, expected none; wait for it, or end it")
        self._handle: int | None = handle
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] = {}
        try:
            self._read_answers()
            self.ledger = Ledger(folder)
            self._attempts: Counter[str] = Counter()
            self._settled: dict[str, Entry] = {}
            self._read_ledger()
        except BaseException:
            self.close()
            raise

    def _read_answers(self) -> None:
        path = self.folder / ANSWERS
        for line in read_lines(path):
            refuse_newer(path, line.get("format"), FORMAT)
            try:
                self._answers[str(line["key"])] = Answer(**line["answer"])
            except (KeyError, TypeError):
                continue  # damaged: it is asked for again

    def _read_ledger(self) -> None:
        """Count the attempts; those whose answer was kept before the end of its process have cost what it says."""
        for entry in self.ledger.entries():
            self._attempts[_request_of(entry.thing.key)] += 1
            self._settled[entry.thing.key] = entry

    @property
    def dialect_file(self) -> Path:
        return self.folder / DIALECT

    @property
    def paid(self) -> list[Entry]:
        """Requests that were answered."""
        with self._lock:
            return [entry for entry in self._settled.values() if entry.step == "exists"]

    @property
    def unknown(self) -> list[Entry]:
        """Requests without an answer that may have been paid."""
        with self._lock:
            return [entry for entry in self._settled.values() if entry.step == "intended"]

    @property
    def spent(self) -> float:
        """Cost of the requests before, those without an answer at their most."""
        paid = sum(entry.facts.get("cost") or 0.0 for entry in self.paid)
        return paid + sum(entry.facts.get("most") or 0.0 for entry in self.unknown)

    @property
    def cost(self) -> float | None:
        """The same; None where no price was known for one of them."""
        costs: list[Any] = [entry.facts.get("cost") for entry in self.paid]
        return total([*costs, *(entry.facts.get("most") for entry in self.unknown)])

    def find(self, request: Request) -> Answer | None:
        """The kept answer to an equal request."""
        with self._lock:
            return self._answers.get(request.key(self.url, self.model))

    def __len__(self) -> int:
        return len(self._answers)

    def intend(self, request: Request, most: float | None) -> Thing:
        """Write down that a request is about to be sent, and may cost up to `most`."""
        key = request.key(self.url, self.model)
        with self._lock:
            self._attempts[key] += 1
            thing = Thing("endpoint", "request", f"{key}.{self._attempts[key]}", f"{self.model} at {self.url}")
            facts = {"stage": request.stage, "subject": request.subject, "most": most}
            self._settled[thing.key] = self.ledger.write(thing, "intended", **facts)
        return thing

    def refuse(self, thing: Thing) -> None:
        """Write down that a request was not executed."""
        with self._lock:
            self._settled[thing.key] = self.ledger.write(thing, "refused")

    def keep(self, request: Request, answer: Answer) -> None:
        """Have an answer on disk."""
        key = request.key(self.url, self.model)
        line = {
            "format": FORMAT,
            "key": key,
            "stage": request.stage,
            "subject": request.subject,
            "answer": asdict(answer),
        }
        with self._lock:
            append_line(self.folder / ANSWERS, line, flush=True)
            self._answers[key] = answer

    def settle(self, thing: Thing, answer: Answer, cost: float | None) -> None:
        """Write down what an answer has cost."""
        facts = {"cost": cost, "input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
        with self._lock:
            self._settled[thing.key] = self.ledger.write(thing, "exists", id=answer.id, **facts)

    def recover(self, cost_of: Callable[[Answer, float | None], float | None]) -> None:
        """Settle requests whose answer was kept, and whose process ended before the ledger had it."""
        for entry in self.unknown:
            key, _, attempt = entry.thing.key.rpartition(".")
            if int(attempt or 0) == self._attempts[key] and (answer := self._answers.get(key)) is not None:
                self.settle(entry.thing, answer, cost_of(answer, entry.facts.get("most")))

    def close(self) -> None:
        """Let go of the folder; it goes where nothing was asked."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                if [path.name for path in self.folder.iterdir()] == [LOCK]:
                    (self.folder / LOCK).unlink()
                    self.folder.rmdir()
            os.close(self._handle)
            self._handle = None


def _request_of(key: str) -> str:
    return key.rpartition(".")[0]


def total(amounts: Iterable[Any]) -> float | None:
    """The sum; None where one of them is not known."""
    found = list(amounts)
    return None if None in found else float(sum(found))
