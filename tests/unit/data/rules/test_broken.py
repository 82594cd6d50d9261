"""The shipped file of mistakes: every line of it is named, with its place and its cause, and no other line."""

from pathlib import Path

import pytest

from trainer.data.read.checks import check_files

ROOT = Path(__file__).parents[4]
BROKEN = Path("data/broken.jsonl")
EXPECTED = Path(__file__).with_name("broken_findings.txt")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_mistake_of_the_broken_file_is_told_once():
    told = [str(finding).removeprefix("data/broken.jsonl:") for finding in check_files([BROKEN]).findings]
    assert told == EXPECTED.read_text(encoding="utf-8").splitlines()


def test_correct_rows_of_the_broken_file_are_kept():
    report = check_files([BROKEN])
    lines_with_errors = {finding.line for finding in report.errors}
    assert report.rows == 69
    assert report.severities == {"error": 50, "warning": 9}
    assert len(report.conversations) == report.rows - len(lines_with_errors)
    assert not lines_with_errors & {row.line for row in report.conversations}


def test_the_broken_file_shows_nearly_every_rule_of_a_row():
    assert len(check_files([BROKEN]).counts) >= 35
