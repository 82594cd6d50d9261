"""Data pages of a real studio: a report from a process of its own, rows, and a new version with a corrected row."""

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import data_file, manifest
from tests.studio import Studio, drafted, make_run, studio
from tests.waiting import until
from trainer.dashboard.datasets import processes, reports
from trainer.dashboard.datasets.files import id_of
from trainer.dashboard.datasets.page import data_pages
from trainer.runs import Run


def line_of(question: str, answer: str = "A word for a test.", role: str = "user") -> str:
    asked = {"role": role, "content": question}
    return json.dumps({"messages": [asked, {"role": "assistant", "content": answer}]})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Sixty rows with one mistake, one duplicate and one leak."""
    lines = [line_of(f"What is term {number} <b>?", f"Term {number} is a word.") for number in range(57)]
    lines += [line_of("What?", role="human"), lines[3], line_of("Held out?")]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "held_out.jsonl").write_text(line_of("Held out?") + "\n" + line_of("Another?") + "\n")
    return path


@pytest.fixture
def served(tmp_path: Path, rows: Path) -> Iterator[Studio]:
    root = tmp_path / "runs"
    run = Run(make_run(root, "one"))
    files = (data_file(str(rows), "train"), data_file(str(tmp_path / "held_out.jsonl")))
    run.write_manifest(manifest(data=files))
    with studio(root) as server:
        yield server
    data_pages(root.resolve()).reports.end()


def whole(served: Studio, path: str) -> str:
    """The page once its report is there."""
    pages: list[str] = []

    def is_there() -> bool:
        pages.append(served.get(path).text)
        return "every 1s" not in pages[-1]

    until(is_there, "the report", 60)
    return re.sub(r"\s+", " ", pages[-1])


def test_a_file_shows_its_findings_its_numbers_and_its_rows(served: Studio, rows: Path) -> None:
    listed = served.get("/data").text
    assert f'href="/data/{id_of(rows)}"' in listed
    assert all("rows.jsonl" not in address for address in re.findall(r'(?:href|action)="([^"]*)"', listed))
    page = whole(served, f"/data/{id_of(rows)}?run=&held_out={id_of(rows.with_name('held_out.jsonl'))}")
    for title, number in (("Rows", "60"), ("Held out", "2"), ("Errors", "2"), ("Duplicates", "1"), ("Leaks", "1")):
        assert re.search(rf"<dt>{title}</dt><dd[^>]*>{number}</dd>", page), title
    assert "messages[0].role is &#39;human&#39;" in page or "messages[0].role is 'human'" in page
    assert '<rect class="bar-fill"' in page
    assert " style=" not in page
    assert "What is term 0 &lt;b&gt;?" in page
    assert "page 1 of 3" in page


@pytest.mark.slow
def test_tokens_are_counted_as_in_the_run_that_used_the_file(served: Studio, rows: Path) -> None:
    page = whole(served, f"/data/{id_of(rows)}")
    assert re.search(r"<dt>Supervised</dt><dd[^>]*>\d+\.\d %</dd>", page)
    assert "the prefix tree computes them once" in page
    assert re.search(r"<dt>Leaks</dt><dd[^>]*>1</dd>", page), "compared with the file that the run held out"


def test_rows_are_paged_searched_and_filtered(served: Studio, rows: Path) -> None:
    address = f"/data/{id_of(rows)}"
    whole(served, f"{address}?run=")

    def lines(query: str) -> list[int]:
        return [int(line) for line in re.findall(r'id="line-(\d+)"', served.get(f"{address}?{query}").text)]

    assert lines("page=3") == list(range(41, 61))
    assert lines("page=999") == list(range(41, 61))
    assert lines("search=TERM+5+%3C") == [6]
    assert lines("only=error") == [58]
    assert lines("only=DUPLICATE") == [59]
    assert lines("only=findings&search=human") == [58]
    assert lines("search=no+such+words") == []
    assert lines(f"page={'9' * 5000}") == list(range(41, 61))
    assert served.get(f"{address}/rows/%C2%B2").status == 400
    for odd in ("page=x", "page=%C2%B2", "page=%00", "only=%3Cscript%3E", f"search={'x' * 5000}"):
        assert served.get(f"{address}?{odd}").status == 200


def test_a_corrected_row_is_held_to_the_rules_and_written_beside(served: Studio, rows: Path) -> None:
    before, address = rows.read_bytes(), f"/data/{id_of(rows)}"
    whole(served, f"{address}?run=")
    assert "ROLE" in served.get(f"{address}/rows/58").text
    wrong = served.post(f"{address}/rows/58/correct", {"row": line_of("What now?", role="person"), "action": "save"})
    assert wrong.status == 400
    assert "messages[0].role is" in wrong.text
    assert "What now?" in wrong.text
    right = served.post(f"{address}/rows/58/correct", {"row": line_of("What now?"), "action": "save"})
    assert (right.status, right.headers["location"]) == (303, f"{address}?page=3#line-58")
    assert served.post(f"{address}/rows/59/correct", {"action": "leave out"}).status == 303
    shown = served.get(f"{address}?only=edited").text
    assert "2 rows are" in re.sub(r"\s+", " ", shown)
    assert "What now?" in shown
    written = served.post(f"{address}/versions")
    version = rows.with_name("rows.v2.jsonl")
    assert (written.status, written.headers["location"]) == (303, f"/data/{id_of(version)}")
    old, new = before.decode().splitlines(), version.read_text().splitlines()
    assert new == [*old[:57], line_of("What now?"), old[59]]
    assert rows.read_bytes() == before
    assert served.post(f"{address}/versions").status == 400, "nothing is corrected any more"


def test_a_page_tells_of_corrections_from_before_its_file_changed(served: Studio, rows: Path) -> None:
    address = f"/data/{id_of(rows)}?run="
    served.post(f"/data/{id_of(rows)}/rows/1/correct", {"row": line_of("Another first?"), "action": "save"})
    assert "This file has changed" not in served.get(address).text
    os.utime(rows, ns=(0, 0))
    assert "This file has changed since 1 of its rows was corrected." in served.get(address).text
    assert served.post(f"/data/{id_of(rows)}/discard", {"which": "earlier"}).status == 303
    assert "This file has changed" not in served.get(address).text


def test_a_version_is_listed_beside_its_file(served: Studio, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"/data/{id_of(rows)}"
    served.post(f"{address}/rows/1/correct", {"row": line_of("Another first?"), "action": "save"})
    version = served.post(f"{address}/versions").headers["location"]
    assert served.get(version).status == 200


def test_a_file_of_preferences_begins_a_run_that_learns_from_them(
    served: Studio, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows.parent)
    plain = drafted(served, served.post(f"/data/{id_of(rows)}/use"))
    assert (plain["data.train"], "training.method" in plain) == ("rows.jsonl", False)
    answers = {f"{sort}_output": [{"role": "assistant", "content": sort}] for sort in ("preferred", "non_preferred")}
    rows.write_text(json.dumps({"input": {"messages": [{"role": "user", "content": "Which?"}]}} | answers) + "\n")
    assert drafted(served, served.post(f"/data/{id_of(rows)}/use"))["training.method"] == "dpo"


@pytest.mark.parametrize("path", ["/data/0123456789abcdef", "/data/..%2f..%2fetc%2fpasswd", "/data/etc/rows/1"])
def test_no_other_file_can_be_asked_for(path: str, served: Studio) -> None:
    assert served.get(path).status in (400, 404)


def test_a_file_that_is_no_data_says_so(served: Studio, rows: Path, tmp_path: Path) -> None:
    rows.write_bytes(b"PK\x03\x04 not rows")
    page = whole(served, f"/data/{id_of(rows)}?run=")
    assert "is a zip archive" in page


@pytest.mark.parametrize(
    ("place", "said"), [("files", "<dt>Rows</dt><dd>60</dd>"), ("subprocess", "could not be begun")]
)
def test_a_report_that_cannot_be_made_or_kept_leaves_no_page_waiting(
    place: str, said: str, served: Studio, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    holder, name = (reports.files, "write_whole") if place == "files" else (processes.subprocess, "Popen")
    monkeypatch.setattr(holder, name, full)
    assert said in whole(served, f"/data/{id_of(rows)}?run=")


def test_a_report_is_made_once_for_each_content(served: Studio, rows: Path, tmp_path: Path) -> None:
    whole(served, f"/data/{id_of(rows)}?run=")
    kept: list[Any] = list((tmp_path / "runs" / ".ui" / "reports").iterdir())
    assert len(kept) == 1
    whole(served, f"/data/{id_of(rows)}?run=")
    assert [*(tmp_path / "runs" / ".ui" / "reports").iterdir()] == kept
    rows.write_text(line_of("What else?") + "\n")
    assert "<dt>Rows</dt><dd>1</dd>" in whole(served, f"/data/{id_of(rows)}?run=")


# The clean step


@pytest.fixture
def dirty(tmp_path: Path, served: Studio) -> Path:
    """Rows with a repeat, debris, a leak and a secret, in the studio's own folder."""
    lines = [line_of(f"What is term {number}?", f"Term {number} is a word.") for number in range(20)]
    lines += [lines[0], line_of("What is debris?", "A: Debris is what remains."), line_of("Held out?")]
    lines += [line_of("What is my key?", "It is sk-proj-Abcdefghij0123456789Abcdefghij0123456789Ab.")]
    folder = tmp_path / "runs" / ".ui" / "files"
    folder.mkdir(parents=True)
    path = folder / "0123456789ab-dirty.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow  # the command runs three times, in processes of its own
