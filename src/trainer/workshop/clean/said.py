"""Text of rows in the form in which they are compared: letter case, punctuation and Markdown aside."""

import re
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from trainer.data.conversations import Conversation, Message
from trainer.data.rules.across_rows import ToolDigests, fingerprint

SEPARATOR = b"\0"  # between prompt and answer; no text holds one
MAX_PART_BYTES = 1 << 18  # of a prompt or an answer are compared in part; their digests are of all
_SYSTEM = ("system", "developer")
# Operators carry meaning, "-" and "*" before a digit only: elsewhere they are hyphens, bullets and bold text.
_OPERATORS = "+/=<>^%$&|~*-"
_DROPPED = re.compile(rf"[^\w€£{_OPERATORS}]|_")
_DROPPED_ASCII = {code: " " for code in range(128) if not chr(code).isalnum() and chr(code) not in _OPERATORS}
_NO_OPERATOR = re.compile(r"[*-](?!\s?\d)|(?<!\d)(?<!\d\s)\*")
_SIGN = re.compile(rf"[\d€£{_OPERATORS}]")
_NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "cannot",
        "without",
        "nicht",
        "kein",
        "keine",
        "keinen",
        "nie",
        "ohne",
        "ne",
        "pas",
        "jamais",
        "sans",
        "nunca",
        "sin",
        "não",
        "non",
        "senza",
        "не",
        "нет",
        "без",
    ]
)
_NEGATING_CHARACTERS = "不没無"


class SaidRow(NamedTuple):
    """Digests of a row, and its folded text: prompt, SEPARATOR, answer.

    `row` is of the row as it stands, white space and the spelling of the system prompt aside; all others are of folded
    text. `context` is of all that is neither prompt nor answer: system prompt, tools, weights, images. `prompt` holds
    the context too, and is 0 where a row asks nothing. `signs` is of numbers, operators and negations: rows that differ
    in them say something else, however similar they are.
    """

    row: int
    text: int
    context: int
    prompt: int
    signs: int
    folded: bytes


def folded(text: str) -> str:
    """`text` without letter case, punctuation and Markdown: words and numbers with a space between them."""
    text = text.casefold()
    text = text.translate(_DROPPED_ASCII) if text.isascii() else _DROPPED.sub(" ", text)
    if "*" in text or "-" in text:
        text = _NO_OPERATOR.sub(" ", text)
    return " ".join(text.split())


_folded_system = lru_cache(256)(folded)  # most rows share theirs


def _signs(text: str) -> list[str]:
    """Numbers, operators and negations of a folded text, in an order that says nothing."""
    signs = [word for word in text.split() if word in _NEGATIONS or (not word.isalpha() and _SIGN.search(word))]
    signs += ["n t"] * f"{text} ".count("n t ")  # don't, can't
    if not text.isascii():
        signs += [character for character in text if character in _NEGATING_CHARACTERS]
    return sorted(signs)


def said_by(row: Conversation, tools: ToolDigests) -> SaidRow:
    """The digests of a row, equal in every process; `tools` keeps those of lists of tools."""
    *before, last = row.messages
    answers = [_folded(last)]
    if row.non_preferred:
        before, preferred = list(row.messages[: row.num_prompt]), row.messages[row.num_prompt :]
        answers = [" ".join(map(_folded, preferred)), " ".join(map(_folded, row.non_preferred))]
    prompt = " \1 ".join(f"{message.role[0]} {_folded(message)}" for message in before if message.role not in _SYSTEM)
    system = " ".join(_folded_system(message.content or "") for message in before if message.role in _SYSTEM)
    weights = [message.weight for message in row.messages]
    images = [message.images for message in row.messages if message.images]
    context = _digest(f"{system}\1{tools.of(row) if row.tools else ''}\1{weights}\1{images}".encode())
    first = prompt.encode()
    answer = " \1 ".join(answers)
    text = first + SEPARATOR + answer.encode()
    signs = "\1".join([*_signs(prompt), "", *_signs(answer)])
    # Many pairs may answer a prompt, and two that prefer opposite answers contradict each other.
    asked = first + b"\1".join(sorted(answer.encode() for answer in answers)) if row.non_preferred else first
    exact = fingerprint(_with_folded_system(row), tools)
    whole = int.from_bytes(blake2b(f"{exact.row}\1{exact.weights}".encode(), digest_size=16).digest())
    asked_of = _digest(asked + context.to_bytes(8)) if first else 0
    return SaidRow(whole, _digest(text), context, asked_of, _digest(signs.encode()), text)


def _with_folded_system(row: Conversation) -> Conversation:
    first, *others = row.messages
    if first.role not in _SYSTEM or not first.content:
        return row
    system = Message(first.role, _folded_system(first.content), first.weight, first.name)
    return replace(row, messages=(system, *others))


def _folded(message: Message) -> str:
    calls = [f"{call.name} {call.arguments}" for call in message.tool_calls]
    return folded(" ".join([message.reasoning_content or "", message.content or "", message.refusal or "", *calls]))


def _digest(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest())


class SaidRows:
    """Text of many rows: digests in arrays, and the folded texts in a temporary file, so that memory stays small.

    All rows are added before the text of one is read.
    """

    def __init__(self) -> None:
        self.lines, self.row_high, self.row_low = array("Q"), array("Q"), array("Q")
        self.text, self.context, self.prompt, self.signs = array("Q"), array("Q"), array("Q"), array("Q")
        self._ends = array("Q", [0])
        self._texts = tempfile.TemporaryFile()  # noqa: SIM115  # it has no name, and goes with this object
        self._tools = ToolDigests()

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, row: Conversation) -> None:
        """Note a row; its number is that of the rows before it."""
        said = said_by(row, self._tools)
        high, low = divmod(said.row, 1 << 64)
        for column, value in (
            (self.lines, row.line), (self.row_high, high), (self.row_low, low), (self.text, said.text),
            (self.context, said.context), (self.prompt, said.prompt), (self.signs, said.signs),
        ):  # fmt: skip
            column.append(value)
        prompt, _, answer = said.folded.partition(SEPARATOR)
        kept = prompt[:MAX_PART_BYTES] + SEPARATOR + answer[:MAX_PART_BYTES]
        self._texts.write(kept)
        self._ends.append(self._ends[-1] + len(kept))

    def folded(self, number: int) -> bytes:
        """The folded text of a row: its prompt, SEPARATOR and its answer."""
        start, end = self._ends[number], self._ends[number + 1]
        self._texts.seek(start)
        return self._texts.read(end - start)

    def batches(self, numbers: Sequence[int], num_bytes: int = 1 << 19) -> Iterator[tuple[list[int], list[bytes]]]:
        """Rows in turn with their folded texts, about so many bytes at a time."""
        batch: list[int] = []
        texts: list[bytes] = []
        size = 0
        for number in numbers:
            batch.append(number)
            texts.append(self.folded(number))
            size += len(texts[-1])
            if size >= num_bytes:
                yield batch, texts
                batch, texts, size = [], [], 0
        if batch:
            yield batch, texts

    def close(self) -> None:
        self._texts.close()
