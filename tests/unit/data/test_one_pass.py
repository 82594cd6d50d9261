"""Checking without keeping rows: the same findings and counts, in memory that hardly grows."""

import json
import tracemalloc

import pytest

from trainer.data.read.checks import check_files

pytestmark = pytest.mark.apart


def row(question, answer, system=None, **keys):
    turns = [("system", system)] if system else []
    turns += [("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]} | keys


def varied_rows():
    """Rows with every finding that depends on other rows, among clean ones and broken ones."""
    yield from (row(f"question {n}", f"answer {n}", "Be brief.") for n in range(120))
    yield row("question 3", "answer 3", "Be brief.")
    yield row("question 4", "answer  4", "Be brief.")
    yield row("question 5", "another", "Be brief.")
    yield row("stray", "yes", "Be breif.")
    yield row("mail", "to maria.keller@contoso-bikes.com", "Be brief.", metadata={"n": 1})
    yield row("debris", "A: yes", "Be brief.", metadata={"n": 2})
    yield {"conversations": []}
    yield {"messages": [{"role": "human", "content": "Hi"}]}
    yield 7
    yield {"instruction": "a", "output": "b"}


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path.relative_to(tmp_path)

    return write


@pytest.fixture
def files(written):
    leaked = [row("question 7", "answer 7", "Be brief."), row("new", "yes", "Be brief."), [], {}]
    return [written("b.jsonl", varied_rows()), written("a.jsonl", [{"messages": 1}])], [written("c.jsonl", leaked)]


def test_a_streamed_check_finds_what_one_that_keeps_rows_finds(files):
    kept, streamed = check_files(*files), check_files(*files, keep_rows=False)
    assert len(kept.findings) >= 14
    assert streamed.findings == kept.findings
    assert (streamed.rows, streamed.validation_rows) == (kept.rows, kept.validation_rows) == (131, 4)
    assert (streamed.counts, streamed.severities) == (kept.counts, kept.severities)
    assert (len(kept.conversations), len(streamed.conversations)) == (126, 0)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 100])
def test_a_limit_keeps_the_first_findings_and_counts_them_all(files, limit):
    whole, limited = check_files(*files), check_files(*files, max_findings=limit)
    assert limited.findings == whole.findings[:limit]
    assert limited.num_findings == len(whole.findings)
    assert sorted(limited.counts.items()) == sorted(whole.counts.items())
    assert limited.severities == whole.severities


@pytest.mark.parametrize("row", [7, {"conversations": []}, row("a", "b")], ids=["number", "foreign", "duplicate"])
def test_a_limit_holds_where_every_row_has_a_finding(written, row):
    path = written("rows.jsonl", [*[row] * 2000, {"messages": 1}, *[row] * 500])
    whole, limited = check_files([path]), check_files([path], max_findings=7)
    assert limited.findings == whole.findings[:7]
    assert limited.counts == whole.counts
    assert limited.severities == whole.severities


def peak_bytes(path):
    tracemalloc.start()
    check_files([path], keep_rows=False, max_findings=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", ["clean", "broken", "duplicate", "own prompt", "own tools"])
def test_memory_grows_by_a_few_hundred_bytes_a_row(written, kind):
    def made(n):
        tool = {"type": "function", "function": {"name": f"tool_{n}", "description": "x" * 500}}
        return {
            "clean": row(f"question {n} " + "x" * 500, "y" * 1500, "z" * 500),
            "broken": {"messages": [{"role": f"role {n}", "content": "x" * 2500}]},
            "duplicate": row("same " + "x" * 500, "y" * 2000),
            "own prompt": row(f"question {n}", "y" * 500, f"{n} " + "z" * 2000),
            "own tools": row(f"question {n}", "y" * 2000, tools=[tool]),
        }[kind]

    few, many = (written(f"{count}.jsonl", map(made, range(count))) for count in (1100, 2600))
    assert peak_bytes(many) - peak_bytes(few) < 1500 * 500
    assert many.stat().st_size - few.stat().st_size > 1500 * 2000


def test_progress_tells_the_bytes_of_all_files(written):
    paths = [written(f"{name}.jsonl", (row(f"{name} {n}", "x" * 50) for n in range(2500))) for name in "ab"]
    told: list[int] = []
    check_files(paths, progress=told.append)
    sizes = [path.stat().st_size for path in paths]
    assert told == sorted(told)
    assert len(told) == 6
    assert (told[2], told[5]) == (sizes[0], sum(sizes))
