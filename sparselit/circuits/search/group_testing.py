"""Group testing: remove many units at once, and split a group only when the task breaks without it."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.search.base import Found, Progress, attempt, without
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranked import RankedSearch


class GroupTesting(RankedSearch):
    """Generalised binary splitting (Hwang 1972) over a ranking.

    Units are taken from the least to the most important. A group whose removal keeps the task working is gone after one
    evaluation; otherwise bisection finds the first unit in it that is necessary. Groups grow where removal succeeds and
    shrink to single units where every one counts.

    Takes the arguments of :class:`RankedSearch`.
    """

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """Remove groups of units in place, least important first."""
        queue = self.ordered(problem, found.kept)
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
            progress("group testing", int(found.kept.sum()))


def _left(queue: list[Tensor], found: Found) -> list[Tensor]:
    """The units of the queue of which anything is left."""
    return [unit for unit in queue if bool(found.kept[unit].any())]
