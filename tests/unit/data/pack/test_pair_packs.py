"""Packs of pairs hold both answers of a pair, within the budget, or say that they do not."""

from collections import Counter
from random import Random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.pack.packing import Pack, Sharing
from trainer.data.pack.pairs import Answers, make_answer_packs, make_pair_packs, pair_size
from trainer.data.render.rendering import IGNORE_INDEX, Example

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def example(prompt: list[int], answer: list[int]) -> Example:
    return Example((*prompt, *answer), (*[IGNORE_INDEX] * len(prompt), *answer))


PAIRS = st.lists(
    st.tuples(TOKENS, TOKENS, TOKENS).map(lambda of: ((example(of[0], of[1]),), (example(of[0], of[2]),))),
    min_size=1,
    max_size=8,
)
SHARINGS = st.sampled_from(
    [Sharing(), Sharing(longest=0), Sharing(longest=6), Sharing(boundary=6), Sharing(alone_over=6)]
)


def scored(packs: list[Pack]) -> Counter[tuple[int, int]]:
    """How often each token is scored for each answer."""
    found: Counter[tuple[int, int]] = Counter()
    for pack in packs:
        assert pack.scored is not None
        assert pack.answer is not None
        found.update(zip(pack.answer.tolist(), pack.target[pack.scored].tolist(), strict=True))
        assert torch.equal(torch.bincount(pack.scored, minlength=len(pack.position)), pack.weight)
    return found


def expected(pairs: list[Answers]) -> Counter[tuple[int, int]]:
    return Counter(
        (2 * number + branch, label)
        for number, pair in enumerate(pairs)
        for branch, answer in enumerate(pair)
        for row in answer
        for label in row.labels[1:]
        if label != IGNORE_INDEX
    )


@settings(deadline=None)
@given(PAIRS, st.integers(1, 40), SHARINGS)
def test_every_token_of_every_answer_is_scored_once(pairs: list[Answers], token_budget: int, sharing: Sharing) -> None:
    packs = make_pair_packs(pairs, token_budget, sharing)
    assert scored([*packs.whole, *packs.cut]) == expected(pairs)
    assert scored(make_answer_packs(pairs, token_budget, sharing)) == expected(pairs)


@settings(deadline=None)
@given(PAIRS, st.integers(1, 40), SHARINGS)
def test_pairs_that_are_not_cut_stand_in_one_pack_within_the_budget(
    pairs: list[Answers], token_budget: int, sharing: Sharing
) -> None:
    packs = make_pair_packs(pairs, token_budget, sharing)
    places: dict[int, set[int]] = {}
    for number, pack in enumerate(packs.whole):
        assert len(pack.input_ids) <= token_budget
        for answer in pack.answer.tolist():  # type: ignore[union-attr]
            places.setdefault(answer // 2, set()).add(number)
    assert all(len(numbers) == 1 for numbers in places.values())
    cut = {answer // 2 for pack in packs.cut for answer in pack.answer.tolist()}  # type: ignore[union-attr]
    assert not cut & places.keys()
    for number in places:  # the model's frequencies depend on the length of longer rows
        lengths = [len(row.input_ids) for answer in pairs[number] for row in answer]
        assert sharing.alone_over is None or max(lengths) <= sharing.alone_over
        assert sharing.boundary is None or len({length > sharing.boundary for length in lengths}) == 1
    if sharing == Sharing():
        assert all(pair_size(pairs[number]) > token_budget for number in cut)


@settings(deadline=None)
@given(PAIRS, st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_no_pack(pairs: list[Answers], token_budget: int, random: Random) -> None:
    def layouts(rows: list[Answers]) -> list[list[int]]:
        return [pack.input_ids.tolist() for pack in make_pair_packs(rows, token_budget).whole]

    assert layouts(random.sample(pairs, len(pairs))) == layouts(pairs)


def test_the_prompt_of_a_pair_and_what_pairs_share_are_computed_once() -> None:
    pairs = [((example([1] * 50, [2, 3, 4]),), (example([1] * 50, [5, 6, number]),)) for number in (7, 8)]
    (pack,) = make_pair_packs(pairs, 1000).whole
    assert len(pack.input_ids) == pair_size(pairs[0]) == 50 + 2 + 2  # both pairs: the last token is only predicted
