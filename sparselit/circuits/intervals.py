"""Confidence intervals for the numbers a person sees."""

from __future__ import annotations

import math


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927), 95 % by default.

    Args:
        successes: number of successes, in [0, n].
        n: number of trials.
        z: normal quantile of the confidence level.

    Returns:
        Lower and upper end, in [0, 1]; (0, 1) without trials.
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
