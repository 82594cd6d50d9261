"""Precision and recall of every kind on planted defects: the figures are shown beside pytest's results."""

import json

import pytest

from tests.planted import NUM_ROWS, plant
from trainer.workshop.clean.clean import examine
from trainer.workshop.clean.kinds import KINDS, choose

GOAL = 0.95
PER_KIND = 25


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """By kind: the lines that hold a defect, and the lines that were found."""
    folder = tmp_path_factory.mktemp("planted")
    planted = plant(PER_KIND)
    files = {folder / "rows.jsonl": planted.rows, folder / "held_out.jsonl": planted.held_out}
    for path, rows in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source, held_out = files
    found = {faults.kind: set(faults.lines) for faults in examine(source, [held_out], choose()).faults}
    return {kind: (planted.lines[kind], found.get(kind, set())) for kind in KINDS}


def test_enough_defects_of_enough_kinds_are_planted(measured):
    assert sum(len(planted) for planted, _ in measured.values()) >= 300
    assert len([kind for kind, (planted, _) in measured.items() if len(planted) >= PER_KIND]) == len(KINDS) >= 12
    assert NUM_ROWS == 5_000


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_found_and_little_else(kind, measured, record_property):
    planted, found = measured[kind]
    recall = len(found & planted) / len(planted)
    precision = len(found & planted) / len(found) if found else 0.0
    record_property(kind, f"{len(planted)} planted, precision {precision:.3f}, recall {recall:.3f}")
    missed, wrong = sorted(planted - found), sorted(found - planted)
    assert (recall >= GOAL, precision >= GOAL) == (True, True), (missed, wrong)
