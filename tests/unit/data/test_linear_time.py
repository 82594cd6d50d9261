"""Long rows of every troublesome kind: eight times as long takes about eight times as long."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.data.read.checks import check_files

pytestmark = pytest.mark.apart

LENGTH = 40_000
ANSWER = {"role": "assistant", "content": "a"}


def asked(text: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text}, ANSWER]})


def calling(count: int) -> str:
    calls = [{"id": f"{number}", "type": "function"} for number in range(count)]
    return json.dumps({"messages": [{"role": "assistant", "tool_calls": calls}]})


# Pieces of a text that a pattern could try again from each of its characters.
PIECES = [
    "a",
    " ",
    "*",
    "a@",
    "a.b@",
    "a" * 63 + ".",
    "1",
    "1-",
    "1 (",
    "+1 ",
    "4",
    "DE1 ",
    "sk-",
    "sk-a1A",
    "eyJ",
    "eyJa.",
]
PIECES += ["AKIA", "api key ", "-----BEGIN A ", "gho_a", "8Q~", "Q: ", "<|im_end|>", "\0", "\n", "é", "😀"]
ROWS: dict[str, Callable[[int], str]] = {
    "open brackets": lambda n: "[" * n,
    "open quotes": lambda n: '{"' * n,
    "backslashes": lambda n: '{"a": "' + "\\" * n,
    "escaped quotes": lambda n: '{"a": "' + '\\"' * n,
    "commas": lambda n: "[" + "1," * n,
    "half characters": lambda n: '{"a": "' + "\\ud83d" * n + '"}',
    "many keys": lambda n: json.dumps({f"key {number}": 1 for number in range(n // 10)}),
    "many messages": lambda n: json.dumps({"messages": [{"role": "user", "content": "a"}] * (n // 40)}),
    "many bad messages": lambda n: json.dumps({"messages": [{"rol": "usr", "contnt": 1}] * (n // 40)}),
    "many tools": lambda n: json.dumps({"messages": [], "tools": [{"type": "function"}] * (n // 40)}),
    "many calls": lambda n: calling(n // 40),
    "many answers": lambda n: json.dumps({"messages": [{"role": "tool", "tool_call_id": "a"}] * (n // 60)}),
    **{f"a text of {piece!r}": lambda n, piece=piece: asked(piece * (n // len(piece))) for piece in PIECES},
}


def seconds(path: Path, text: str) -> float:
    """The fastest of three checks of a file with one long row."""
    path.write_text(f'{text}\n{{"messages": 1}}', encoding="utf-8")
    times = []
    for _ in range(3):
        start = time.process_time()
        check_files([path], keep_rows=False, max_findings=20)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.long
@pytest.mark.parametrize("kind", ROWS)
def test_eight_times_as_long_a_row_takes_no_more_than_twenty_times_as_long(tmp_path: Path, kind: str) -> None:
    short, long = (seconds(tmp_path / "rows.jsonl", ROWS[kind](length)) for length in (LENGTH, 8 * LENGTH))
    assert long < 20 * short + 0.05
