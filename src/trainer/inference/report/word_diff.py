"""Two texts compared word by word, as pieces that a page can mark."""

import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

Kind = Literal["same", "other", "missed"]
Piece = tuple[Kind, str]

_TOKEN = re.compile(r"\s+|[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W぀-ヿ㐀-䶿一-鿿豈-﫿]+|[^\w\s]")


def compare_words(answer: str, reference: str) -> tuple[list[Piece], list[Piece]]:
    """The answer with what the reference lacks marked `other`, the reference with what the answer lacks `missed`."""
    found, wanted = _TOKEN.findall(answer), _TOKEN.findall(reference)
    matcher = SequenceMatcher(None, [word.lower() for word in found], [word.lower() for word in wanted], autojunk=False)
    in_answer, in_reference = set[int](), set[int]()
    for block in matcher.get_matching_blocks():
        in_answer.update(range(block.a, block.a + block.size))
        in_reference.update(range(block.b, block.b + block.size))
    return _pieces(found, in_answer, "other"), _pieces(wanted, in_reference, "missed")


def _pieces(tokens: list[str], shared: set[int], kind: Kind) -> list[Piece]:
    """Neighbours of one kind together; white space is never marked alone."""
    kinds: list[Kind] = [
        kind if number not in shared and not token.isspace() else "same" for number, token in enumerate(tokens)
    ]
    return list(_joined(zip(kinds, tokens, strict=True)))


def _joined(pairs: Iterable[Piece]) -> Iterator[Piece]:
    for kind, group in groupby(pairs, key=lambda pair: pair[0]):
        yield kind, "".join(token for _, token in group)
