"""The system prompt that a run was trained with: a call that has it, and whether a request does.

A model that has always seen one system prompt answers at random without it, and nothing in the answer shows why.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from trainer.inference.probes import request_of, rows_of
from trainer.runs import Run

Judgment = Literal["trained", "other", "none"]

HEADER = b"x-system-prompt"  # of every answer of a run whose rows have a system prompt in common
LONGEST_BODY = 4000  # characters of a call that is shown


class TrainedPrompt:
    """The system prompt of most training rows, None where they have none in common."""

    def __init__(self, prompt: str | None, report: Callable[[str], None] = lambda message: None) -> None:
        self.prompt, self.report = prompt, report
        self._reported: set[Judgment] = set()

    def judge(self, messages: Sequence[Mapping[str, Any]]) -> Judgment | None:
        """Compare a request's beginning with the training rows'; report each kind of difference once."""
        if self.prompt is None:
            return None
        first = messages[0]
        found: Judgment = "none"
        if first["role"] in ("system", "developer"):
            found = "trained" if (first["content"] or "").strip() == self.prompt.strip() else "other"
        if found != "trained" and found not in self._reported:
            self._reported.add(found)
            what = "no system prompt" if found == "none" else "another system prompt than the trained one"
            self.report(
                f"a request has {what}: its answer may be of no use; the trained one stands in the call above and in "
                f"manifest.json (said once; each response has {HEADER.decode()}: {found})"
            )
        return found


def ready_call(run: Run, address: str, authorization: str) -> str | None:
    """A command that asks the served model one of the run's own questions, as the row asks it; None without any.

    `authorization` stands in double quotes, so that it may be a variable of the shell.
    """
    rows = [row for row in rows_of(run).conversations if any(message.trained for message in row.messages)]
    if not rows:
        return None
    prompt = run.manifest().system_prompt
    row = next((row for row in rows if prompt is not None and row.messages[0].content == prompt), rows[0])
    number = [message.trained for message in row.messages].index(True)
    body = _as_json({"model": run.name} | request_of(row, number) | {"temperature": 0})
    if len(body) > LONGEST_BODY:
        return (
            f"(with the run's own prompt it has {len(body):,} characters; its parts stand in {run.path}/manifest.json)"
        )
    lines = [
        f"curl {address}/v1/chat/completions",
        f'-H "Authorization: Bearer {authorization}"',
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(body)}",
    ]
    return " \\\n  ".join(lines)


def _as_json(request: Mapping[str, Any]) -> str:
    """Readable where a terminal shows every character of it as it is."""
    text = json.dumps(request, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(request)
