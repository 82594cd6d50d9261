"""Readers of text and of Markdown, and the encoding of both."""

import codecs
import re
from collections.abc import Iterator

from trainer.data.quoting import printable
from trainer.errors import DataError
from trainer.workshop.documents.passages import Document, Extent, Passage

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_HEADING = 500
_WORDS = ("text", "code_inline", "image")
_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def decode(raw: bytes, source: str) -> str:
    """The text of UTF-8 bytes, or of UTF-16 or UTF-32 with a byte order mark, with Unix line ends.

    Raises: DataError, for another encoding or binary data.
    """
    codec = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8-sig")
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{printable(source)}:{line}: is not {codec.removesuffix('-sig').upper()} at byte offset {error.start}, "
            "expected text in UTF-8; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(f"{printable(source)}: is binary data, expected a document; leave it out, or export its text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(text: str) -> Document:
    """The paragraphs of a text, which empty lines part."""
    return list(_paragraphs(text.split("\n"), 0))


def _paragraphs(lines: list[str], before: int) -> Iterator[Passage]:
    """Paragraphs of lines that `before` others precede."""
    begun = 0
    for number in range(len(lines) + 1):
        if number < len(lines) and lines[number].strip():
            continue
        if number > begun:
            yield Passage("\n".join(lines[begun:number]), Extent("line", before + begun + 1, before + number))
        begun = number + 1


def read_markdown(text: str) -> Document:
    """The top blocks of a Markdown text, each as its own lines; nothing is left out."""
    from markdown_it import MarkdownIt

    front = _FRONT_MATTER.match(text)
    skipped = front[0].count("\n") if front else 0
    lines = text.split("\n")
    blocks: Document = list(_paragraphs(lines[:skipped], 0))
    lines = lines[skipped:]
    done = 0
    parser = MarkdownIt("commonmark").enable("table").disable("inline")  # which takes quadratic time for some texts
    tokens = parser.parse("\n".join(lines))
    for token, inside in zip(tokens, [*tokens[1:], None], strict=False):
        if token.level or token.map is None or token.nesting < 0:
            continue
        begin, end = token.map
        while end > begin and not lines[end - 1].strip():  # a list takes the empty lines behind it
            end -= 1
        blocks += _paragraphs(lines[done:begin], skipped + done)  # definitions of links are no block
        own = "\n".join(lines[begin:end])
        extent = Extent("line", skipped + begin + 1, skipped + end)
        if token.type == "heading_open" and inside is not None:
            blocks.append(Passage(own, extent, int(token.tag[1:]), _title(inside.content)))
        else:
            is_code = token.type in ("fence", "code_block")
            head = "\n".join(lines[begin : begin + 2]) if token.type == "table_open" else ""
            blocks.append(Passage(own, extent, whole=is_code, head=head))
        done = end
    return [*blocks, *_paragraphs(lines[done:], skipped + done)]


def _title(heading: str) -> str:
    """The words of a heading without its markup."""
    from markdown_it import MarkdownIt

    if len(heading) > _MOST_HEADING:
        return " ".join(heading[:_MOST_HEADING].split())
    (inline,) = MarkdownIt("commonmark").parseInline(heading)
    words = ""
    for child in inline.children or []:
        words += " " if child.type.endswith("break") else child.content if child.type in _WORDS else ""
    return " ".join(words.split())
