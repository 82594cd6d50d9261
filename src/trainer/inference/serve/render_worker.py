"""A process of its own that renders requests: a chat template is a program that came with a model.

Lines of JSON come in and go out. A rendering that takes too long is ended by the kernel together with the process,
also where the parent is gone; one that takes too much memory fails.

Run as: python -m trainer.inference.serve.render_worker FOLDER
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_SECONDS = 2.0  # for one request; templates take milliseconds
MAX_BYTES = 512 * 1024**2  # beyond what the process has when it is ready


def main(folder: Path) -> None:
    """Answer until the parent closes the pipe."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between the answers

    def send(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        renderer, hello = _prepare(folder)
    except Exception as error:  # told by the parent
        send({"error": str(error)})
        return
    send(hello)
    for line in sys.stdin:
        send(_answer(renderer, json.loads(line)))


def _prepare(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The renderer, and what the server must know of its template."""
    from transformers import PreTrainedTokenizerFast

    from trainer.data.rendering import Renderer
    from trainer.inference.call_forms import call_form

    # Not AutoTokenizer: it loads torch, and classes that build their tokenizer anew instead of reading it.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    _limit_memory()
    with _Alarm():
        renderer = Renderer(tokenizer)
        form = call_form(renderer.template)
        hello = {
            "stops": sorted(renderer.end_markers | {tokenizer.eos_token_id} - {None}),
            "call_form": form and form.as_json(),
        }
    return renderer, hello


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, hard))


class _Alarm:
    """The process is killed when the block takes longer than MAX_SECONDS."""

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(renderer: Any, request: dict[str, Any]) -> dict[str, Any]:
    from trainer.data.chat_template import RenderingError

    with _Alarm():
        try:
            if found := _control_token(renderer, request):
                return {"error": found}
            return {"ids": renderer.prompt_ids(request["messages"], request["tools"])}
        except RenderingError as error:
            return {"error": str(error)}
        except Exception as error:  # whatever a template can do wrong, such as taking all memory
            return {"error": f"the chat template fails on these messages: {type(error).__name__} {error}".strip()}


def _control_token(renderer: Any, request: dict[str, Any]) -> str | None:
    """Text that spells a control token would be read as one: it could end a turn and begin another."""
    for place, text in _texts(request):
        if token := renderer.template.control_token_in(text):
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
