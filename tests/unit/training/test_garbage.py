"""What stays is not searched for garbage, and afterwards the search is as it was."""

import gc
from collections.abc import Iterator

import pytest

from trainer.training.garbage import all_stays
from trainer.training.prepare import be_quiet


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("was_on", [True, False])
def test_nothing_is_searched_while_it_lasts_and_what_it_made_not_later(was_on: bool) -> None:
    if not was_on:
        gc.disable()
    before = gc.get_freeze_count()
    with all_stays():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled() is was_on
    assert gc.get_freeze_count() >= before + len(made)


def test_a_model_that_was_trained_can_be_freed_before_the_comparison_loads_its_own() -> None:
    """It is held by cycles, and what is frozen is never found in them."""
    before = gc.get_freeze_count()
    be_quiet()
    assert gc.get_freeze_count() == before


def test_a_mistake_turns_the_search_on_again() -> None:
    with pytest.raises(ValueError, match="a mistake"), all_stays():
        raise ValueError("a mistake")
    assert gc.isenabled()
