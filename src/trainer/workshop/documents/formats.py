"""The format of a file, known by its first bytes and its name, and the reader of each."""

from collections.abc import Callable
from pathlib import Path

from trainer.data.quoting import printable
from trainer.errors import DataError, file_error
from trainer.workshop.documents.html import declared_charset, read_html
from trainer.workshop.documents.office import read_docx, read_xlsx
from trainer.workshop.documents.openapi import read_yaml
from trainer.workshop.documents.passages import Document
from trainer.workshop.documents.pdf import read_pdf
from trainer.workshop.documents.records import read_json, read_json_lines, read_table
from trainer.workshop.documents.text import decode, read_markdown, read_text

MAX_FILE_BYTES = 100_000_000
_TEXT: dict[tuple[str, ...], Callable[[str, str], Document]] = {
    (".md", ".markdown", ".mdx"): lambda text, _: read_markdown(text),
    (".txt", ".text", ".rst"): lambda text, _: read_text(text),
    (".json",): read_json,
    (".jsonl", ".ndjson"): read_json_lines,
    (".yaml", ".yml"): read_yaml,
    (".csv", ".tsv"): read_table,
    (".html", ".htm", ".xhtml"): read_html,
}
_ARCHIVES = {".docx": read_docx, ".docm": read_docx, ".xlsx": read_xlsx, ".xlsm": read_xlsx}
READ = (*(suffix for suffixes in _TEXT for suffix in suffixes), ".pdf", *_ARCHIVES)
# Documents whose text is left out nowhere in silence, though their format is not read.
_OLD = {
    ".doc": "an old Word document; save it as .docx",
    ".xls": "an old Excel workbook; save it as .xlsx",
    ".ppt": "an old PowerPoint presentation; export it as PDF",
    ".pptx": "a PowerPoint presentation; export it as PDF",
    ".odt": "an OpenDocument text; save it as .docx",
    ".ods": "an OpenDocument spreadsheet; save it as .xlsx",
    ".odp": "an OpenDocument presentation; export it as PDF",
    ".rtf": "a text in RTF; save it as .docx",
    ".epub": "an e-book; convert it to HTML",
}
DOCUMENTS = (*READ, *_OLD)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh9": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_PACKED |= {b"PK\3\4": "zip"}


def read_document(path: Path, source: str, note: Callable[[str], None]) -> Document:
    """Passages and records of a file; `note` hears of parts that hold no text.

    Raises: DataError or MissingDependency, naming `source`.
    """
    raw, suffix = _bytes_of(path, source), path.suffix.lower()
    if raw.startswith(b"%PDF-"):
        document = read_pdf(raw, source, note)
    elif raw.startswith(b"PK\3\4") and suffix in _ARCHIVES:
        document = _ARCHIVES[suffix](raw, source, note)
    elif found := _foreign(raw, suffix):
        raise DataError(f"{printable(source)}: is {found}, or leave it out")
    else:
        text = _decoded(raw, suffix, source)
        document = _reader(suffix)(text, source) if text.strip() else []
    if not document:
        raise DataError(f"{printable(source)}: holds no text, expected a document; leave it out")
    return document


def _bytes_of(path: Path, source: str) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataError(f"{printable(source)}: is not a regular file, expected a document; save it as one")
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"{printable(source)}: has {size / 1e6:,.0f} MB, expected at most "
                f"{MAX_FILE_BYTES / 1e6:,.0f} MB; split it"
            )
        return path.read_bytes()
    except OSError as error:
        raise file_error(error, source) from None


def _foreign(raw: bytes, suffix: str) -> str | None:
    """Another format than those that are read, and what to do, in words."""
    if raw.startswith(_OLE) and suffix in _ARCHIVES:
        return f"protected with a password, or an older format in spite of its name; save it as {suffix} without one"
    if suffix in _OLD:
        return _OLD[suffix]
    if raw.startswith(_OLE):
        return "an old Office document; save it as .docx or .xlsx"
    if raw.startswith(b"{\\rtf"):
        return _OLD[".rtf"]
    if raw.startswith(_IMAGES) or (raw.startswith(b"RIFF") and raw[8:12] == b"WEBP"):
        return "an image; export it as PDF with text (OCR)"
    for mark, name in _PACKED.items():
        if raw.startswith(mark):
            return f"a {name} archive; unpack it"
    if suffix in (".pdf", *_ARCHIVES):
        return f"no {suffix[1:].upper()} in spite of its name; export it again"
    return None


def _reader(suffix: str) -> Callable[[str, str], Document]:
    return next((reader for suffixes, reader in _TEXT.items() if suffix in suffixes), lambda text, _: read_text(text))


def _decoded(raw: bytes, suffix: str, source: str) -> str:
    """The text; a page may name another encoding than UTF-8."""
    charset = declared_charset(raw) if suffix in (".html", ".htm", ".xhtml") else None
    if charset:
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            try:
                return raw.decode(charset)
            except (LookupError, UnicodeDecodeError):
                pass
    return decode(raw, source)
