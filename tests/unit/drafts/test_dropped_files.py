"""Files that are dropped on the page: kept whole under a name of ours, or refused in one sentence."""

import asyncio
import errno
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trainer.drafts import files
from trainer.drafts.files import MAX_UPLOAD_BYTES, Uploads, harmless, refuse_head
from trainer.errors import DataError

ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Uploads:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Uploads(Path("runs/.ui/files"), [Path()])


def store(uploads: Uploads, name: str, *chunks: bytes, size: int | None = None) -> files.ListedFile:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(uploads.store(name, size, arriving()))


def refused(uploads: Uploads, name: str, *chunks: bytes, size: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        store(uploads, name, *chunks, size=size)
    assert len(str(caught.value).splitlines()) == 1
    left = list(uploads.folder.iterdir()) if uploads.folder.is_dir() else []
    assert left == [], "nothing of it is kept"
    return str(caught.value)


def test_a_file_is_kept_whole_under_its_digest_and_shown_by_its_name(uploads):
    kept = store(uploads, "my rows (2).jsonl", ROW, ROW, size=2 * len(ROW))
    assert Path(kept.path).read_bytes() == ROW * 2
    assert Path(kept.path).parent == Path("runs/.ui/files")
    assert (kept.name, kept.is_own, uploads.named(kept.path)) == ("my-rows-2-.jsonl", True, "my-rows-2-.jsonl")
    assert store(uploads, "my rows (2).jsonl", ROW * 2).id == kept.id
    assert [file.id for file in uploads.own()] == [kept.id]
    assert uploads.find(kept.id) == kept


@pytest.mark.parametrize(
    ("name", "head", "said"),
    [
        ("book.xlsx", b"PK\x03\x04rest", "save the sheet as CSV"),
        ("rows.zip", b"PK\x03\x04rest", "unpack the archive"),
        ("old.xls", b"\xd0\xcf\x11\xe0rest", "save the sheet as CSV"),
        ("paper.pdf", b"%PDF-1.7", "a PDF document"),
        ("rows.jsonl.gz", b"\x1f\x8brest", "gunzip"),
        ("rows.jsonl", b"", "is empty"),
        ("../../etc/rows.jsonl", ROW, "the name holds a folder"),
        ("..\\rows.jsonl", ROW, "the name holds a folder"),
        ("rows\n.jsonl", ROW, "cannot be shown"),
    ],
)
def test_what_is_no_file_of_rows_is_refused_in_a_sentence(uploads, name, head, said):
    assert said in refused(uploads, name, head)


def test_a_file_of_two_gigabytes_is_refused_before_it_is_read(uploads):
    assert "expected at most 1.0 GB by the browser" in refused(uploads, "rows.jsonl", size=2 * 10**9)


def test_more_than_was_announced_ends_at_the_limit(uploads, monkeypatch):
    monkeypatch.setattr(files, "MAX_UPLOAD_BYTES", len(ROW))
    assert "expected at most" in refused(uploads, "rows.jsonl", ROW, ROW)
    assert "expected all" in refused(uploads, "rows.jsonl", ROW, size=len(ROW) - 1)


def test_a_full_disk_is_told_before_and_while_it_is_written(uploads, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
        assert "1.0 kB are free on the server's disk" in refused(uploads, "rows.jsonl", ROW, size=len(ROW))

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device; free space, then drop it again" in refused(uploads, "rows.jsonl", ROW)


def test_tables_and_parquet_pass_since_they_can_be_converted():
    for head in (b"question,answer,more\n", b"PAR1rest", b"[\n{}\n]", ROW, b"\xef\xbb\xbf" + ROW):
        refuse_head("rows", head)


def test_files_of_the_server_are_those_below_the_roots(uploads, tmp_path):
    (tmp_path / "outside.jsonl").write_bytes(ROW)
    for name in ("a.jsonl", "deep/b.csv", ".hidden/c.jsonl", "runs/x/config.yaml", "runs/x/d.jsonl", "notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(ROW)
    Path("link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    store(uploads, "own.jsonl", ROW)
    assert [file.path for file in uploads.of_server()] == ["a.jsonl", "deep/b.csv"]
    assert all("/" not in file.id for file in uploads.of_server())
    with pytest.raises(DataError, match="no such file any more"):
        uploads.find("../outside.jsonl")


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../outside.jsonl", "deep/../../outside.jsonl", "link.jsonl", "~/x", "~nobody-here/x"]
)
def test_a_path_outside_of_the_roots_is_told_from_one_inside(uploads, tmp_path, text):
    Path("a.jsonl").write_bytes(ROW)
    (tmp_path / "outside.jsonl").write_bytes(ROW)
    Path("link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    assert uploads.is_outside(text)
    for inside in ("a.jsonl", str(Path("a.jsonl").resolve()), "not-there.jsonl", "meta-llama/Llama-3.1-8B", "x" * 5000):
        assert not uploads.is_outside(inside), inside


def test_a_long_name_is_cut_and_keeps_its_ending():
    assert harmless("ä" * 100 + ".jsonl").endswith("jsonl")
    assert len(harmless("x" * 300 + ".jsonl")) == 80
    assert harmless("x" * 300 + ".jsonl").endswith(".jsonl")
    assert MAX_UPLOAD_BYTES == 10**9
