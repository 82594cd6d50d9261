"""Reader of web pages: headings, paragraphs, lists, tables and code of the main part, without scripts and menus."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from trainer.data.quoting import printable
from trainer.errors import DataError
from trainer.extras import need
from trainer.workshop.documents.passages import Document, Extent, Passage

_DROPPED = {"script", "style", "noscript", "template", "nav", "footer", "aside", "form", "button", "svg", "math"}
_DROPPED |= {"iframe", "object", "canvas", "audio", "video", "head", "select", "dialog"}
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = {*_HEADINGS, "p", "pre", "table", "ul", "ol", "dl", "blockquote", "figure", "hr", "details", "address"}
_BLOCKS |= {"div", "section", "article", "main", "header", "body", "html", "figcaption", "summary", "dt", "dd", "li"}
_BLOCKS |= {"center", "fieldset", "hgroup", "caption", "thead", "tbody", "tfoot", "tr", "td", "th"}
_LAYOUT = ".//table|.//pre|.//ul|.//ol|.//h1|.//h2|.//h3|.//h4|.//h5|.//h6"
_MAX_DEPTH = 200
_BREAK = "\v"  # stands for a br, as line ends of the source are spaces
_SPACE = re.compile(r"[ \t\r\n\f]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


def declared_charset(raw: bytes) -> str | None:
    """The encoding that a page itself names in its first kilobyte."""
    found = _CHARSET.search(raw[:1024])
    return found[1].decode("ascii") if found else None


def read_html(text: str, source: str) -> Document:
    """The blocks of a page as Markdown. Raises: DataError, for elements nested without end; MissingDependency."""
    need("reading HTML", "lxml", extra="documents")
    from lxml import etree, html

    # No network, and no entities but HTML's own.
    parser = html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=True)
    try:
        page = html.document_fromstring(text.encode(), parser=parser)
    except (etree.LxmlError, ValueError):  # of a page without an element
        return []
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):  # the rest of the page is cut off
        raise _too_deep(source)
    blocks = _Blocks(source)
    blocks.add(_main(page), 0)
    blocks.end()
    title = " ".join((page.findtext(".//title") or "").split())
    if title and not any(block.level == 1 for block in blocks.found):
        return [Passage(f"# {title}", level=1, title=title), *blocks.found] if blocks.found else []
    return [*blocks.found]


def _main(page: Any) -> Any:
    """The element of the main content, where exactly one is marked as such; else the whole page."""
    for path in ("//main", "//*[@role='main']", "//article"):
        if len(marked := page.xpath(path)) == 1 and _words(marked[0]):
            return marked[0]
    body = page.find("body")
    return page if body is None else body


def _too_deep(source: str) -> DataError:
    return DataError(
        f"{printable(source)}: nests elements more than {_MAX_DEPTH} deep, expected a page of text; "
        "export it again, or as text"
    )


class _Blocks:
    """Passages of a page, in the order of their elements."""

    def __init__(self, source: str) -> None:
        self.source, self.found = source, list[Passage]()
        self.inline: list[str] = []

    def add(self, element: Any, depth: int) -> None:
        """Walk through a container; inline text between its blocks becomes paragraphs."""
        if depth > _MAX_DEPTH:
            raise _too_deep(self.source)
        self.inline.append(element.text or "")
        for child in element:
            if not _is_shown(child):
                pass
            elif child.tag in _BLOCKS:
                self.end()
                self.add_block(child, depth)
            elif child.tag == "br":
                self.inline.append(_BREAK)
            elif any(inner.tag in _BLOCKS for inner in child.iter()):  # a link or a span around blocks
                self.add(child, depth + 1)
            else:
                self.inline.append(_text_of(child, (), depth))
            self.inline.append(child.tail or "")

    def add_block(self, element: Any, depth: int) -> None:
        if element.tag in _HEADINGS:
            if title := _words(element):
                level = int(element.tag[1])
                self.keep(f"{'#' * level} {title}", level=level, title=title)
        elif element.tag == "pre":
            code = "".join(element.itertext()).strip("\n")
            if code.strip():
                fence = "````" if "```" in code else "```"
                self.keep(f"{fence}\n{code.rstrip()}\n{fence}", whole=True)
        elif element.tag == "table" and not element.xpath(_LAYOUT):
            rows = [[_words(cell) for cell in row if cell.tag in ("td", "th")] for row in element.iter("tr")]
            for caption in element.iter("caption"):
                self.keep(_words(caption))
            self.keep_table([row for row in rows if any(row)])
        elif _is_plain_list(element):
            self.keep("\n".join(_items(element, "", depth)))
        else:
            self.add(element, depth + 1)
            self.end()

    def end(self) -> None:
        """Make a paragraph of the inline text so far."""
        lines = (_SPACE.sub(" ", line).strip() for line in "".join(self.inline).split(_BREAK))
        self.inline = []
        self.keep("\n".join(filter(None, lines)))

    def keep(self, text: str, **how: Any) -> None:
        if text.strip():
            number = len(self.found) + 1
            self.found.append(Passage(text, Extent("paragraph", number, number), **how))

    def keep_table(self, rows: list[list[str]]) -> None:
        if rows:
            text = markdown_table(rows)
            self.keep(text, head="\n".join(text.split("\n")[:2]))


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of cells as a table of Markdown; the first is its header."""
    width = max(map(len, rows))
    lines = [
        "| " + " | ".join([*(cell.replace("|", "\\|") for cell in row), *[""] * (width - len(row))]) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _is_plain_list(element: Any) -> bool:
    """True for a list of items without blocks of code, tables or headings in them."""
    lists = [element, *element.iter("ul", "ol")] if element.tag in ("ul", "ol") else []
    return bool(lists) and all(
        not (inner.text or "").strip() and all(child.tag == "li" and not (child.tail or "").strip() for child in inner)
        for inner in lists
    ) and not element.xpath(".//pre|.//table|.//h1|.//h2|.//h3|.//h4|.//h5|.//h6")  # fmt: skip


def _items(element: Any, indent: str, depth: int) -> Iterator[str]:
    """The items of a list, inner lists below theirs."""
    for number, item in enumerate(element, start=1):
        inner = [child for child in item.iter("ul", "ol") if next(child.iterancestors("ul", "ol")) is element]
        if own := _words(item, set(inner)):
            yield f"{indent}{f'{number}.' if element.tag == 'ol' else '-'} {own}"
        for child in inner if depth < _MAX_DEPTH else ():
            yield from _items(child, f"{indent}  ", depth + 1)


def _is_shown(element: Any) -> bool:
    """False for comments, scripts, menus and what the page itself hides."""
    if not isinstance(element.tag, str) or element.tag in _DROPPED:
        return False
    style = (element.get("style") or "").replace(" ", "").lower()
    return not (
        element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or "display:none" in style
        or element.get("role") in ("navigation", "banner", "contentinfo", "search")
    )


def _words(element: Any, skipped: Collection[Any] = ()) -> str:
    """The shown text of an element on one line."""
    return _SPACE.sub(" ", _text_of(element, skipped, 0)).strip()


def _text_of(element: Any, skipped: Collection[Any], depth: int) -> str:
    """The shown text, with a space where a block begins or ends and code in backticks."""
    if depth > _MAX_DEPTH:
        return " ".join(element.itertext())
    if element.tag == "img":
        return element.get("alt") or ""
    parts = [element.text or ""]
    for child in element:
        if _is_shown(child) and child not in skipped:
            inner = _text_of(child, skipped, depth + 1)
            parts.append(f" {inner} " if child.tag in _BLOCKS or child.tag in ("br", "td", "th", "tr") else inner)
        parts.append(child.tail or "")
    text = "".join(parts)
    return f"`{text}`" if element.tag == "code" and text.strip() and "`" not in text else text
