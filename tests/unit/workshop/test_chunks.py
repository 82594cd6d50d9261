"""Documents become chunks: nothing lost, nothing cut within a word, the same files the same chunks."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import ConfigError, DataError
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.documents.cutting import cut_document, cut_text
from trainer.workshop.documents.passages import Passage
from trainer.workshop.documents.read import read_documents
from trainer.workshop.documents.text import read_markdown, read_text

GUIDE = """---
title: ignored
---
# Guide

Intro of the guide.

## Installing

Read [this][there] first.

### Linux

```sh
# no heading

apt install it
```

### Windows

Click twice.

Reference
=========

| Key | Value |
|-----|-------|
| a   | 1     |

[there]: https://example.org
"""
WORDS = st.text(
    st.characters(codec="utf-8", categories=["Lu", "Ll", "Lo", "Nd", "Po", "Zs"]) | st.just("\n"), max_size=400
)


def nothing(_: str) -> None:
    pass


def chunks_of(text, size=400):
    return cut_document("x.md", read_markdown(text), size, nothing)


def test_markdown_is_cut_by_headings_that_become_the_place(tmp_path):
    (tmp_path / "guide.md").write_text(GUIDE.replace("Intro", "Intro " * 50).replace("Click", "Click " * 60))
    chunks = read_documents([tmp_path / "guide.md"], chunk_characters=400)
    assert [(chunk.place, chunk.title) for chunk in chunks] == [
        ("Guide", ""),
        ("Guide > Installing > Linux", "Guide > Installing > Linux"),
        ("Guide > Installing > Windows", "Guide > Installing > Windows"),
        ("Reference", "Reference"),
    ]
    assert "# no heading\n\napt install it" in chunks[1].text
    assert chunks[3].text.endswith("| a   | 1     |\n\n[there]: https://example.org")


def test_small_sections_are_joined_and_say_from_where_to_where():
    (chunk,) = chunks_of("# A\n\n## B\n\none\n\n## C\n\ntwo\n\n## D\n\nthree\n")
    assert (chunk.place, chunk.title) == ("A", "A")
    first, second = chunks_of("# A\n\n" + "x" * 395 + "\n\n## B\n\none\n\n## C\n\ntwo\n")
    assert (first.place, second.place, second.title) == ("A", "A > B to C", "A")
    (chunk,) = chunks_of("# A\n\none\n\n# B\n\ntwo")
    assert (chunk.place, chunk.title) == ("A to B", "")


def test_a_code_block_is_never_cut_and_its_length_is_told():
    notes: list[str] = []
    code = "```\n" + "a = 1\n" * 200 + "```"
    chunks = cut_document("x.md", read_markdown(f"before\n\n{code}\n\nafter"), 300, notes.append)
    assert [chunk.text for chunk in chunks] == ["before", code, "after"]
    assert [chunk.place for chunk in chunks] == ["line 1", "lines 3-204", "line 206"]
    assert notes == [
        "x.md: 1 of 3 chunks exceed 300 characters, up to 1,207: code, rows of tables and words are never cut"
    ]


def test_each_part_of_a_long_table_begins_with_its_header():
    table = "| Key | Value |\n|---|---|\n" + "".join(f"| key {n} | value {n} |\n" for n in range(60))
    chunks = chunks_of(table)
    assert len(chunks) > 3
    assert all(chunk.text.startswith("| Key | Value |\n|---|---|\n") for chunk in chunks)
    rows = [line for chunk in chunks for line in chunk.text.split("\n")[2:]]
    assert rows == table.strip().split("\n")[2:]


def test_parts_of_one_place_are_numbered_and_text_without_headings_cites_lines():
    paragraph = "One sentence. " * 20
    chunks = cut_document("x.txt", read_text(f"{paragraph}\n\n{paragraph * 2}\n"), 300, nothing)
    assert [chunk.place for chunk in chunks] == ["line 1", "line 3, part 1 of 2", "line 3, part 2 of 2"]
    assert all(chunk.text.endswith("One sentence.") for chunk in chunks)


def test_a_title_is_a_heading_without_its_markup():
    text = "# **Bold** `code` [link](x) ![alt](y) a\\*b <b>c</b>\n\n" + "# " + "[" * 1000
    (chunk,) = chunks_of(text, 4000)
    assert chunk.place == f"Bold code link alt a*b c to {'[' * 500}"


@pytest.mark.parametrize("text", ["." * 400_000, "漢" * 400_000, ". " * 200_000, "a" * 400_000, "\n" * 400_000])
def test_texts_without_an_end_are_cut_in_the_time_of_others(text):
    begun = time.process_time()
    cut_text(f"x{text}x", 200_000)
    read_markdown(text)
    assert time.process_time() - begun < 5  # where each start of a run is tried: minutes


def test_the_id_is_of_text_and_title_alone():
    chunk = Chunk("a.md", "A", "text", "title")
    assert chunk.id == Chunk("b.md", "line 7", "text", "title").id
    assert len({chunk.id, Chunk("a.md", "A", "text").id, Chunk("a.md", "A", "title", "text").id}) == 3
    assert len(chunk.id) == 16


@given(WORDS, st.integers(1, 60))
def test_cutting_loses_no_word_and_cuts_none(text, size):
    parts = cut_text(text, size)
    assert " ".join(parts).split() == text.split() or "".join("".join(parts).split()) == "".join(text.split())
    for part in parts:
        assert len(part) <= size or len(part.split()) == 1
    if text.isascii():
        assert " ".join(parts).split() == text.split()


@given(st.lists(st.sampled_from(["# A", "## B", "### C", "word word", "* item\n* other", "```\ncode\n\ncode\n```",
                                 "| a |\n|---|\n| b |", "> quote", "[x]: y", "Setext\n---", "---"]), max_size=30),
       st.integers(20, 200))  # fmt: skip
def test_chunks_of_markdown_hold_every_word_in_order(blocks, size):
    text = "\n\n".join(blocks)
    chunks = chunks_of(text, size)
    heads = sum(chunk.text.startswith("| a |") for chunk in chunks)
    joined = "\n\n".join(chunk.text for chunk in chunks)
    assert joined.split() == text.split() or heads > text.count("| a |")
    assert chunks == chunks_of(text, size)


def test_wrong_files_are_told_all_at_once_and_the_others_read(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "latin.txt").write_bytes("one\ntwo über".encode("latin-1"))
    (tmp_path / "binary.txt").write_bytes(b"abc\0def")
    (tmp_path / "empty.md").write_text(" \n")
    names = [tmp_path / name for name in ("latin.txt", "good.txt", "binary.txt", "empty.md", "none.txt", "*.pdf")]
    problems: list[str] = []
    assert [chunk.text for chunk in read_documents(names, on_problem=problems.append)] == ["fine"]
    assert [problem.replace(f"{tmp_path}/", "") for problem in problems] == [
        "none.txt: does not exist, expected a document, a folder or a glob; correct the path",
        "*.pdf: matches no file, expected documents; correct the pattern",
        "latin.txt:2: is not UTF-8 at byte offset 8, expected text in UTF-8; save it as UTF-8",
        "binary.txt: is binary data, expected a document; leave it out, or export its text",
        "empty.md: holds no text, expected a document; leave it out",
    ]
    with pytest.raises(DataError) as error:
        read_documents(names)
    assert list(error.value.problems) == problems


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    try:
        (tmp_path / "caf\udce9.txt").write_text("text")
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system takes no such name")
    with pytest.raises(DataError, match=r"caf\\udce9.txt: the name is not UTF-8, expected one that is; rename it"):
        read_documents([tmp_path])


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(2_000_000_000)
    with pytest.raises(DataError, match=r"large.txt: has 2,000 MB, expected at most 100 MB; split it"):
        read_documents([tmp_path / "large.txt"])


def test_the_size_of_a_chunk_has_bounds(tmp_path):
    with pytest.raises(ConfigError, match="the size of a chunk is 10 characters, expected 200 to 200,000"):
        read_documents([tmp_path], chunk_characters=10)


def test_a_folder_gives_its_documents_and_says_what_is_left_out(tmp_path, monkeypatch):
    folder = tmp_path / "docs"
    for name in ("b.md", "a.txt", "deep/c.md", ".hidden.md", ".git/d.md", "picture.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "secret.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "up").symlink_to(tmp_path)
    (folder / "same.md").symlink_to(folder / "b.md")
    monkeypatch.chdir(tmp_path)
    notes: list[str] = []
    chunks = read_documents(["docs", folder / "a.txt", "docs/**/*.md"], on_note=notes.append)
    assert [chunk.source for chunk in chunks] == ["docs/a.txt", "docs/b.md", "docs/deep/c.md"]
    assert notes == [
        "docs: 1 file (link.md) linked from elsewhere, left out",
        "docs: 1 file (picture.png) of other formats, left out",
        "docs: 1 file (link.md) linked from elsewhere, left out",
    ]


def test_a_text_that_repeats_is_one_chunk(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same")
    notes: list[str] = []
    (chunk,) = read_documents([tmp_path], on_note=notes.append)
    assert chunk.source.endswith("a.txt")
    assert notes == [f"{tmp_path}/b.txt: 1 of 1 chunks repeat earlier ones, and are left out"]


def test_blocks_of_any_kind_are_cut_by_size():
    blocks = [Passage("one two three " * 30), Passage("four " * 10)]
    assert all(len(chunk.text) <= 200 for chunk in cut_document("x", blocks, 200, nothing))
