"""The interval that a measured share leaves for the true one."""

from math import sqrt
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """Wilson's interval of a share; 0 to 1 without a try."""
    return wilson_of_share(hits / tries, tries) if tries else (0.0, 1.0)


def wilson_of_share(share: float, tries: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many independent tries: above 0, and not always a whole number."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    spread = z * z / tries
    half = z / (1 + spread) * sqrt((share * (1 - share) + spread / 4) / tries)
    middle = (share + spread / 2) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