def test_a_file_is_cleaned_into_its_next_version_and_used(served: Studio, dirty: Path, tmp_path: Path) -> None:
    before, address, held_out = dirty.read_bytes(), f"/data/{id_of(dirty)}", id_of(tmp_path / "held_out.jsonl")
    assert f'href="{address}/clean"' in served.get(address).text
    assert "Look for faults" in served.get(f"{address}/clean").text
    assert served.post(f"{address}/clean/begin", {"held_out": held_out}).status == 303
    refused = served.post(f"{address}/clean/begin", {"held_out": held_out})
    assert (refused.status, "is being cleaned, expected its end" in refused.text) == (400, True)
    page = whole(served, f"{address}/clean")
    for code in ("DUPLICATE", "LABEL", "LEAK"):
        assert re.search(rf"<code class=\"soft small\">[A-Z_]*{code}[A-Z_]*</code>", page), code
    assert dirty.read_bytes() == before
    left = re.findall(r'name="remove" value="([A-Z_]+)"', page)
    form = [("action", "write"), ("held_out", held_out), *(("remove", code) for code in left)]
    assert served.post(f"{address}/clean/begin", form).status == 303
    page = whole(served, f"{address}/clean")
    (made,) = set(re.findall(r'action="/data/([0-9a-f]{16})/use"', page))
    new = next(path for path in dirty.parent.glob("*-dirty.v2.jsonl"))
    assert (id_of(new), dirty.read_bytes()) == (made, before)
    assert not any("sk-proj" in line or "Held out?" in line for line in new.read_text().splitlines() if left)
    assert f"{new.stem}.changes.jsonl" in page
    draft = served.post(f"/data/{made}/use", {"held_out": held_out})
    shown = served.get(draft.headers["location"]).text
    assert "dirty.v2.jsonl" in shown
    assert "held_out.jsonl" in shown
    dirty.write_bytes(before + before.splitlines()[0] + b"\n")
    assert "The file has changed since" in served.get(f"{address}/clean").text


@pytest.mark.slow  # the command runs, in a process of its own
def test_a_file_that_cannot_be_cleaned_is_told_in_its_words(served: Studio, rows: Path) -> None:
    address = f"/data/{id_of(rows)}"
    rows.write_text("\n".join(line_of(f"What is {number}?", role="human") for number in range(9)) + "\n")
    served.post(f"{address}/clean/begin", {})
    page = whole(served, f"{address}/clean")
    told = re.findall(r"<p>(.*?)</p>", page.partition('role="alert"')[2])
    assert len(told) == 10
    assert "has 9 errors" in told[0]
    assert all(f":{number}: ROLE: " in line and "convert" in line for number, line in enumerate(told[1:], 1))
    assert served.post(f"{address}/clean/begin", {"held_out": "0" * 16}).status == 400
    assert served.post(f"/data/{'0' * 16}/use", {}).status == 400
