"""Runs in short: read again where their files changed, by versions, with what they cost so far."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.studio import make_run, write_results, write_status
from trainer.cli.documents.runs import summary_of
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.collection import run_below
from trainer.runs.ledger import Entry, Ledger, Thing
from trainer.runs.summary import Summaries, Summary, cost_so_far


def broken_with(error):
    def breaks(*_):
        raise error

    return breaks


def test_a_name_is_a_name_and_no_path(tmp_path):
    root = make_run(tmp_path, "place") / "runs"  # a run is above the folder, beside it, and in a hidden one
    make_run(root, "one")
    make_run(root, ".hidden")
    make_run(root / "one", "inner")
    (root / "link").symlink_to(root / "one")
    (root / "empty").mkdir()
    found = run_below("one", root)
    assert found is not None
    assert found.path == root / "one"
    names = ("", ".", "..", "../place", "one/.", "one/inner", "./one", "one/../one", ".hidden", "link", "empty", "none")
    for name in (*names, str(root / "one"), "one\0", "one\\..", "x" * 300):
        assert run_below(name, root) is None, name


def test_changes_since_a_version_are_those_of_changed_runs(tmp_path):
    for name in "abc":
        make_run(tmp_path, name, "paused")
    summaries = Summaries(tmp_path)
    runs, version = summaries.all()
    assert {run.name for run in runs} == {"a", "b", "c"}
    assert (summaries.since(version).changed, summaries.since(version).version) == ({}, version)

    write_results(tmp_path / "b", [{"step": 1, "valid_loss": 1.5}])
    make_run(tmp_path, "d")
    Run(tmp_path / "c").delete()
    changes = summaries.since(version)
    assert sorted(changes.changed) == ["b", "d"]
    assert sorted(changes.names) == ["a", "b", "d"]
    assert changes.changed["b"].best_valid_loss == 1.5
    assert summaries.since(changes.version).changed == {}
    for unknown in ("", "x", "0-99", f"{version}x", f"{version}\N{SUPERSCRIPT TWO}", version + "9" * 5000):
        assert sorted(summaries.since(unknown).changed) == ["a", "b", "d"]


def test_the_best_loss_is_of_all_rows_and_forgotten_where_a_resumed_run_begins_anew(tmp_path):
    folder = make_run(tmp_path, "a", "paused")
    summaries = Summaries(tmp_path)
    for rows, best in (([3.0, 1.0, 2.0], 1.0), ([3.0, 1.0, 2.0, 0.5], 0.5), ([3.0, 2.5], 2.5), ([], None)):
        write_results(folder, [{"step": step, "valid_loss": loss} for step, loss in enumerate(rows, 1)])
        assert summaries.all()[0][0].best_valid_loss == best


def test_a_process_that_died_is_seen_without_a_change_of_any_file(tmp_path, monkeypatch):
    make_run(tmp_path, "a", "running")
    summaries = Summaries(tmp_path)
    version = summaries.all()[1]
    assert summaries.since(version).changed == {}
    monkeypatch.setattr("trainer.runs.run.is_alive", lambda owner: False)
    assert summaries.since(version).changed["a"].state == "paused"


def test_a_run_that_cannot_be_read_is_listed_with_the_reason(tmp_path):
    make_run(tmp_path, "a")
    (tmp_path / "a" / "status.json").unlink()
    (tmp_path / "a" / "status.json").mkdir()
    problem = Summary.of(Run(tmp_path / "a")).problem
    assert problem is not None
    assert "IsADirectoryError: " in problem


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError(), "ValueError"),
        (AttributeError("'str' object has no attribute 'get'"), "AttributeError: 'str' object has no attribute 'get'"),
        (ConfigError("a: is b, expected c; d"), "a: is b, expected c; d"),
    ],
)
def test_why_a_run_cannot_be_read_keeps_the_type_of_the_error(error, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "status", broken_with(error))
    run = Run(make_run(tmp_path, "a"))
    assert Summary.of(run).problem == summary_of(run).problem == problem


def test_a_mistake_of_ours_is_no_damage_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "status", broken_with(AssertionError("ours")))
    run = Run(make_run(tmp_path, "a"))
    for read in (Summary.of, summary_of):
        with pytest.raises(AssertionError, match="ours"):
            read(run)


@pytest.mark.parametrize(
    ("step", "ended", "cost"), [("exists", 0.0, 4.0), ("deleted", 1.0, 2.0), ("refused", 0.0, None)]
)
def test_cost_counts_the_hours_of_what_bills_by_the_hour(step, ended, cost, tmp_path):
    begun = datetime.now(UTC) - timedelta(hours=2)
    thing = Thing("azureml", "deployment", "k", "p", "2 USD an hour")
    until = (begun + timedelta(hours=ended)).isoformat()
    entry = Entry(thing, step, begun.isoformat(), until, {"hourly": 2.0, "currency": "EUR"})
    assert entry.cost_so_far() == pytest.approx(cost or 0.0, abs=0.01)
    unpriced = replace(entry, facts={})
    assert (unpriced.cost_so_far(), unpriced.cost_so_far(4.0)) == (None, pytest.approx(2 * (cost or 0.0), abs=0.01))
    found, currency = cost_so_far(Run(make_run(tmp_path, "a")), [entry], {})
    assert found == (cost if cost is None else pytest.approx(cost, abs=0.01))
    assert currency == ("USD" if cost is None else "EUR")


@pytest.mark.parametrize(
    ("facts", "hours"),
    [
        ({"started_at": None}, 0.0),
        ({"started_at": 3.0}, 3.0),
        ({"started_at": 3.0, "ended_at": 1.0}, 2.0),
        ({"ended_at": 1.0}, 4.0),
        ({"started_at": None, "ended_at": 1.0}, 0.0),
        ({"started_at": "a word", "ended_at": ["x"]}, 5.0),
    ],
)
def test_what_starts_later_and_ends_before_it_is_gone_costs_in_between(facts, hours):
    ago = {name: hours_ago(value) if isinstance(value, float) else value for name, value in facts.items()}
    entry = Entry(Thing("azureml", "job", "k", "p", ""), "exists", hours_ago(5), hours_ago(0), {"hourly": 2.0} | ago)
    assert entry.cost_so_far() == pytest.approx(2 * hours, abs=0.01)


def hours_ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def test_what_is_made_again_after_it_was_deleted_costs_nothing_in_between(tmp_path, monkeypatch):
    thing = Thing("azureml", "deployment", "k", "p", "2 USD an hour")
    times = [hours_ago(9), hours_ago(9), hours_ago(8), hours_ago(2), hours_ago(2)]
    with monkeypatch.context() as patched:
        patched.setattr("trainer.runs.ledger.now", lambda: times.pop(0))
        for step in ("intended", "exists", "deleted", "intended", "exists"):
            Ledger(tmp_path).write(thing, step, hourly=2.0)
    (entry,) = Ledger(tmp_path).entries()
    assert entry.hours == pytest.approx(3, abs=0.01)
    Ledger(tmp_path).write(thing, "refused")
    assert cost_so_far(Run(make_run(tmp_path, "a")), Ledger(tmp_path).entries(), {})[0] == pytest.approx(2, abs=0.01)


def test_a_run_that_has_ended_and_bills_costs_more_at_each_look(tmp_path, monkeypatch):
    folder, thing = make_run(tmp_path, "a"), Thing("azureml", "deployment", "k", "p", "2 USD an hour")
    Ledger(folder).write(thing, "exists", hourly=2.0)
    summaries = Summaries(tmp_path)
    version = summaries.all()[1]
    assert summaries.since(version).changed == {}, "less than a cent"
    monkeypatch.setattr("trainer.runs.ledger.now", lambda: hours_ago(-1))
    assert summaries.since(version).changed["a"].cost == pytest.approx(2, abs=0.01)


def test_nothing_that_bills_costs_nothing_that_is_known(tmp_path):
    folder = make_run(tmp_path, "a")
    write_status(folder, state="succeeded", host="h", pid=1, updated_at="x", trained_tokens=1000)
    assert Summary.of(Run(folder)).cost is None
