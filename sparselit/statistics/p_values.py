"""The statistics behind the tests of a circuit: p-values for paired differences, ranks, and many tests at once.

Every function takes numbers or tensors and is independent of circuits. P-values are one-sided; small ones speak
against the null hypothesis that the function names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from torch import Tensor

_NORMAL = NormalDist()


def p_mean_below(differences: Tensor, bound: float, effect: float = 0.0) -> float:
    """P-value of "the mean is at least ``bound``", small where the mean is clearly below.

    The statistic of Student's t, with the skewness removed by the cubic transformation of Hall 1992 (J. R. Statist.
    Soc. B 54, "On the removal of skewness by transformation"): T = S + g S²/3 + g² S³/27 + g/(6n) with
    S = (mean - bound)/sd and g the sample's skewness; sqrt(n) T is taken as normal. Losses are skewed to the right,
    where the plain t-test says "below" too often.

    A sample says nothing of rare examples that it does not hold. If a share q of them lay d above the mean, q d would
    bring the mean to the bound, and n examples would hold none with probability (1 - q)^n: the p-value is never below
    that, with the d of the sample's largest difference, or ``effect`` where that is larger. It matters only where few
    of few examples differ at all; differences that are all the same and below the bound have nothing else.

    Args:
        differences: (example,) independent draws, at least two.
        bound: what the mean is compared with.
        effect: how much a rare example may differ at least, in the unit of the differences; 0 for nothing assumed.
    """
    x = differences.double() - bound
    n, mean, sd = len(x), float(x.mean()), float(x.std(correction=1))
    reach = max(effect, float(x.max()) - mean)
    unseen = (1 - min(1.0, -mean / reach)) ** n if mean < 0 < reach else 0.0
    if sd <= 1e-12 * max(1.0, abs(mean), abs(bound)):
        return unseen if mean < 0 else 1.0
    g = float(((x - x.mean()) ** 3).mean()) / sd**3
    s = mean / sd
    return max(unseen, _NORMAL.cdf(math.sqrt(n) * (s + g * s**2 / 3 + g**2 * s**3 / 27 + g / (6 * n))))


def p_share_below(differences: Tensor, bound: float) -> float:
    """As :func:`p_mean_below` for two paired shares: differences are -1, 0 or 1, ``bound`` lies in (-1, 1).

    The score test of Tango 1998 (Statistics in Medicine 17, "Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design"). Its variance is that under the null hypothesis, so that
    pairs without any difference do not count as exactly known.

    Args:
        differences: of each pair (pair,): -1, 0 or 1.
        bound: in (-1, 1).

    Returns:
        P-value of the null hypothesis that the mean difference is at least ``bound``.
    """
    n = len(differences)
    plus, minus = int((differences > 0).sum()), int((differences < 0).sum())
    a = 2 * n
    b = -plus - minus + (2 * n - plus + minus) * bound
    c = -minus * bound * (1 - bound)
    restricted = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # share of -1 under the null hypothesis
    variance = n * (2 * restricted + bound * (1 - bound))
    distance = plus - minus - n * bound
    if variance <= 0:
        return 1.0 if distance >= 0 else 0.0
    return _NORMAL.cdf(distance / math.sqrt(variance))


def p_rank(value: float, others: Sequence[float]) -> float:
    """P-value of "``value`` is a draw like ``others``", small where it is smaller than nearly all of them.

    (1 + number of others at most as large) / (1 + number of others): exact for any distribution, ties count against
    (Phipson & Smyth 2010, "Permutation p-values should never be zero", §2).

    Args:
        value: the value observed.
        others: draws under the null hypothesis.

    Returns:
        In (0, 1].
    """
    return (1 + sum(other <= value for other in others)) / (1 + len(others))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those at most alpha errs with any of them with probability at most alpha.

    Holm 1979 ("A simple sequentially rejective multiple test procedure", §3), whatever the dependence of the tests. The
    k-th smallest of m is multiplied by m - k + 1 and never lies below the ones before it.
    """
    m, running = len(p_values), 0.0
    adjusted = [1.0] * m
    for k, i in enumerate(sorted(range(m), key=lambda j: p_values[j])):
        running = max(running, min(1.0, (m - k) * p_values[i]))
        adjusted[i] = running
    return adjusted
