"""Group testing: remove many edges at once, and split a group only when the task breaks without it."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.problem import Problem
from sparselit.circuits.ranking import integrated_gradients
from sparselit.circuits.search.base import Found, Report, Search
from sparselit.errors import SparselitError


class GroupTesting(Search):
    """Generalised binary splitting (Hwang 1972) over a ranking by integrated gradients over the mask.

    Edges are taken from the least to the most important. A group whose removal keeps the task working is gone after one
    evaluation; otherwise bisection finds the first edge in it that is necessary. Groups grow where removal succeeds and
    shrink to single edges where every edge counts.

    Args:
        steps: points of the integrated gradients, at least 1.
        examples: discovery examples used for the ranking, at least 1.

    Raises:
        SparselitError: a value is below 1; the message names it.
    """

    def __init__(self, steps: int = 10, examples: int = 256) -> None:
        for key, value in (("steps", steps), ("examples", examples)):
            if value < 1:
                raise SparselitError(f"search.{key} must be at least 1, got {value}")
        self.steps = steps
        self.examples = examples

    def rank(self, problem: Problem) -> Tensor:
        """Importance (edge,); overridden by searches that try the edges in another order."""
        return integrated_gradients(problem, self.steps, self.examples)

    def shrink(self, problem: Problem, found: Found, report: Report) -> None:
        """Remove groups of edges in place, least important first."""
        importance = self.rank(problem)
        candidates = found.kept.nonzero()[:, 0]
        queue = candidates[torch.argsort(importance[candidates], stable=True)].tolist()
        size = max(1, len(queue) // 2)
        while queue:
            size = min(size, len(queue))
            if self._remove(problem, found, queue[:size]):
                queue = queue[size:]
                size *= 2
            else:
                # The first edge that cannot go stands in queue[:size]; everything before it can go together.
                low, high = 0, size
                while high - low > 1:
                    middle = (low + high) // 2
                    if self._remove(problem, found, queue[low:middle]):
                        low = middle
                    else:
                        high = middle
                queue = queue[high:]
                size = max(1, low)
            report("group testing", int(found.kept.sum()))

    @staticmethod
    def _remove(problem: Problem, found: Found, group: list[int]) -> bool:
        """Remove ``group`` if the task works without it; one evaluation."""
        trial = found.kept.clone()
        trial[group] = False
        if not problem.works(trial):
            return False
        found.kept = trial
        problem.focus(trial)
        return True
