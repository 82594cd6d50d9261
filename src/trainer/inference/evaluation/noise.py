"""What a wrong answer scores: texts on one subject in one tone share letters whatever they say.

The references of other rows are such answers. What comes no closer to its reference than the closest of them says
nothing about whether it is right.
"""

from collections.abc import Sequence

from trainer.inference.evaluation.measures import chrf
from trainer.inference.evaluation.rightness import folded

OTHERS = 10  # references that each one is held against: each costs 10 ms for answers of 2,000 characters


def noise_levels(references: Sequence[str | None]) -> list[float]:
    """For each reference the highest chrF that another one has against it; 0 where there is no other.

    None stands for tool calls, which are right, half right or wrong without any noise.
    """
    first: dict[str, str] = {}  # of those that differ in nothing but what makes no answer wrong
    for reference in references:
        if reference is not None:
            first.setdefault(folded(reference), reference)
    place = {text: number for number, text in enumerate(first)}
    different = list(first.values())
    return [
        0.0
        if reference is None
        else max((chrf(other, reference) for other in _others(different, place[folded(reference)])), default=0.0)
        for reference in references
    ]


def _others(different: Sequence[str], number: int) -> list[str]:
    """Those that follow, beginning anew after the last."""
    count = min(OTHERS, len(different) - 1)
    return [different[(number + 1 + step) % len(different)] for step in range(count)]
