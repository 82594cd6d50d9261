"""The preview's page in a real browser: rows are drawn, found and sorted, and no text of the data is executed."""

import html
import re
import subprocess

from tests.browser import FLAGS, chromium
from trainer.data.files.preview import PreviewRow, Span, Totals, preview_page

NUM_ROWS = 200
ASK = """
<script>
const told = [];
const first = () => document.querySelector("article header span")?.textContent;
const tell = () => told.push([list.children.length < rows.length, shown.length, first()]);
const ask = (text, kind, sorting) => {
  search.value = text;
  which.value = kind;
  order.value = sorting;
  update();
  tell();
};
tell();
ask("ROW 150.", "all", "file");
ask("", "untrained", "file");
ask("", "all", "long");
ask("nowhere", "all", "file");
document.body.dataset.told = JSON.stringify(told);
</script>
"""


def row(number):
    spans = [
        Span("prompt", f"Row {number}. </script><script>document.title = 'executed'</script>", 10 + number),
        Span("untrained" if number == 120 else "answer", "Yes", 1),
        Span("end", "<|im_end|>", 1),
    ]
    return PreviewRow(f"rows.jsonl:{number}", [spans])


def in_browser(page, path):
    """The page's document after its scripts have run."""
    path.write_text(page, encoding="utf-8")
    command = [chromium(), "--headless", *FLAGS]
    profile = f"--user-data-dir={path.parent / 'profile'}"
    done = subprocess.run(
        [*command, profile, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_rows_are_drawn_as_they_come_into_view_and_can_be_found_and_sorted(tmp_path):
    page = preview_page("rows", "model", Totals(rows=NUM_ROWS, tokens=1, trained=1), map(row, range(1, NUM_ROWS + 1)))
    document = in_browser(page.replace("</body>", f"{ASK}</body>"), tmp_path / "page.html")
    (told,) = re.findall(r'data-told="([^"]*)"', document)
    assert html.unescape(told) == (
        '[[true,200,"rows.jsonl:1"],[true,1,"rows.jsonl:150"],[true,1,"rows.jsonl:120"],'
        '[true,200,"rows.jsonl:200"],[true,0,null]]'
    )
    assert "<title>What is trained: rows</title>" in document
