"""A turn of a conversation as a new training row, appended to a chat JSONL file as a whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.read.file_shape import HEAD_BYTES, recognise
from trainer.data.rules.findings import FindingList
from trainer.data.rules.row import check_row
from trainer.data.rules.tools import ToolLists
from trainer.data.strict_json import parse
from trainer.errors import DataError
from trainer.runs import files


def training_row(
    system: str | None, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The conversation as a row that trains its last answer; those before it are only read."""
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    turns = [
        {**message, "weight": 0} if index in answers[:-1] else dict(message) for index, message in enumerate(messages)
    ]
    head = [{"role": "system", "content": system}] if system else []
    return {"messages": [*head, *turns]} | ({"tools": [dict(tool) for tool in tools]} if tools else {})


def save_row(file: Path, row: dict[str, Any]) -> None:
    """Append `row`, which is first checked as `trainer data check` would.

    Raises: DataError, when the row breaks a rule, or the file cannot be written or holds something else.
    """
    findings = FindingList(str(file), "local")
    value = parse(json.dumps(row))
    if isinstance(value, JsonProblem):
        findings.add(value.code, "the row", value.found, value.accepted, value.fix)
    else:
        check_row(value, ToolLists(), findings)
    if errors := [str(finding) for finding in findings.findings if finding.severity == "error"]:
        raise DataError(*errors)
    try:
        _refuse_other_files(file)
        files.append_line(file, row)
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {error.strerror}; name another file") from None


def _refuse_other_files(file: Path) -> None:
    if not file.exists():
        return
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES + 1)
    if shape := recognise(head[:HEAD_BYTES], whole=len(head) <= HEAD_BYTES):
        raise DataError(f"{file}: {shape.found}, expected chat JSONL; name another file")
