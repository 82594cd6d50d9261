"""Sets that a model writes from documents: planned, agreed to by digest, and written in a thread with a record.

The answers of a set are kept by its name: a form of the same name resumes, whatever ended it, and pays for none twice.
"""

import hashlib
import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

from trainer.backends.quote import Quote
from trainer.backends.unexpected import without_secrets
from trainer.dashboard.datasets.documents import Documents
from trainer.dashboard.datasets.files import OWN, id_of
from trainer.dashboard.datasets.generate_form import NAME, Form, in_form_words
from trainer.dashboard.work import RecordedWork
from trainer.drafts.files import Uploads, in_words
from trainer.errors import ConfigError
from trainer.web.mistakes import told
from trainer.workshop.asking.sender import Unfinished
from trainer.workshop.generate.generate import (
    Generated,
    GenerationPlan,
    Progress,
    Settings,
    finish_early,
    generate,
    make_plan,
)

WRITING = "writing"
KEPT_PLANS = 20
PLAN_SECONDS = 1800.0
SHOWN_SAMPLES, SAMPLE_BYTES, SHOWN_FAILURES = 3, 20_000, 5
NOTE_SECONDS = 0.3  # between two notes of progress


@dataclass(frozen=True, slots=True)
class QuotedSet:
    """A plan that a person may agree to; nothing is held or sent until then."""

    form: Form
    facts: tuple[tuple[str, str], ...]
    quote: Quote
    said: tuple[str, ...]
    made_at: float

    @property
    def digest(self) -> str:
        """Identity of the form and of all that is shown before the agreement."""
        shown = [dict(self.form.texts), list(self.form.sources), self.facts, self.quote.lines()]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()

    @property
    def lines(self) -> list[str]:
        """The quote as the page shows it."""
        return [in_form_words(line) for line in self.quote.lines()]

    @property
    def shown_facts(self) -> list[tuple[str, str]]:
        """The facts as the page shows them."""
        return [(title, in_form_words(text)) for title, text in self.facts]


class Generations:
    """Plans that wait for an agreement, and sets by name that are being written or were."""

    def __init__(self, root: Path, folders: tuple[Path, ...]) -> None:
        self.folder = root / OWN.parent / "generate"
        self.documents, self.uploads = Documents(root, folders), Uploads(root / OWN, folders)
        self._plans: OrderedDict[str, QuotedSet] = OrderedDict()
        self._works: dict[str, RecordedWork] = {}
        self._stops: dict[str, Event] = {}
        self._lock = Lock()

    def plan(self, form: Form) -> QuotedSet:
        """Read the documents and quote what is still to be asked. Raises: TrainerError."""
        said: list[str] = []
        settings = self._settings(form)
        self._refuse_busy(self._work(form.name), form.name)
        with make_plan(settings, said.append) as plan:
            planned = _planned(form, plan, said)
        with self._lock:
            self._plans[planned.digest] = planned
            self._plans.move_to_end(planned.digest)
            while len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)
        return planned

    def agree(self, digest: str) -> str:
        """Begin to write what was agreed to, and return its name. Raises: ConfigError, for an unknown or old plan."""
        with self._lock:
            planned = self._plans.get(digest)
            if planned is None or time.monotonic() - planned.made_at > PLAN_SECONDS:
                raise ConfigError("the plan is no longer known, expected a recent one; look at the cost again")
            name = planned.form.name
            self._begin(planned.form, partial(self._write, planned))
            del self._plans[digest]
        return name

    def finish(self, name: str) -> None:
        """Write the rows that the kept answers give; nothing is sent. Raises: ConfigError."""
        form = Form.kept(self.state(name).get("form"))
        with self._lock:
            self._begin(form, partial(self._finish, form))

    def stop(self, name: str) -> None:
        """End a set after the requests that are on their way. Raises: ConfigError, where another server writes it."""
        if self.state(name)["state"] != WRITING:
            return
        if not self._work(name).is_under_way:
            raise ConfigError(f"{name}: is written by another server, expected this one; stop it on that server's page")
        self._stops[name].set()

    def is_stopping(self, name: str) -> bool:
        """True once a set was told to end."""
        return name in self._stops and self._stops[name].is_set()

    def state(self, name: str) -> dict[str, Any]:
        """Record of a set. Raises: ConfigError, where there is none."""
        found = self._work(name).state() if NAME.fullmatch(name) else None
        if found is None:
            raise ConfigError(f"{name[:60]!r}: no set of that name was begun here, expected one of the list; begin it")
        return found

    def all(self) -> dict[str, dict[str, Any]]:
        """The record of each set by name, newest first."""
        names = [path.stem for path in self.folder.glob("*.json") if NAME.fullmatch(path.stem)]
        found = {name: state for name in names if (state := self._work(name).state())}
        return dict(sorted(found.items(), key=lambda each: str(each[1].get("started_at")), reverse=True))

    def wait(self, name: str) -> None:
        """Wait until a set has ended."""
        self._work(name).wait()

    def _settings(self, form: Form) -> Settings:
        """The settings of a form for a new file. Raises: TrainerError."""
        sources = [Path(in_words(document.path.resolve())) for document in self.documents.find(form.sources)]
        name = form.name if NAME.fullmatch(form.texts["name"]) else "rows"
        return form.settings(sources, self._new_path(name), self.folder / "sets" / name)

    def _new_path(self, name: str) -> Path:
        """A path in the folder of own files under a name that none of them is shown by: NAME.jsonl, NAME.v2.jsonl."""
        taken, number = {file.name for file in self.uploads.own()}, 1
        while (shown := f"{name}.jsonl" if number == 1 else f"{name}.v{number}.jsonl") in taken:
            number += 1
        return self.uploads.new_path(shown)

    def _begin(self, form: Form, do: Callable[[RecordedWork, Event], dict[str, Any]]) -> None:
        name, stop = form.name, Event()
        work = self._work(name)
        self._refuse_busy(work, name)
        self._stops[name] = stop
        kept = {"texts": dict(form.texts), "sources": list(form.sources)}
        work.begin(lambda: _ended(name, lambda: do(work, stop)), form=kept)

    def _write(self, planned: QuotedSet, work: RecordedWork, stop: Event) -> dict[str, Any]:
        """The ending of a set that was agreed to."""
        with make_plan(self._settings(planned.form)) as plan:
            if _planned(planned.form, plan, ()).digest != planned.digest:
                raise ConfigError(
                    "documents, answers or prices have changed since the cost was shown, expected them as they were; "
                    "look at the cost again"
                )
            return _made(plan, generate(plan, planned.quote, _Noted(work), stop))

    def _finish(self, form: Form, work: RecordedWork, stop: Event) -> dict[str, Any]:
        with make_plan(self._settings(form)) as plan:
            return _made(plan, finish_early(plan))

    def _refuse_busy(self, work: RecordedWork, name: str) -> None:
        if work.is_under_way:
            raise ConfigError(f"--name: {name} is being written, expected its end; wait for it, or stop it")

    def _work(self, name: str) -> RecordedWork:
        return self._works.setdefault(name, RecordedWork(self.folder / f"{name}.json", WRITING))


