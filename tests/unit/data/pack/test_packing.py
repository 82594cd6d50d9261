"""Packs are the step's conversations as tries: nothing lost, nothing doubled that no cut forces."""

import time
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.pack.packing import PACK_COST, Pack, Sharing, make_packs
from trainer.data.render.rendering import IGNORE_INDEX, Example


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    """Rows over few tokens, so that they share beginnings, contain each other and repeat."""
    rows = []
    beginnings: list[tuple[int, ...]] = [()]
    for _ in range(draw(st.integers(1, 7))):
        start = draw(st.sampled_from(beginnings))
        ids = start + tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=9)))
        beginnings += [ids, ids[: len(ids) // 2]]
        trained = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        rows.append(Example(ids, tuple(i if t else IGNORE_INDEX for i, t in zip(ids, trained, strict=True))))
    return rows


def supervised(rows: Sequence[Example]) -> Counter[tuple[tuple[int, ...], int]]:
    """How often each token is to be predicted after each history."""
    return Counter(
        (row.input_ids[:t], label) for row in rows for t, label in enumerate(row.labels) if t and label != IGNORE_INDEX
    )


def seen(pack: Pack, query: int) -> tuple[int, ...]:
    """The tokens that a position of the pack sees, by the rule."""
    keys = torch.arange(len(pack.input_ids))
    return tuple(pack.input_ids[(keys <= query) & (query < pack.subtree_end)].tolist())


def found(packs: Sequence[Pack]) -> Counter[tuple[tuple[int, ...], int]]:
    counts: Counter[tuple[tuple[int, ...], int]] = Counter()
    for pack in packs:
        for position, target, weight in zip(
            pack.position.tolist(), pack.target.tolist(), pack.weight.tolist(), strict=True
        ):
            counts[seen(pack, position), target] += weight
    return counts


def num_tokens(packs: Sequence[Pack]) -> int:
    return sum(len(pack.input_ids) for pack in packs)


@given(examples(), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
@pytest.mark.apart
def test_every_supervised_token_is_scored_after_its_own_history_and_as_often_as_it_occurs(
    rows: list[Example], token_budget: int
) -> None:
    packs = make_packs(rows, token_budget)
    assert found(packs) == supervised(rows)
    assert sum(pack.num_supervised for pack in packs) == supervised(rows).total()


@given(examples(), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_a_position_is_the_number_of_tokens_before_it_in_its_own_conversation(
    rows: list[Example], token_budget: int
) -> None:
    for pack in make_packs(rows, token_budget):
        depths = [len(seen(pack, query)) - 1 for query in range(len(pack.input_ids))]
        assert pack.position_ids.tolist() == depths


@given(examples())
@settings(max_examples=100, deadline=None)
def test_an_uncut_step_holds_each_history_once(rows: list[Example]) -> None:
    histories = {history[:n] for history, _ in supervised(rows) for n in range(1, len(history) + 1)}
    packs = make_packs(rows, 10_000)
    assert len(packs) == bool(histories)
    assert sorted(seen(pack, q) for pack in packs for q in range(len(pack.input_ids))) == sorted(histories)


@given(examples(), st.integers(1, 40), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_packs_keep_the_budget_and_do_not_depend_on_the_order_of_rows(
    rows: list[Example], token_budget: int, random: Random
) -> None:
    packs = make_packs(rows, token_budget)
    longest = max(len(row.input_ids) for row in rows)
    assert all(len(pack.input_ids) <= max(token_budget, longest) for pack in packs)
    again = make_packs(random.sample(rows, len(rows)), token_budget)
    for one, other in zip(packs, again, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.weight, other.weight)


def all_cuts(rows: Sequence[tuple[int, ...]], token_budget: int) -> list[int]:
    """Sizes of the best packs of sorted rows, found by weighing every beginning for every end."""

    def size(begin: int, end: int) -> int:
        return len({row[:n] for row in rows[begin:end] for n in range(1, len(row) + 1)})

    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(rows) + 1):
        fitting = [begin for begin in range(end) if begin == end - 1 or size(begin, end) <= token_budget]
        sizes = {begin: size(begin, end) for begin in fitting}
        best.append(
            min((best[begin][0] + size + PACK_COST, best[begin][1] + size**2, begin) for begin, size in sizes.items())
        )
    packs, end = [], len(rows)
    while end:
        packs.append(size(best[end][2], end))
        end = best[end][2]
    return packs[::-1]


@given(examples(), st.integers(1, 60), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
@pytest.mark.apart
def test_no_other_way_to_cut_is_better(rows: list[Example], token_budget: int, times: int) -> None:
    """Resumed runs depend on the very choice: the least tokens, then the evenest packs, then the earliest cut."""
    read = [
        row.input_ids[: max(scored)]
        for row in rows
        if (scored := [t for t, y in enumerate(row.labels) if t and y >= 0])
    ]
    packs = make_packs(rows * times, token_budget)
    assert [len(pack.input_ids) for pack in packs] == all_cuts(sorted(read * times), token_budget)


@pytest.mark.parametrize("kind", ["behind one prompt", "all the same"])
@pytest.mark.apart
def test_eight_times_as_many_rows_take_no_more_than_twenty_times_as_long(kind: str) -> None:
    prompt, random = tuple(range(500)), Random(0)

    def some(count: int) -> list[Example]:
        alike = kind == "all the same"
        return [row(prompt, (1, 2) if alike else tuple(random.choices(range(1000), k=4))) for _ in range(count)]

    def seconds(rows: list[Example]) -> float:
        start = time.process_time()
        make_packs(rows, 32_768)
        return time.process_time() - start

    make_packs(some(10), 100)
    few, many = (min(seconds(some(count)) for _ in range(2)) for count in (1000, 8000))
    assert many < 20 * few


def test_cuts_fall_where_the_least_is_shared() -> None:
    """Two prompts of 8 tokens with two answers each, under a budget for one prompt at a time."""
    prompts = [(0,) * 8, (0,) + (1,) * 7]
    rows = [row(prompt, (answer, 5, 5)) for prompt in prompts for answer in (3, 4)]
    packs = make_packs(rows, 12)
    assert [len(pack.input_ids) for pack in packs] == [12, 12]
    assert num_tokens(make_packs(rows, 100)) == 23  # the prompts share a token


def test_what_comes_after_the_last_supervised_token_is_not_read() -> None:
    (pack,) = make_packs([Example((1, 2, 3, 4, 5), (-100, -100, 3, -100, -100))], 100)
    assert pack.input_ids.tolist() == [1, 2]
    assert (pack.position.tolist(), pack.target.tolist(), pack.weight.tolist()) == ([1], [3], [1])


def test_rows_on_either_side_of_the_boundary_never_meet_and_keep_their_length() -> None:
    rows = [row((7,) * n, (1, 2)) for n in (3, 4, 5, 6)]
    packs = make_packs(rows, 1000, Sharing(boundary=6))
    lengths = [int(pack.position_ids.max()) + 1 for pack in packs]
    assert lengths == [5, 8]
    assert found(packs) == supervised(rows)


def test_rows_that_cannot_share_are_padded_with_their_like_or_alone() -> None:
    rows = [row((7,) * n, (1, 2)) for n in (3, 4, 20, 21)]
    (trie, *unshared) = make_packs(rows, 1000, Sharing(longest=10))
    assert (trie.shared, len(trie.input_ids)) == (True, 6)
    assert [(pack.shared, len(pack.input_ids)) for pack in unshared] == [(False, 21 + 22)]
    alone = make_packs(rows, 1000, Sharing(alone_over=10))
    assert [len(pack.input_ids) for pack in alone] == [6, 22, 23]
    for packs in ([trie, *unshared], alone):
        assert found(packs) == supervised(rows)


def test_padded_packs_keep_the_budget_with_their_padding() -> None:
    rows = [row((7,) * n, (1, 2)) for n in range(1, 12)]
    for pack in make_packs(rows, 24, Sharing(longest=0)):
        starts = pack.position_ids == 0
        assert int(starts.sum()) * (int(pack.position_ids.max()) + 1) <= 24


def test_no_two_tokens_of_a_pack_are_the_same_history() -> None:
    rows = [row((1, 2, 3), (answer, 9)) for answer in (4, 5, 6, 4)]
    (pack,) = make_packs(rows, 100)
    histories = [seen(pack, query) for query in range(len(pack.input_ids))]
    assert all(a != b for a, b in combinations(histories, 2))
    assert pack.weight.tolist() == [2, 1, 1, 2, 1, 1]


def row(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Example:
    return Example(prompt + answer, (IGNORE_INDEX,) * len(prompt) + answer)
