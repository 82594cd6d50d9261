"""Readers of Word documents and Excel workbooks, which are zip archives of XML."""

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any
from xml.parsers import expat

from trainer.data.convert.workbooks import sheet_rows
from trainer.data.quoting import printable
from trainer.errors import DataError
from trainer.extras import need
from trainer.workshop.documents.html import read_html
from trainer.workshop.documents.passages import Document
from trainer.workshop.documents.records import table_records

MAX_UNPACKED_BYTES = 500_000_000
MAX_PARTS = 10_000
_MAX_RATIO = 200  # of XML without a trick: about 10 to 60
_FEW_BYTES = 1_000_000  # below this no ratio is suspicious
_WITHOUT_VALUE = re.compile(rb"<f\b[^>]*>[^<]*</f>\s*(?:<v\s*/>|<v></v>)?\s*</c>")
# Title is no heading in Word's own outline.
_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def read_docx(raw: bytes, source: str, note: Callable[[str], None]) -> Document:
    """Headings, paragraphs, lists, tables and notes of a Word document. Raises: DataError, MissingDependency."""
    need("reading Word documents", "mammoth", "lxml", extra="documents")
    import mammoth

    _check_archive(raw, source)
    try:
        pictures = mammoth.images.img_element(lambda _: {"src": ""})
        page = mammoth.convert_to_html(io.BytesIO(raw), style_map=_STYLES, convert_image=pictures).value
    except Exception as error:  # it has no errors of its own for a damaged document
        raise _damaged(source, "a Word document", error) from error
    return read_html(page, source)


def read_xlsx(raw: bytes, source: str, note: Callable[[str], None]) -> Document:
    """The rows of each sheet by the names of its header. Raises: DataError, MissingDependency."""
    need("reading Excel workbooks", "openpyxl", extra="documents")
    import openpyxl

    archive = _check_archive(raw, source)
    records: Document = []
    try:
        with warnings.catch_warnings(action="ignore"):  # of styles and links, which are not read
            book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
            for sheet in book.worksheets:
                records += table_records(list(sheet_rows(sheet)), f"sheet {sheet.title}, ")
    except Exception as error:  # nor has this one
        raise _damaged(source, "an Excel workbook", error) from error
    sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
    if num_empty := sum(len(_WITHOUT_VALUE.findall(archive.read(name))) for name in sheets):
        note(
            f"{printable(source)}: {num_empty} formulas have no result stored, and are left out; "
            "open the workbook in Excel and save it"
        )
    return records


def _check_archive(raw: bytes, source: str) -> zipfile.ZipFile:
    """The archive. Raises: DataError, for a damaged one, one that unpacks without end, or XML with entities."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
        parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged(source, "a zip archive, which it should be", error) from None
    unpacked = sum(part.file_size for part in parts)
    if len(parts) > MAX_PARTS or unpacked > max(min(_MAX_RATIO * len(raw), MAX_UNPACKED_BYTES), _FEW_BYTES):
        raise DataError(
            f"{printable(source)}: unpacks from {len(raw):,} to {unpacked:,} bytes in {len(parts):,} parts, expected a "
            "document; it may be made to fill the memory: open and save it again, or leave it out"
        )
    for part in parts:
        if part.filename.endswith((".xml", ".rels")):
            _check_xml(archive, part, source)
    return archive


def _check_xml(archive: zipfile.ZipFile, part: zipfile.ZipInfo, source: str) -> None:
    """Raises: DataError, where a document type is declared, which could define entities; Office writes none."""
    parser = expat.ParserCreate()
    ended: list[str] = []
    parser.StartDoctypeDeclHandler = lambda *_: ended.append("doctype")
    parser.StartElementHandler = lambda *_: ended.append("element")
    try:
        with archive.open(part) as file:
            while not ended and (chunk := file.read(4096)):
                parser.Parse(chunk)
    except Exception as error:  # any kind, by what is damaged: an offset, a checksum, an encoding
        raise _damaged(source, f"an Office document in its part {printable(part.filename)}", error) from None
    if ended[:1] == ["doctype"]:
        raise DataError(
            f"{printable(source)}: declares a document type in {printable(part.filename)}, expected none, as entities "
            "could expand without end; open and save it again"
        )


def _damaged(source: str, kind: str, error: BaseException) -> DataError:
    words: Any = " ".join(str(error).split())[:100] or type(error).__name__
    return DataError(f"{printable(source)}: cannot be read as {kind} ({printable(words)}); open and save it again")
