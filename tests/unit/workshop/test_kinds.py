"""The table of kinds and the page made of it."""

from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.workshop.clean.findings import KEPT_FINDINGS, Fault, FaultList, Faults
from trainer.workshop.clean.kinds import KINDS, choose, markdown

PAGE = Path(__file__).parents[3] / "docs" / "clean.md"


def test_the_page_is_made_of_the_kinds():
    assert PAGE.read_text(encoding="utf-8") == markdown().rstrip("\n") + "\n"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_example_is_a_finding_of_its_kind_and_ends_with_the_fix(kind):
    assert kind.example.startswith(f"rows.jsonl:3: {kind.code}: ")
    assert kind.example.endswith(f"; {kind.fix}")


def test_kinds_are_chosen_by_their_names_in_any_spelling():
    assert choose(only=["near-duplicate,leak", "Refusal"]).wanted == {"NEAR_DUPLICATE", "LEAK", "REFUSAL"}
    assert choose(skip=["secret"]).wanted == KINDS.keys() - {"SECRET"}
    assert choose(remove=["conflict"]).removed == {"EMPTY", "LEAK", "DUPLICATE", "NEAR_DUPLICATE", "CONFLICT"}


def test_every_unknown_kind_is_named_at_once():
    with pytest.raises(ConfigError) as raised:
        choose(only=["duplicates"], skip=["nonsense"])
    assert [problem.partition(",")[0] for problem in raised.value.problems] == [
        "--only: 'duplicates' is no kind of fault", "--skip: 'nonsense' is no kind of fault",
    ]  # fmt: skip
    assert "did you mean DUPLICATE?" in raised.value.problems[0].replace("'", "")


def test_faults_are_kept_in_the_order_of_the_file_and_only_the_first_in_full():
    found = FaultList("LABEL", "edit", limit=3)
    for line in (5, 9, 9, 2, 7, 1):
        found.add(Fault("rows.jsonl", line, "LABEL", "x", "y", "z"))
    assert (list(found.lines), found.num_faults) == ([1, 2, 5, 7, 9], 6)
    assert [fault.line for fault in found.faults] == [1, 2, 5]


def test_kinds_that_are_not_looked_for_are_not_noted():
    faults = Faults("rows.jsonl", choose(only=["label"]), KEPT_FINDINGS)
    faults.add(1, "SECRET", "x", "y")
    faults.add(1, "LABEL", "x", "y")
    assert [found.kind for found in faults] == ["LABEL"]
    assert list(faults.lines("SECRET")) == []
