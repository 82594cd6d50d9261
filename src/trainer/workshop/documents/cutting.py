"""Cutting of a document: by its headings first, then by paragraphs, lines, sentences and words; never inside a word."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from trainer.data.quoting import printable
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.documents.passages import Document, Extent, Passage, Record

Say = Callable[[str], None]

_SMALL = 4  # a chunk of less than this part of the size is joined with its neighbor
_APART = "\n\n"
# Scripts without spaces between words: a text of them may be cut between any two characters.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# The ends that a cut may be at, the best first; each pattern also takes the space behind.
_ENDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\n[ \t]*\n\s*",
        r"\n\s*",
        r"(?<![.!?\u2026])[.!?\u2026]++[\"')\]\u201d\u2019\u00bb]*+\s+|[\u3002\uff01\uff1f]++[\u300d\u300f\uff09\u201d]*+\s*",
        r"[;:,]\s+|[\u3001\uff0c\uff1b\uff1a]",
        r"\s+",
        rf"(?<=[{_UNSPACED}])(?=[{_UNSPACED}])",
    )
)
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class _Part:
    """Text of one chunk; `first` and `last` are the headings above its first and its last section."""

    text: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    extent: Extent | None

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings that all of the text stands below."""
        count = 0
        while count < min(len(self.first), len(self.last)) and self.first[count] == self.last[count]:
            count += 1
        return self.first[:count]

    @property
    def place(self) -> str:
        """The headings, `First to Last` for joined sections; the lines or pages of a text without headings."""
        if not self.first and not self.last:
            return str(self.extent or "")
        count = len(self.headings)
        ends = [path[count] for path in (self.first, self.last) if len(path) > count]
        return " > ".join([*self.headings, *([" to ".join(ends)] if len(ends) == 2 or not count else [])])

    def with_next(self, part: "_Part") -> "_Part":
        extent = self.extent.to(part.extent) if self.extent and part.extent else self.extent or part.extent
        return _Part(self.text + _APART + part.text, self.first, part.last, extent)


def cut_document(source: str, document: Document, size: int, note: Say) -> list[Chunk]:
    """Chunks of at most `size` characters; longer ones, where nothing may be cut, go to `note`."""
    chunks: list[Chunk] = []
    for run in _runs(document):
        if isinstance(run, Record):
            texts = cut_text(run.text, size)
            chunks += (Chunk(source, run.place, text, run.title, run.function) for text in texts)
        else:
            parts = _joined(list(_parts(run, size)), size)
            chunks += (Chunk(source, part.place, part.text, " > ".join(part.headings)) for part in parts)
    if long := [chunk for chunk in chunks if len(chunk.text) > size]:
        most = max(len(chunk.text) for chunk in long)
        note(
            f"{printable(source)}: {len(long)} of {len(chunks)} chunks exceed {size:,} characters, up to {most:,}: "
            "code, rows of tables and words are never cut"
        )
    return _numbered(chunks)


def cut_text(text: str, size: int) -> list[str]:
    """The text in parts of at most `size` characters without space around; a longer word stays whole."""
    text = text.strip()
    parts, at = [], 0
    while len(text) - at > size:
        end = _end_within(text, at, size)
        parts.append(text[at:end].strip())
        at = end
    return [part for part in (*parts, text[at:].strip()) if part]


def _end_within(text: str, at: int, size: int) -> int:
    """The end of the part that begins at `at`: the best kind of end in its second half, else any, else a word's."""
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, at + size // 2, at + size + 1)]
        for end in reversed(ends):
            if at < end and (end - at <= size or not text[at + size : end].strip()):
                return end
    ends = [match.end() for match in _SPACE.finditer(text, at, at + size + 1)]
    if ends and ends[-1] > at:
        return ends[-1]
    next_space = _SPACE.search(text, at + size)
    return next_space.end() if next_space else len(text)


def _runs(document: Document) -> Iterator[list[Passage] | Record]:
    """Records one by one, and the passages between them."""
    passages: list[Passage] = []
    for item in document:
        if isinstance(item, Passage):
            passages.append(item)
            continue
        if passages:
            yield passages
            passages = []
        yield item
    if passages:
        yield passages


def _parts(passages: Iterable[Passage], size: int) -> Iterator[_Part]:
    """Each section, which a heading begins, in as few parts as fit in order."""
    headings: dict[int, str] = {}
    section: list[Passage] = []
    for passage in passages:
        if passage.level:
            yield from _filled(section, tuple(headings.values()), size)
            headings = {level: title for level, title in headings.items() if level < passage.level}
            headings[passage.level] = passage.title
            section = []
        section.append(passage)
    yield from _filled(section, tuple(headings.values()), size)


def _filled(section: Iterable[Passage], headings: tuple[str, ...], size: int) -> Iterator[_Part]:
    part: _Part | None = None
    for passage in section:
        for text in _cut_passage(passage, size):
            more = _Part(text, headings, headings, passage.extent)
            if part and len(part.text) + len(_APART) + len(text) <= size:
                part = part.with_next(more)
                continue
            if part:
                yield part
            part = more
    if part:
        yield part


def _cut_passage(passage: Passage, size: int) -> list[str]:
    if passage.whole or len(passage.text) <= size:
        return [text] if (text := passage.text.rstrip().lstrip("\n")) else []
    if not passage.head:
        return cut_text(passage.text, size)
    first, *others = cut_text(passage.text, max(size - len(passage.head) - 1, size // 2))
    return [first, *(f"{passage.head}\n{text}" for text in others)]


def _joined(parts: list[_Part], size: int) -> list[_Part]:
    """The parts, small ones with the one before or after; the place is then what the headings share."""
    small = max(size // _SMALL, 1)
    found: list[_Part] = []
    for part in parts:
        if found and min(len(found[-1].text), len(part.text)) < small:
            last = found[-1]
            if len(last.text) + len(_APART) + len(part.text) <= size:
                found[-1] = last.with_next(part)
                continue
        found.append(part)
    return found


def _numbered(chunks: list[Chunk]) -> list[Chunk]:
    """The chunks, those that share a place told apart: `, part 2 of 3`."""
    of_place = Counter(chunk.place for chunk in chunks)
    seen: Counter[str] = Counter()
    numbered = []
    for chunk in chunks:
        seen[chunk.place] += 1
        if (total := of_place[chunk.place]) > 1:
            words = f"part {seen[chunk.place]} of {total}"
            numbered.append(replace(chunk, place=f"{chunk.place}, {words}" if chunk.place else words))
        else:
            numbered.append(chunk)
    return numbered
