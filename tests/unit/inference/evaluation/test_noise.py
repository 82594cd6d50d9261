"""What wrong answers score against a reference."""

import time

from trainer.inference.evaluation.measures import OTHERS, chrf, noise_levels

HUB = "Spokes radiate from the hub, the central part of the wheel around the axle."
RIM = "The rim is the outer hoop of a wheel that holds the tyre."
KEY = "With a spoke key, mechanics turn the nipples to tighten or loosen spokes."


def test_the_closest_other_reference_is_the_level() -> None:
    found = noise_levels([HUB, RIM, KEY])
    assert found[0] == max(chrf(RIM, HUB), chrf(KEY, HUB))
    assert 10 < found[0] < 40


def test_the_same_reference_in_another_row_is_no_wrong_answer() -> None:
    assert noise_levels([HUB, HUB.lower(), RIM])[:2] == [chrf(RIM, HUB), chrf(RIM, HUB.lower())]
    assert noise_levels([HUB, HUB]) == [0.0, 0.0]
    assert noise_levels([]) == []


def test_calls_have_no_noise_and_are_none() -> None:
    assert noise_levels([HUB, None, RIM]) == [chrf(RIM, HUB), 0.0, chrf(HUB, RIM)]


def test_it_stays_linear_in_the_rows() -> None:
    texts = [f"Part {number} holds part {number + 1} of the machine." for number in range(400)]
    begin = time.process_time()
    noise_levels(texts[:100])
    few = time.process_time() - begin
    noise_levels(texts)
    assert time.process_time() - begin - few < 12 * few
    assert OTHERS == 10
