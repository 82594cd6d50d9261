"""Rows of an Excel workbook."""

import zipfile
from datetime import date
from pathlib import Path

import pytest

from trainer.data.convert import workbooks
from trainer.data.convert.files import convert_file
from trainer.data.read.rows import read_conversations
from trainer.errors import ConfigError, DataError
from trainer.workshop.documents.read import read_documents

openpyxl = pytest.importorskip("openpyxl")


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*rows, sheets=("Rows",)):
        book = openpyxl.Workbook()
        book.active.title = "Notes"
        for title in sheets:
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
        book.save("rows.xlsx")
        return Path("rows.xlsx")

    return write


def test_the_first_sheet_that_holds_rows_is_read(workbook):
    path = workbook(
        [],
        ["question", "answer", None],
        ["When?", date(1885, 5, 1), None],
        [None, None],
        ["Sum?", 2.0],
        ["Big?", True],
    )
    conversion = convert_file(path)
    assert conversion.layout == "an Excel workbook"
    rows = read_conversations(conversion.output).conversations
    assert [[message.content for message in row.messages] for row in rows] == [
        ["When?", "1885-05-01"], ["Sum?", "2"], ["Big?", "TRUE"]]  # fmt: skip


def test_the_check_names_the_command_that_reads_it(workbook):
    (found,) = read_conversations(workbook(["question", "answer"], ["Hi", "Hello"])).findings
    assert str(found) == (
        "rows.xlsx: FORMAT: the file is an Excel workbook, expected chat JSONL in UTF-8; "
        "run: trainer data convert rows.xlsx"
    )


def test_a_row_wider_than_the_header_is_told_by_its_number_in_excel(workbook):
    with pytest.raises(DataError, match=r"rows.xlsx:3: CSV: the row has 3 cells, expected 2, as the header has"):
        convert_file(workbook(["question", "answer"], ["Hi", "Hello"], ["Hi", "Hello", "x"]))


def test_a_workbook_without_rows_is_refused(workbook):
    with pytest.raises(DataError, match="no sheet holds a row"):
        convert_file(workbook())


def test_an_encoding_is_for_text_only(workbook):
    with pytest.raises(ConfigError, match="--encoding: is given for an Excel workbook"):
        convert_file(workbook(["question", "answer"]), encoding="cp1252")


def test_a_damaged_workbook_is_refused(workbook):
    path = workbook(["question", "answer"], ["Hi", "Hello"])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"rows.xlsx: cannot be read as an Excel workbook \(BadZipFile: "):
        convert_file(path)


def test_a_workbook_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_UNPACKED_BYTES", 10**6)
    path = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", " " * (10**6 + 1))
    with pytest.raises(DataError, match="the workbook unpacks to 1,000,001 bytes, expected at most 1,000,000; save"):
        convert_file(path)


def rewritten(path, old, new):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(old, new))
    return path


def test_a_sheet_that_calls_itself_as_large_as_can_be_is_read_as_far_as_it_goes(workbook, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_CELLS", 20_000)  # two rows of the stated width are more
    path = workbook(["question", "answer"], ["Hi", "Hello"])
    rewritten(path, b'ref="A1:B2"', b'ref="A1:XFD1048576"')
    assert convert_file(path).num_written == 1


FAR = {
    "a row": ((b'<row r="4"', b'<row r="1999999999"'), (b'"A4"', b'"A1999999999"')),
    "columns": ((b'r="B', b'r="XFD'),),
}


@pytest.mark.parametrize("changes", FAR.values(), ids=FAR)
@pytest.mark.parametrize("reader", [convert_file, lambda path: read_documents([path])], ids=["rows", "documents"])
def test_cells_so_far_out_that_the_gaps_would_fill_the_memory_are_refused(reader, changes, workbook, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_CELLS", 20_000)
    path = workbook(["question", "answer"], ["Hi", "Hello"], ["Yes", "No"], ["On", "Off"])
    for old, new in changes:
        rewritten(path, old, new)
    with pytest.raises(DataError, match="reaches beyond 1,048,576 rows or 20,000 cells"):
        reader(path)
