"""Rows of a file, a page at a time, found by their line and by their words; and the files that may be looked at."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import data_file, manifest
from tests.studio import make_run
from trainer.dashboard.datasets.files import DataSet, DataSets, id_of
from trainer.dashboard.datasets.rows import PAGE_ROWS, RowReader, page_of
from trainer.data.read.row_view import Said
from trainer.errors import ConfigError
from trainer.inference.report.histograms import histogram_of
from trainer.runs import Run


def data_set(path: Path, lines: list[str]) -> DataSet:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return DataSet(id_of(path), path, path.stat().st_size)


def line_of(question: str, **more: Any) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes.", **more}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def test_any_page_of_a_long_file_is_read_alone(tmp_path: Path) -> None:
    file, reader = data_set(tmp_path / "rows.jsonl", [line_of(f"Number {n}?") for n in range(20_000)]), RowReader()
    page = page_of(reader, file, 777, None)
    assert (page.num_found, page.num_pages, len(page.rows)) == (20_000, 1_000, PAGE_ROWS)
    assert [row.line for row in page.rows] == list(range(776 * PAGE_ROWS + 1, 777 * PAGE_ROWS + 1))
    assert page.rows[0].said[0] == Said("user", f"Number {776 * PAGE_ROWS}?")
    assert page_of(reader, file, 10**9, None).number == 1_000
    assert page_of(reader, file, -3, None).rows[0].line == 1
    found = reader.row_at(file, 20_000)
    assert found is not None
    assert found.said[0].text == "Number 19999?"
    assert reader.row_at(file, 20_001) is None


def test_blank_lines_are_no_rows_and_keep_their_numbers(tmp_path: Path) -> None:
    file, reader = data_set(tmp_path / "rows.jsonl", ["", line_of("a"), " ", "no JSON", line_of("b")]), RowReader()
    assert [(row.line, bool(row.said)) for row in page_of(reader, file, 1, None).rows] == [
        (2, True),
        (4, False),
        (5, True),
    ]
    assert reader.row_at(file, 3) is None
    assert reader.indices(file, [5, 3, 2]) == [2, 0]


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    file, reader = data_set(tmp_path / "rows.jsonl", [line_of("a")]), RowReader()
    assert len(reader.lines(file)) == 1
    data_set(tmp_path / "rows.jsonl", [line_of("a"), line_of("b")])
    assert len(reader.lines(file)) == 2


def test_words_are_found_in_any_case_and_however_json_writes_them(tmp_path: Path) -> None:
    lines = [
        line_of("Grüße"),
        json.dumps({"messages": [{"role": "user", "content": "GRÜSSE und grüße"}]}),
        line_of("other"),
    ]
    file, reader = data_set(tmp_path / "rows.jsonl", lines), RowReader()
    assert reader.search(file, "grüße") == [0, 1]
    assert reader.search(file, "GRÜßE") == [0, 1]
    assert reader.search(file, 'a "quote"') == []
    file = data_set(tmp_path / "rows.jsonl", [line_of('a "quote" it is')])
    assert reader.search(file, '"QUOTE"') == [0]


def test_only_files_of_runs_and_given_folders_are_found(tmp_path: Path) -> None:
    root, folder = tmp_path / "runs", tmp_path / "data"
    folder.mkdir()
    used, listed, other = (data_set(path, [line_of("a")]) for path in (
        tmp_path / "used.jsonl", folder / "listed.jsonl", tmp_path / "other.jsonl",
    ))  # fmt: skip
    Run(make_run(root, "one")).write_manifest(manifest(data=(data_file(str(used.path)),)))
    (folder / "link.jsonl").symlink_to(other.path)
    (folder / "secret.txt").write_text("x")
    sets = DataSets(root, (folder,))
    assert [(file.name, [use.run for use in file.uses]) for file in sets.all()] == [
        ("used.jsonl", ["one"]),
        ("listed.jsonl", []),
    ]
    assert sets.find(listed.id).path == listed.path.resolve()
    with pytest.raises(ConfigError, match="there is no such data file any more"):
        sets.find(other.id)


def test_a_histogram_is_drawn_within_its_frame() -> None:
    bins = [{"first": 10 * n, "last": 10 * n + 9, "rows": rows} for n, rows in enumerate((1, 0, 4000))]
    chart = histogram_of("Tokens a row", {"histogram": [*bins, {"first": 30, "last": None, "rows": 2}], "min": 0})
    assert [bar.label for bar in chart.bars] == ["0 to 9", "10 to 19", "20 to 29", "30 or more"]
    assert [bar.height > 0 for bar in chart.bars] == [True, False, True, True]
    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.x + bar.width <= chart.width
        assert bar.y > 10
        assert bar.y + bar.height == pytest.approx(chart.base)
