"""Two costs at once: which settings no other one beats, and how much is beaten, with resampled runs.

A setting has some runs, of different seeds. Both costs are better when smaller; sizes are compared by their logarithm.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

#: One run: two costs, such as loss in nats and edges of the circuit.
Run = tuple[float, float]
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % percentile interval (Efron 1979) over resampled runs."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def centre(runs: Sequence[Run]) -> Run:
    """Mean of the first cost and geometric mean of the second, over a setting's runs."""
    return fmean(run[0] for run in runs), math.exp(fmean(math.log(run[1]) for run in runs))


def front(points: Mapping[str, Run]) -> list[str]:
    """The names of the points that no other point beats in one cost without losing in the other, by the second cost."""
    best, names = math.inf, list[str]()
    for name, (first, _) in sorted(points.items(), key=lambda item: (item[1][1], item[1][0])):
        if first < best:
            best = first
            names.append(name)
    return names


def hypervolume(points: Sequence[Run], corner: Run) -> float:
    """The area of the costs that some point beats, up to a corner; the second cost in powers of ten.

    Args:
        points: any number.
        corner: the worst costs that count.

    Returns:
        Area, in units of the first cost times powers of ten of the second.
    """
    area, reached = 0.0, corner[0]
    for first, second in sorted(points, key=lambda point: (point[1], point[0])):
        if first < reached and second < corner[1]:
            area += (reached - first) * math.log10(corner[1] / second)
            reached = first
    return area


def resampled(settings: Mapping[str, Sequence[Run]], seed: int = 0) -> list[dict[str, Run]]:
    """The centre of each setting, for runs drawn again with replacement.

    Args:
        settings: runs by setting, at least one each.
        seed: of the draws.
    """
    generator = random.Random(seed)
    return [
        {name: centre(generator.choices(runs, k=len(runs))) for name, runs in settings.items()}
        for _ in range(RESAMPLES)
    ]


def interval(value: float, draws: Sequence[float]) -> Interval:
    """The middle 95 % of some draws, around a value."""
    ordered = sorted(draws)
    last = len(ordered) - 1
    return Interval(value, ordered[round(0.025 * last)], ordered[round(0.975 * last)])