class _Noted:
    """Progress in a record, with the last rows as samples."""

    def __init__(self, work: RecordedWork) -> None:
        self.work, self._at = work, 0.0
        self._samples: deque[str] = deque(maxlen=SHOWN_SAMPLES)

    def __call__(self, now: Progress) -> None:
        if now.sample is not None:
            self._samples.append(json.dumps(now.sample, ensure_ascii=False)[:SAMPLE_BYTES])
        if time.monotonic() - self._at < NOTE_SECONDS and now.chunks_done < now.chunks:
            return
        self._at = time.monotonic()
        counts = {key: getattr(now, key) for key in ("chunks_done", "chunks", "rows", "dropped", "failures", "cost")}
        self.work.note(progress=counts, samples=list(self._samples))


def _ended(name: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The end of a record; an error of any kind is one, as the page waits for it."""
    try:
        return do()
    except Unfinished as unfinished:
        return {"state": "stopped", "reason": in_form_words(without_secrets(unfinished.reason))}
    except Exception as error:
        return {"state": "failed", "error": in_form_words(told(error, f"writing the rows of {name}"))}


def _planned(form: Form, plan: GenerationPlan, said: "tuple[str, ...] | list[str]") -> QuotedSet:
    return QuotedSet(form, tuple(plan.facts()), plan.quote, tuple(said), time.monotonic())


def _made(plan: GenerationPlan, made: Generated) -> dict[str, Any]:
    """The end of a set that is written, with the paths of its files."""
    files = {"train": made.files.rows} | ({"validation": made.files.validation} if made.validation_rows else {})
    return {
        "state": "ready",
        "files": {role: str(path) for role, path in files.items()},
        "provenance": str(made.files.provenance),
        "rows": made.rows,
        "validation_rows": made.validation_rows,
        "dropped_by": made.dropped,
        "failed": list(made.failures[:SHOWN_FAILURES]),
        "num_failed": len(made.failures),
        "cost": made.cost,
        "unknown_requests": made.unknown_requests,
    }


def files_of(state: Mapping[str, Any]) -> dict[str, Path]:
    """The files of a set that is written and still there, by role."""
    found = state.get("files")
    paths = {role: Path(str(path)) for role, path in found.items()} if isinstance(found, dict) else {}
    return {role: path for role, path in paths.items() if role in ("train", "validation") and path.is_file()}


def ids_of(files: Mapping[str, Path]) -> dict[str, str]:
    """The ids that the data pages name files with."""
    return {role: id_of(path) for role, path in files.items()}
