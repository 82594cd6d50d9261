"""Answers from processes of their own: one at a time for a draft, the older one killed, each kept while it holds."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.child_environment import harmless_environment, training_environment
from trainer.errors import file_words
from trainer.kinds import executes_here

Answer = dict[str, Any]
PROGRAM = (sys.executable, "-m", "trainer.drafts.work")
KEPT_ANSWERS = 64
MOST_SECONDS = 1800.0
SAID_CHARS = 300  # of what a process that failed said last
CRASH = "crash"  # the `kind` of an answer that is no answer
READING = frozenset({"look", "split", "clean", "convert"})  # rows alone: no library that is large, and no key


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A request to the process, and what its answer depends on: the config's text and the state of the files."""

    request: Mapping[str, Any]
    files: tuple[Path, ...] = ()
    kind: str = "local"

    @property
    def key(self) -> str:
        """Identity of the question; another one as soon as a file has changed."""
        config = Path(self.request.get("config", ""))
        text = config.read_text(encoding="utf-8") if config.is_file() else ""
        return json.dumps([dict(self.request), text, [_state_of(path) for path in self.files]], sort_keys=True)


def _state_of(path: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns]


@dataclass(slots=True)
class _Work:
    """A question that is worked on; it may be dropped before its process begins."""

    key: str
    is_dropped: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, question: Inquiry) -> "subprocess.Popen[bytes] | None":
        with self.lock:
            if not self.is_dropped:
                self.process = _started(question)
            return self.process

    def drop(self) -> None:
        with self.lock:
            self.is_dropped = True
            if self.process is not None:
                kill(self.process)


class Checks:
    """Questions of all drafts. Those that load a model's libraries wait for one another: memory holds one of them."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._works: dict[str, _Work] = {}
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()

    def answer(self, slot: str, question: Inquiry) -> Answer | None:
        """The answer where it is known; else None, and it is worked on: an older question of the slot is dropped."""
        key = question.key
        with self._lock:
            working = self._works.get(slot)
            if working is not None and working.key == key:
                return None
            if working is not None:
                del self._works[slot]
                working.drop()
            if (known := self._answers.get(key)) is not None:
                self._answers.move_to_end(key)
                return known
            work = self._works[slot] = _Work(key)
        threading.Thread(target=self._carry_out, args=(slot, work, question), daemon=True).start()
        return None

    def drop(self, slot: str) -> None:
        """Kill what the slot works on."""
        with self._lock:
            if (work := self._works.pop(slot, None)) is not None:
                work.drop()

    def forget(self, question: Inquiry) -> None:
        """Ask anew the next time: a service may answer now that it did not reach before."""
        with self._lock:
            self._answers.pop(question.key, None)

    def end(self) -> None:
        """Kill all processes."""
        for slot in list(self._works):
            self.drop(slot)

    def _carry_out(self, slot: str, work: _Work, question: Inquiry) -> None:
        with contextlib.nullcontext() if question.request["verb"] in READING else self._one_at_a_time:
            found = _answer_of(work, question)
        with self._lock:
            if work.is_dropped or found is None:
                return
            self._answers[work.key] = found
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
            if self._works.get(slot) is work:
                del self._works[slot]


def ask(question: Inquiry) -> Answer:
    """The answer of a process of its own, waited for. What it cannot do comes as `problems`."""
    found = _answer_of(_Work(""), question)
    assert found is not None, "nobody drops it"
    return found


def _answer_of(work: _Work, question: Inquiry) -> Answer | None:
    try:
        if (process := work.begin(question)) is None:
            return None
    except OSError as error:
        return {"problems": [f"its process: {file_words(error, 'reload the page')}"], "kind": CRASH}
    try:
        answer, said = process.communicate(json.dumps(dict(question.request)).encode(), timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return {"problems": [f"it took more than {MOST_SECONDS / 60:,.0f} minutes and was stopped"], "kind": CRASH}
    finally:
        kill(process)
    try:
        found = json.loads(answer)
    except ValueError:
        return {"problems": [_failure(process.returncode, said.decode("utf-8", "replace"))], "kind": CRASH}
    return found if isinstance(found, dict) else {"problems": ["it gave no answer; try again"], "kind": CRASH}


def _started(question: Inquiry) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        PROGRAM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_environment(question),
    )


def _environment(question: Inquiry) -> dict[str, str]:
    """No key for what only reads rows, and the keys of a service only where the draft names it."""
    if question.request["verb"] in READING:
        return harmless_environment()
    return training_environment() if executes_here(question.kind) else dict(os.environ)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process with all that it has started, unless it has ended by itself."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(code: int | None, said: str) -> str:
    if code == -signal.SIGKILL:
        return "the check was killed, as where a machine's memory is full; take a smaller base or less data"
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "it ended without a word").strip()
    return f"the check failed: {last[:SAID_CHARS]}; train --config FILE --check --debug shows where"
