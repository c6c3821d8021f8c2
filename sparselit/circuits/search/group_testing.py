"""Group testing: remove many units at once, and split a group only when the task breaks without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.problem import Problem
from sparselit.circuits.ranking import Ranking, check_ranking, rank
from sparselit.circuits.search.base import Found, Report, Search, attempt, without


class GroupTesting(Search):
    """Generalised binary splitting (Hwang 1972) over a ranking.

    Units are taken from the least to the most important. A group whose removal keeps the task working is gone after one
    evaluation; otherwise bisection finds the first unit in it that is necessary. Groups grow where removal succeeds and
    shrink to single units where every one counts.

    Args:
        steps: points of the integrated rankings, at least 1.
        examples: discovery examples used for the ranking, at least 1.
        ranking: order in which edges are tried.
        seed: of the random ranking.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self, steps: int = 10, examples: int = 256, ranking: Ranking = "integrated_mask", seed: int = 0
    ) -> None:
        check_ranking(ranking, steps, examples)
        self.steps = steps
        self.examples = examples
        self.ranking: Any = ranking
        self.seed = seed

    def rank(self, problem: Problem) -> Tensor:
        """Importance (edge,); overridden by searches that try the edges in another order."""
        return rank(problem, self.ranking, self.steps, self.examples, self.seed)

    def shrink(self, problem: Problem, found: Found, report: Report) -> None:
        """Remove groups of units in place, least important first."""
        queue = ordered_units(problem, found.kept, self.rank(problem))
        size = max(1, len(queue) // 2)
        while queue:
            size = min(size, len(queue))
            if attempt(problem, found, without(found.kept, torch.cat(queue[:size]))):
                queue = _left(queue[size:], found)
                size *= 2
            else:
                # The first unit that cannot go stands in queue[:size]; everything before it can go together.
                low, high = 0, size
                while high - low > 1:
                    middle = (low + high) // 2
                    if attempt(problem, found, without(found.kept, torch.cat(queue[low:middle]))):
                        low = middle
                    else:
                        high = middle
                queue = _left(queue[high:], found)
                size = max(1, low)
            report("group testing", int(found.kept.sum()))


def ordered_units(problem: Problem, kept: Tensor, importance: Tensor) -> list[Tensor]:
    """The edges (index,) of each unit of ``kept``, least important first; a unit counts as much as its edges together.

    Args:
        problem: its granularity says what a unit is.
        kept: boolean (edge,).
        importance: (edge,), at least 0.
    """
    units = list(problem.units(kept).values())
    weights = torch.stack([importance[unit].sum() for unit in units]) if units else torch.zeros(0)
    return [units[i] for i in torch.argsort(weights, stable=True).tolist()]


def _left(queue: list[Tensor], found: Found) -> list[Tensor]:
    """The units of the queue of which anything is left."""
    return [unit for unit in queue if bool(found.kept[unit].any())]
