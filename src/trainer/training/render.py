"""Conversations as tokens under the length policy, with every row that cannot be; large files in several processes.

Rendering is Python and the tokenizer's own code, so that only processes make it faster. Each takes a part of the rows
when it has done the last one, and this process does as they do: what comes of it is the same, however many there are.
"""

import contextlib
import multiprocessing
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Thread

from trainer.child_environment import harmless_environment
from trainer.data.conversations import Conversation
from trainer.data.render.overlength import Policy, Touched, apply_policy, too_long
from trainer.data.render.rendering import Example, Renderer, RenderingError
from trainer.runs.process import usable_cores
from trainer.training.tokens import Tokens

PART_ROWS = 200
ROWS_A_WORKER = 4000  # are worth the second in which another process starts
MAX_WORKERS = 31

Parts = deque[tuple[int, Sequence[Conversation]]]  # with their place among all


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that this model's template cannot render exactly."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: TEMPLATE: {self.reason}"


@dataclass(frozen=True, slots=True)
class RenderedRows:
    """The outcome of rendering some conversations, in their order."""

    tokens: Tokens
    problems: list[Refused]
    touched: list[Touched]


@dataclass(frozen=True, slots=True)
class Rendering:
    """The settings by which rows become tokens."""

    renderer: Renderer
    max_length: int
    policy: Policy

    def __call__(self, conversations: Sequence[Conversation]) -> RenderedRows:
        """The examples of each conversation, none where it is left out."""
        rows: list[list[Example]] = []
        problems: list[Refused] = []
        touched: list[Touched] = []
        for conversation in conversations:
            examples: list[Example] = []
            try:
                examples, note = self._fit(conversation)
            except RenderingError as error:
                problems.append(Refused(conversation.file, conversation.line, str(error)))
                note = None
            if note is not None:
                touched.append(note)
            rows.append(examples)
        return RenderedRows(Tokens.of(rows), problems, touched)

    def _fit(self, conversation: Conversation) -> tuple[list[Example], Touched | None]:
        num_tokens = self.renderer.num_tokens_beyond(conversation, self.max_length)
        if num_tokens is not None:
            return too_long(conversation, num_tokens, self.renderer, self.max_length, self.policy)
        examples = self.renderer.render(conversation)
        return apply_policy(conversation, examples, self.renderer, self.max_length, self.policy)


def num_workers(num_rows: int, shared_by: int = 1) -> int:
    """Processes that help with so many rows, where `shared_by` processes of a run share the machine and all render."""
    cores = usable_cores() // shared_by
    return max(0, min(cores - 1, num_rows // ROWS_A_WORKER, MAX_WORKERS))


def render(conversations: Sequence[Conversation], rendering: Rendering, workers: int = 0) -> RenderedRows:
    """All of them, with the help of that many processes."""
    starts = range(0, len(conversations), PART_ROWS)
    parts: Parts = deque((start, conversations[start : start + PART_ROWS]) for start in starts)
    done: dict[int, RenderedRows] = {}
    with _helped(workers, rendering, parts, done):
        _work(parts, done, rendering)
    _work(parts, done, rendering)  # what a worker that has ended left behind
    made = [done[start] for start in starts]
    return RenderedRows(
        Tokens.joined([part.tokens for part in made] or [Tokens.of([])]),
        [problem for part in made for problem in part.problems],
        [note for part in made for note in part.touched],
    )


def _work(
    parts: Parts, done: dict[int, RenderedRows], render: Callable[[Sequence[Conversation]], RenderedRows]
) -> None:
    """Take one part after the other, as several threads do, until none is left."""
    while parts:
        try:
            start, part = parts.popleft()
        except IndexError:  # another thread has just taken the last one
            return
        try:
            done[start] = render(part)
        except BaseException:
            parts.append((start, part))
            raise


@contextmanager
def _helped(workers: int, rendering: Rendering, parts: Parts, done: dict[int, RenderedRows]) -> Iterator[None]:
    """That many workers take parts while the block does so too; all are gone at its end, however it ends."""
    started: list[tuple[subprocess.Popen[bytes], Connection]] = []
    threads: list[Thread] = []
    try:
        with contextlib.suppress(OSError):  # a machine with no process to spare is done without them
            started.extend(_start() for _ in range(workers))
        for _, ours in started:
            threads.append(Thread(target=_tell, args=(ours, rendering, parts, done)))
            threads[-1].start()
        yield
        for thread in threads:
            thread.join()
    finally:
        for process, _ in started:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for _, ours in started:
            ours.close()


def _start() -> "tuple[subprocess.Popen[bytes], Connection]":
    """A worker, and the connection to it: it ends when that does, so also when this process is killed."""
    ours, theirs = multiprocessing.Pipe()
    process = subprocess.Popen(
        # -P: not what happens to lie in the current folder.
        [sys.executable, "-P", "-m", "trainer.training.render_worker", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process
        env=harmless_environment(TOKENIZERS_PARALLELISM="false"),
    )
    theirs.close()
    return process, ours


def _tell(worker: Connection, rendering: Rendering, parts: Parts, done: dict[int, RenderedRows]) -> None:
    """Give a worker one part after the other. If it fails, its part is done here, where a mistake is reported."""

    def asked(part: Sequence[Conversation]) -> RenderedRows:
        worker.send(part)
        answer: RenderedRows = worker.recv()
        return answer

    try:
        worker.send(rendering)
        _work(parts, done, asked)
    except (EOFError, OSError):
        return
