"""Documents of each format as files: their chunks, and a sentence for each that cannot be read."""

import io
import json
import random
import zipfile
from collections.abc import Sequence

import openpyxl
import pypdf
import pytest

from trainer.errors import DataError, MissingDependency
from trainer.workshop.documents.html import read_html
from trainer.workshop.documents.read import read_documents

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def pdf(*pages: Sequence[str]) -> bytes:
    """A PDF of lines of text, as small as the format allows."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, lines in enumerate(pages):
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET" if lines else ""
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(places) + 1} /Root 1 0 R >>\n"
    return body + f"{end}startxref\n{len(body)}\n%%EOF".encode()


def docx(body: str, before: str = "") -> bytes:
    """A Word document whose body is WordprocessingML."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/></w:style>'
        for name in ("Title", "heading 1", "heading 2")
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "word/styles.xml": f'<w:styles xmlns:w="{WORD}">{styles}</w:styles>',
        "word/document.xml": f'{before}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return file.getvalue()


def paragraph(text: str, style: str = "") -> str:
    how = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{how}<w:r><w:t>{text}</w:t></w:r></w:p>"


def table(*rows: Sequence[str]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def read(folder, name, content, notes=None, **options):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_documents([folder / name], on_note=None if notes is None else notes.append, **options)


def shown(chunks):
    return [(chunk.place, chunk.title, chunk.text) for chunk in chunks]


def refusal(folder, name, content) -> str:
    with pytest.raises(DataError) as error:
        read(folder, name, content)
    assert len(error.value.problems) == 1
    return str(error.value).replace(f"{folder}/", "")


def test_each_object_of_a_json_list_is_a_chunk(tmp_path):
    terms = [{"term": "LLM", "definition": "A model of language."}, {"term": "Token", "definition": ""}, "word"]
    assert shown(read(tmp_path, "terms.json", json.dumps(terms, indent=1))) == [
        ("item 1", "LLM", "term: LLM\ndefinition: A model of language."),
        ("item 2", "Token", "term: Token"),
        ("item 3", "", "word"),
    ]


def test_lists_within_an_object_are_chunks_of_their_own(tmp_path):
    value = {
        "name": "Shop", "open": {"from": 9, "days": ["Mo", "Tu"], "late": True},
        "goods": [{"id": 1, "price": 2.50, "note": "one\n  two"}, {"id": 2, "parts": [{"a": 1}, {"b": None}]}],
    }  # fmt: skip
    assert shown(read(tmp_path, "shop.json", json.dumps(value))) == [
        ("", "Shop", "name: Shop\nopen:\n  from: 9\n  days:\n    - Mo\n    - Tu\n  late: true"),
        ("goods, item 1", "", "id: 1\nprice: 2.5\nnote: one\n  two"),
        ("goods, item 2", "", "id: 2\nparts:\n  -\n    a: 1"),
    ]


def test_numbers_of_any_size_are_read_and_a_key_that_stands_twice_is_told(tmp_path):
    number = "-9223372036854776000"
    assert [chunk.text for chunk in read(tmp_path, "a.json", f'[{{"a": {number}}}]')] == [f"a: {number}"]
    assert [chunk.text for chunk in read(tmp_path, "a.jsonl", f'{{"a": {number}}}')] == [f"a: {number}"]
    assert "a.json:1: at column " in refusal(tmp_path, "a.json", f'[{{"a": {number}, "a": 2}}]')
    assert [chunk.text for chunk in read(tmp_path, "a.json", '[{"a": 1e999, "b": 0.5}]')] == ["a: 1e999\nb: 0.5"]
    assert "a.json:1: at column " in refusal(tmp_path, "a.json", '[{"a": NaN}]')


def test_half_a_character_beside_a_number_of_any_size_is_told(tmp_path):
    assert "a.json:1: at column 8 " in refusal(tmp_path, "a.json", r'[{"n": 1e999, "t": "\ud800"}]')


def test_json_lines_cite_the_line_and_tell_every_bad_one(tmp_path):
    assert shown(read(tmp_path, "a.jsonl", '{"q": "one"}\n\n{"q": "two"}\n')) == [
        ("line 1", "", "q: one"), ("line 3", "", "q: two"),
    ]  # fmt: skip
    with pytest.raises(DataError) as error:
        read(tmp_path, "b.jsonl", '{"q": 1}\n{"q": }\n{"q": 2}\n{\n')
    assert [problem.partition("b.jsonl:")[2][:12] for problem in error.value.problems] == [
        "2: at column",
        "4: at column",
    ]


def test_a_mistake_in_json_is_told_with_its_line(tmp_path):
    assert refusal(tmp_path, "a.json", '[\n {"a": 1},\n {"a" 2}\n]').startswith("a.json:3: at column 7 ")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_rows_of_a_table_are_numbered_as_in_a_spreadsheet(tmp_path, mark):
    text = mark.join(["name", "price", ""]) + "\r\n" + mark.join(['"Nut, or\nbolt; A"', "2", "x"]) + "\r\n\r\n"
    text += mark.join(["Saw", "", ""]) + "\r\n"
    assert shown(read(tmp_path, "a.csv", text)) == [
        ("row 2", "", "name: Nut, or\nbolt; A\nprice: 2\nx"), ("row 4", "Saw", "name: Saw"),
    ]  # fmt: skip


def test_a_table_of_one_column_or_of_its_header_alone_is_read(tmp_path):
    assert shown(read(tmp_path, "a.csv", "fact\nWater is wet\n")) == [("row 2", "", "fact: Water is wet")]
    assert shown(read(tmp_path, "b.csv", "fact,source\n")) == [("row 1", "", "fact\nsource")]


def test_an_open_quote_in_a_table_is_told_with_its_line(tmp_path):
    assert refusal(tmp_path, "a.csv", 'a,b\n1,2\n"3,4\n').startswith("a.csv:3: cannot be read as a table")


PAGE = """<!doctype html><html><head><title>Shop</title><script>var secret = 1</script></head><body>
<nav><a href="/">Home</a></nav><header><h1>Opening <em>hours</em></h1></header>
<div>We open<br>daily. <span>Come <b>in</b>.</span><p>Really.</p>tail</div>
<h2>Prices</h2><table><caption>In euros</caption><tr><th>Thing</th><th>Price</th></tr><tr><td>Nut|bolt</td><td>2</td></tr></table>
<ul><li>one <a href="x">link</a><ul><li>inner</li></ul></li><li><div>two</div></li></ul>
<ol><li>first</li><li><p>text</p><pre>x = 1
  y = 2</pre></li></ol>
<p hidden>hidden</p><p style="display: none">gone</p><!-- note --><style>p {}</style>
<p>Use <code>a b</code>, caf&eacute; &amp; more.</p><footer>Imprint</footer></body></html>"""


def test_a_page_gives_its_main_text_and_no_script_or_menu(tmp_path):
    (chunk,) = read(tmp_path, "a.html", PAGE)
    assert chunk.place == "Opening hours"
    assert chunk.text.split("\n\n") == [
        "# Opening hours", "We open\ndaily. Come in.", "Really.", "tail", "## Prices", "In euros",
        "| Thing | Price |\n| --- | --- |\n| Nut\\|bolt | 2 |", "- one link\n  - inner\n- two",
        "first", "text", "```\nx = 1\n  y = 2\n```", "Use `a b`, café & more.",
    ]  # fmt: skip


def test_the_one_main_element_of_a_page_is_its_text_and_the_title_its_heading(tmp_path):
    page = "<title> My  page </title><div>menu</div><main><p>Text</p></main><div>ads</div>"
    assert shown(read(tmp_path, "a.html", page)) == [("My page", "My page", "# My page\n\nText")]


def test_a_page_may_name_its_encoding(tmp_path):
    page = '<meta charset="iso-8859-1"><p>Über</p>'
    assert [chunk.text for chunk in read(tmp_path, "a.html", page.encode("latin-1"))] == ["Über"]
    assert refusal(tmp_path, "b.html", "<p>Über</p>".encode("latin-1")).startswith("b.html:1: is not UTF-8")


def test_entities_of_a_page_are_not_followed_and_endless_nesting_is_refused(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    page = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]><p>a &x; b</p>'
    assert not any("secret" in chunk.text for chunk in read(tmp_path, "a.html", page))
    assert "nests elements more than 200 deep" in refusal(tmp_path, "b.html", "<div>" * 5000 + "text")
    assert "nests elements more than 200 deep" in refusal(tmp_path, "b.html", "<span>" * 5000 + "text")
    assert read_html("<span>" * 1000 + "text", "c.html")[0].text == "text"


def test_a_word_document_is_cut_by_its_headings(tmp_path):
    body = paragraph("Handbook", "Title") + paragraph("Start", "heading1") + paragraph("First " * 60)
    body += paragraph("Tools", "heading2") + table(("Name", "Use"), ("Saw", "cut &amp; trim"))
    body += f"<w:sdt><w:sdtContent>{paragraph('In a control.')}</w:sdtContent></w:sdt>"
    body += "<w:p><w:ins><w:r><w:t>Inserted.</w:t></w:r></w:ins><w:del><w:r><w:delText>Deleted.</w:delText></w:r></w:del></w:p>"
    chunks = read(tmp_path, "a.docx", docx(body), chunk_characters=400)
    assert [chunk.place for chunk in chunks] == ["Handbook to Start", "Start > Tools"]
    assert (
        chunks[1].text
        == "## Tools\n\n| Name | Use |\n| --- | --- |\n| Saw | cut & trim |\n\nIn a control.\n\nInserted."
    )


def test_a_workbook_gives_the_rows_of_each_sheet(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in [(None,), ("Name", "Price", "In stock"), ("Nut", 2.0, True), (None, None, None), ("Saw", 7.5, "=1=1")]:
        book.active.append(row)
    book.create_sheet("Notes").append(["Only this"])
    book.create_sheet("Empty")
    book.save(tmp_path / "made.xlsx")
    notes: list[str] = []
    chunks = read(tmp_path, "a.xlsx", (tmp_path / "made.xlsx").read_bytes(), notes)
    assert shown(chunks) == [
        ("sheet Prices, row 3", "Nut", "Name: Nut\nPrice: 2\nIn stock: true"),
        ("sheet Prices, row 5", "Saw", "Name: Saw\nPrice: 7.5"),
        ("sheet Notes, row 1", "", "Only this"),
    ]
    assert notes == [
        f"{tmp_path}/a.xlsx: 1 formulas have no result stored, and are left out; open the workbook in Excel and save it"
    ]


def test_a_pdf_cites_its_pages(tmp_path):
    chunks = read(
        tmp_path, "a.pdf", pdf(["First page."], ["Second page.", "Two lines."], ["word " * 90]), chunk_characters=460
    )
    assert [(chunk.place, chunk.text[:20]) for chunk in chunks] == [
        ("pages 1-2", "First page.\n\nSecond "),
        ("page 3", "word word word word "),
    ]


def test_scanned_pages_of_a_pdf_are_told(tmp_path):
    notes: list[str] = []
    chunks = read(tmp_path, "a.pdf", pdf(["Text."], [], [], ["More."], []), notes)
    assert [chunk.place for chunk in chunks] == ["pages 1-4"]
    ocr = "run OCR first, for example: ocrmypdf in.pdf out.pdf"
    assert notes == [f"{tmp_path}/a.pdf: 3 of 5 pages hold no text (2-3, 5); {ocr}"]
    assert refusal(tmp_path, "b.pdf", pdf([], [], [])) == f"b.pdf: pages 1 to 3 hold no text, as scans do; {ocr}"
    assert refusal(tmp_path, "c.pdf", pdf([])) == f"c.pdf: page 1 holds no text, as scans do; {ocr}"


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_an_encrypted_pdf_is_read_without_a_password_or_refused(tmp_path, algorithm):
    for user, name in (("", "open.pdf"), ("secret", "locked.pdf")):
        writer = pypdf.PdfWriter(io.BytesIO(pdf(["Text."])))
        writer.encrypt(user, "owner", algorithm=algorithm)
        writer.write(tmp_path / name)
    assert [chunk.text for chunk in read_documents([tmp_path / "open.pdf"])] == ["Text."]
    with pytest.raises(
        DataError, match=r"locked.pdf: is encrypted, expected a PDF without a password; save it without"
    ):
        read_documents([tmp_path / "locked.pdf"])


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Word document; save it as .docx, or leave it out"),
    ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel workbook; save it as .xlsx, or leave it out"),
    ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is protected with a password, or an older format in spite of its "
     "name; save it as .docx without one, or leave it out"),
    ("a.pptx", b"PK\3\4", "is a PowerPoint presentation; export it as PDF, or leave it out"),
    ("a.txt", b"\x89PNG\r\n\x1a\n\0", "is an image; export it as PDF with text (OCR), or leave it out"),
    ("a.webp", b"RIFF\0\0\0\0WEBP", "is an image; export it as PDF with text (OCR), or leave it out"),
    ("a.zip", b"PK\3\4", "is a zip archive; unpack it, or leave it out"),
    ("a.pdf", b"Hello", "is no PDF in spite of its name; export it again, or leave it out"),
    ("a.xlsx", b"Hello", "is no XLSX in spite of its name; export it again, or leave it out"),
    ("a.exe", b"MZ\0\0", "is binary data, expected a document; leave it out, or export its text"),
    ("a.json", b" ", "holds no text, expected a document; leave it out"),
    ("a.html", b"<script>x</script>", "holds no text, expected a document; leave it out"),
])  # fmt: skip
def test_what_is_no_readable_document_is_told_in_a_sentence(tmp_path, name, content, sentence):
    assert refusal(tmp_path, name, content) == f"{name}: {sentence}"


