"""Confidence intervals for the numbers a person sees."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_RESAMPLES_AT_ONCE = 50  # bounds the memory


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


def bootstrap(values: Tensor, resamples: int = 1000, seed: int = 0) -> list[tuple[float, float]]:
    """95 % percentile intervals of means over examples, by resampling the examples (Efron 1979).

    Args:
        values: (quantity, example), at least one example; all quantities share the resampled examples.
        resamples: number of resamples.
        seed: of the draws, so that the interval can be repeated.

    Returns:
        Lower and upper end for each quantity.
    """
    n = values.shape[1]
    values = values.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    means = []
    for first in range(0, resamples, _RESAMPLES_AT_ONCE):
        rows = min(_RESAMPLES_AT_ONCE, resamples - first)
        drawn = torch.randint(n, (rows, n), generator=generator)
        drawn += n * torch.arange(rows)[:, None]
        counts = torch.bincount(drawn.flatten(), minlength=rows * n).view(rows, n)
        means.append(values @ counts.double().T / n)
    ends = torch.cat(means, 1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=1)
    return [(float(low), float(high)) for low, high in ends.T]
