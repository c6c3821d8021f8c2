"""How one budget is divided over several tensors: Erdős–Rényi shares, in whole entries that sum exactly to it.

``er``: Mocanu et al. 2018 (arXiv 1707.04780, §"Topology"): the density of a matrix is proportional to
(rows + columns) / (rows · columns), so that small matrices stay denser. ``erk``: Evci et al. 2020 (arXiv 1911.11134,
§3(1)) counts the dimensions of a convolution's kernel too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

#: ``uniform`` gives every tensor the same density.
Distribution = Literal["uniform", "er", "erk"]


@dataclass(frozen=True)
class Shares:
    """The tensors that share a budget.

    Args:
        kind: ``er`` or ``erk``.
        shapes: shapes of the tensors; of a vector, every entry counts as a row of its own.
    """

    kind: Literal["er", "erk"]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def numel(self) -> int:
        """Number of entries of all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes)

    def counts(self, k: int) -> tuple[int, ...]:
        """Entries that each tensor keeps.

        Args:
            k: entries of all tensors together, in [0, numel].

        Returns:
            Numbers whose sum is ``k``; more where ``k`` is smaller than the number of tensors, for each keeps one.
        """
        return _divide(k, tuple(_weight(self.kind, shape) for shape in self.shapes), self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)


def _weight(kind: str, shape: Sequence[int]) -> float:
    """Entries of a tensor at scale 1: its size times its Erdős–Rényi density."""
    dims = tuple(shape[:2]) if kind == "er" else tuple(shape)
    return math.prod(shape) * sum(dims) / math.prod(dims)


@lru_cache(maxsize=4096)
def _divide(k: int, weights: tuple[float, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Whole numbers near ``scale * weight``, at least 1, at most the sizes, that sum to ``k``.

    Webster's divisor method: with a growing ``k`` no tensor ever loses an entry.
    """

    def at(scale: float) -> list[int]:
        return [min(n, max(1, math.floor(scale * w + 0.5))) for w, n in zip(weights, sizes, strict=True)]

    low, high = 0.0, max((n + 1) / w for w, n in zip(weights, sizes, strict=True))
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) <= k else (low, middle)
    counts = at(low * (1 - 1e-9))  # what lies closer to the limit is added in an order that no rounding disturbs
    while sum(counts) < min(k, sum(sizes)):
        open_ = [i for i, n in enumerate(sizes) if counts[i] < n]
        counts[min(open_, key=lambda i: ((counts[i] + 0.5) / weights[i], i))] += 1
    return tuple(counts)
