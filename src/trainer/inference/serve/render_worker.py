"""A process of its own that renders requests: a chat template is a program that came with a model.

Lines of JSON come in and go out. What has been imported and read stands in one process, and a copy of it renders. A
rendering that takes too long is ended by the kernel together with the copy, also where the server is gone, and the next
copy is made at once; one that takes too much memory fails.

Run as: python -m trainer.inference.serve.render_worker FOLDER
"""

import gc
import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from trainer.runs.process import address_space_bytes

MAX_SECONDS = 2.0  # of processor time for a short request; templates take milliseconds
BYTES_A_SECOND = 125_000  # more for a long one: tokenizers read at least twice as many
MAX_WAIT_SECONDS = 60.0  # for one that waits instead of working
MAX_BYTES = 512 * 1024**2  # beyond what the process has when it is ready
MAX_ANSWER_BYTES = 64 * 1024**2  # of one line: the ids of a prompt

Send = Callable[[dict[str, Any]], None]


def main(folder: Path) -> None:
    """Answer until the parent closes the pipe."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not stand between the answers

    def send(value: dict[str, Any]) -> None:
        line = json.dumps(value).encode() + b"\n"
        if len(line) > MAX_ANSWER_BYTES:
            line = json.dumps({"id": value.get("id"), "error": "the prompt is too long"}).encode() + b"\n"
        out.write(line)
        out.flush()

    try:
        reader, hello = _prepare(folder)
    except Exception as error:  # the parent reports it
        send({"error": str(error)})
        return
    send(hello)
    gc.freeze()  # else a copy's search for garbage would copy every page
    at_work = mmap.mmap(-1, 8)  # the request that the copy renders, or 0
    while (code := _copy_ends(reader, at_work, send)) and (request := _number(at_work)):
        at_work[:] = bytes(8)
        send({"id": request, "error": ending(code)})


def ending(code: int) -> str:
    """Reason why a process that renders has ended without an answer."""
    if -code in (signal.SIGPROF, signal.SIGALRM):
        return f"the chat template did not finish these messages within {MAX_SECONDS:g} seconds"
    return f"the process that renders it ended with exit code {code}"


def _copy_ends(reader: Any, at_work: mmap.mmap, send: Send) -> int:
    """Let a copy of this process answer; its exit code, 0 where no request is left."""
    copy = os.fork()
    if copy == 0:
        _answer_all(reader, at_work, send)
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


def _answer_all(reader: Any, at_work: mmap.mmap, send: Send) -> NoReturn:
    code = 1
    try:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            at_work[:] = int(request["id"]).to_bytes(8, "little")
            answer = _answer(reader, request, len(line)) | {"id": request["id"]}
            at_work[:] = bytes(8)
            send(answer)
        code = 0
    finally:
        os._exit(code)


def _number(at_work: mmap.mmap) -> int:
    return int.from_bytes(at_work[:], "little")


def _prepare(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The reader of a template's replies, with its renderer, and what the server must know of the template."""
    from transformers import PreTrainedTokenizerFast

    from trainer.data.render.rendering import Renderer
    from trainer.inference.replies import ReplyReader

    # Not AutoTokenizer: it loads torch, and classes that build their tokenizer anew instead of reading it.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    _limit_memory()
    with _Alarm():
        reader = ReplyReader(Renderer(tokenizer))
        hello = {
            "stops": sorted(reader.renderer.end_markers | {tokenizer.eos_token_id} - {None}),
            "call_form": reader.form and reader.form.as_json(),
            "thoughts": reader.thoughts.as_json(),
        }
    return reader, hello


def _limit_memory() -> None:
    used = address_space_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, hard))


class _Alarm:
    """The process is ended when the block takes longer than it may for so many bytes."""

    def __init__(self, num_bytes: int = 0) -> None:
        self.seconds = MAX_SECONDS + num_bytes / BYTES_A_SECOND

    def __enter__(self) -> None:
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, self.seconds)  # not of the clock: the machine may be busy
        signal.setitimer(signal.ITIMER_REAL, self.seconds + MAX_WAIT_SECONDS)

    def __exit__(self, *exception: object) -> None:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)


def _answer(reader: Any, request: dict[str, Any], num_bytes: int) -> dict[str, Any]:
    from trainer.data.render.chat_template import RenderingError

    with _Alarm(num_bytes):
        try:
            if found := _control_token(reader, request):
                return {"error": found}
            prompt = reader.renderer.prompt(request["messages"], request["tools"])
            return {"ids": prompt.ids, "opens_thought": reader.thoughts.opened_by(prompt.text)}
        except RenderingError as error:
            return {"error": str(error)}
        except Exception as error:  # whatever a template can do wrong, such as taking all memory
            return {"error": f"the chat template fails on these messages: {type(error).__name__} {error}".strip()}


def _control_token(reader: Any, request: dict[str, Any]) -> str | None:
    """Text that spells a control token would be read as one: it could end a turn and begin another."""
    for place, text in _texts(request):
        if token := reader.template.control_token_in(text):
            return f"{place} holds {token!r}, a control token of this model; remove or respell it"
    return None


def _texts(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for index, message in enumerate(request["messages"]):
        yield f"messages[{index}]", "\n".join(_leaves(message))
    yield "tools", "\n".join(_leaves(request["tools"]))


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from (key, *_leaves(inner))
        case list():
            for inner in value:
                yield from _leaves(inner)
        case str():
            yield value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