def test_damaged_archives_and_pages_are_told_in_a_sentence(tmp_path):
    whole = docx(paragraph("Text"))
    for at in (10, 200, len(whole) // 2, len(whole) - 30):
        assert refusal(tmp_path, "a.docx", whole[:at]).startswith("a.docx: cannot be read as ")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("other.txt", "text")
    assert "cannot be read as a Word document" in refusal(tmp_path, "b.docx", file.getvalue())
    assert "cannot be read as an Excel workbook" in refusal(tmp_path, "b.xlsx", file.getvalue())
    assert refusal(tmp_path, "b.pdf", b"%PDF-1.4\nnothing").startswith("b.pdf: cannot be read as PDF")


def changed(chance: random.Random, content: bytes) -> bytes:
    """The content, a few bytes of it replaced, cut out or repeated."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 2, 5])):
        at, other = chance.randrange(len(found)), chance.randrange(len(found))
        match chance.randrange(3):
            case 0:
                found[at] = chance.randrange(256)
            case 1:
                del found[at : at + chance.randrange(1, 5)]
            case _:
                found[at:at] = found[other : other + chance.randrange(1, 30)]
    return bytes(found)


def test_files_with_damage_anywhere_are_read_or_refused_and_nothing_else(tmp_path):
    chance = random.Random(7)
    book = io.BytesIO()
    openpyxl.Workbook().save(book)
    whole = {
        "a.docx": docx(table(("a", "b"), ("c", "d"))), "a.xlsx": book.getvalue(), "a.pdf": pdf(["Text."], ["More."]),
        "a.html": PAGE.encode(), "a.json": b'[{"a": 1, "b": [{"c": "x"}]}]', "a.csv": b'a,b\n1,"x y"\n',
    }  # fmt: skip
    outcomes = set()
    for number in range(240):
        name = list(whole)[number % len(whole)]
        (tmp_path / name).write_bytes(changed(chance, whole[name]))
        try:
            outcomes.add(bool(read_documents([tmp_path / name])[0].id))
        except DataError:
            outcomes.add(False)
    assert outcomes == {True, False}


def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path):
    bomb = docx(paragraph("a" * 50_000_000))
    assert len(bomb) < 100_000
    assert "it may be made to fill the memory" in refusal(tmp_path, "a.docx", bomb)


@pytest.mark.parametrize("where", ["internal", "external"])
def test_entities_in_office_documents_are_refused(tmp_path, where):
    entity = '"aaaa"' if where == "internal" else 'SYSTEM "file:///etc/passwd"'
    before = f"<!DOCTYPE d [<!ENTITY x {entity}>]>"
    assert refusal(tmp_path, "a.docx", docx(paragraph("&x;"), before)) == (
        "a.docx: declares a document type in word/document.xml, expected none, as entities could expand without end; "
        "open and save it again"
    )


def test_packages_that_are_missing_are_named_with_their_extra_all_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.extras.is_installed", lambda module: False)
    for name, content in {"a.docx": docx(""), "b.pdf": pdf(["x"]), "c.html": b"<p>x", "d.xlsx": docx("")}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MissingDependency) as error:
        read_documents([tmp_path])
    needed = [
        "Word documents needs mammoth, lxml",
        "PDF needs pypdf",
        "HTML needs lxml",
        "Excel workbooks needs openpyxl",
    ]
    for problem, words in zip(error.value.problems, needed, strict=True):
        assert problem.startswith(f"reading {words}, which ")
        assert "[documents]" in problem


def test_problems_of_several_files_come_at_once(tmp_path):
    for name, content in {"a.docx": b"x", "b.pdf": pdf([]), "c.txt": b"fine", "d.json": b"["}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_documents([tmp_path])
    assert len(error.value.problems) == 3
