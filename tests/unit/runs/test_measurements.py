"""A thinned curve keeps its extremes and its edges; measurements are what their file holds."""

import json
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.runs.measurements import Column, Measurements, OpenMeasurements
from trainer.runs.results import COLUMNS, as_line

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400)


def column_of(values: list[float], gap: int = 1) -> Column:
    column = Column()
    for number, value in enumerate(values):
        column.add(number * gap, value)
    return column


@given(values=VALUES, num_buckets=st.integers(1, 40), gap=st.integers(1, 1000))
def test_thinning_keeps_extremes_and_edges_and_invents_nothing(values, num_buckets, gap) -> None:
    steps, kept = column_of(values, gap).thinned(num_buckets)
    assert set(zip(steps, kept, strict=True)) <= {(number * gap, value) for number, value in enumerate(values)}
    assert steps == sorted(set(steps))
    assert (min(kept), max(kept)) == (min(values), max(values))
    assert (steps[0], steps[-1]) == (0, (len(values) - 1) * gap)
    assert len(steps) <= 4 * num_buckets
    if len(values) <= 4 * num_buckets:
        assert kept == values


@given(values=VALUES, num_buckets=st.integers(1, 20))
def test_each_bucket_keeps_its_own_extremes(values, num_buckets) -> None:
    steps, kept = column_of(values).thinned(num_buckets)
    width = (len(values) - 1) / num_buckets
    for number in range(num_buckets - 1):
        low, high = width * number, width * (number + 1)
        inside = [value for place, value in enumerate(values) if low <= place < high]
        shown = [value for step, value in zip(steps, kept, strict=True) if low <= step < high]
        if inside:
            assert (min(shown), max(shown)) == (min(inside), max(inside))


def test_a_spike_of_one_step_in_a_hundred_thousand_stays() -> None:
    values = [1.0] * 100_000
    values[77_777] = 9.0
    steps, kept = column_of(values).thinned(500)
    assert steps[kept.index(9.0)] == 77_777
    assert len(steps) <= 2000


@given(values=VALUES, low=st.integers(0, 399), width=st.integers(0, 399))
def test_a_range_has_its_points_and_one_beside_each_edge(values, low, width) -> None:
    steps, _ = column_of(values).thinned(1000, low, low + width)
    before, after = range(len(values))[:low][-1:], range(len(values))[low + width + 1 :][:1]
    assert steps == [*before, *range(len(values))[low : low + width + 1], *after]


def test_steps_that_come_late_or_twice_are_put_in_order() -> None:
    column = Column()
    for step, value in ((1, 10.0), (3, 30.0), (2, 20.0), (3, 31.0), (4, 40.0)):
        column.add(step, value)
    assert column.thinned(10) == ([1, 2, 3, 4], [10, 20, 31, 40])


def write(path: Path, rows: list[dict[str, float]]) -> None:
    path.write_text(",".join(COLUMNS) + "\n" + "".join(map(as_line, rows)))


def test_measurements_follow_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    found = OpenMeasurements().of(path)
    assert found.view(10).columns == {}
    rows = [{"step": step, "train_loss": 1 / step} for step in range(1, 6)]
    write(path, rows)
    assert found.view(10).columns["train_loss"] == ([1, 2, 3, 4, 5], pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]))
    with path.open("a") as file:
        file.write(as_line({"step": 6, "train_loss": 0.5, "valid_loss": 0.7}) + "7,0.1")
    assert found.points("train_loss")[0][-1] == 6
    assert found.points("valid_loss") == ([6], [0.7])
    write(path, rows[:3])
    assert found.view(10).num_rows == 3
    assert found.points("valid_loss") == ([], [])
    path.unlink()
    assert found.view(10).num_rows == 0


def test_other_measurements_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = ['{"step": 1, "learning_rate": 0.5, "is_on": true, "id": "x"}', "damaged", '{"learning_rate": 3}']
    path.write_text("\n".join(rows) + '\n{"step": 2, "learning_rate": NaN, "grad_norm": 2}\n')
    assert Measurements(path).view(5).columns == {"learning_rate": ([1], [0.5]), "grad_norm": ([2], [2])}


def test_threads_that_share_measurements_see_each_row_once(tmp_path: Path) -> None:
    path, shared = tmp_path / "metrics.jsonl", OpenMeasurements()
    text = "".join(json.dumps({"step": step, "grad_norm": random.random()}) + "\n" for step in range(5000))
    path.write_text(text)
    threads = [threading.Thread(target=lambda: shared.of(path).view(10)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.of(path).view(10).num_rows == 5000


def test_only_the_files_that_were_asked_for_last_stay(tmp_path: Path) -> None:
    shared = OpenMeasurements(kept=2)
    first = shared.of(tmp_path / "a" / "results.csv")
    shared.of(tmp_path / "b" / "results.csv")
    assert shared.of(tmp_path / "a" / "results.csv") is first
    shared.of(tmp_path / "c" / "results.csv")
    assert len(shared.by_path) == 2
    assert tmp_path / "b" / "results.csv" not in shared.by_path
