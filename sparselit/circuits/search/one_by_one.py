"""One by one: the exact greedy search that every faster one is measured against."""

from __future__ import annotations

from sparselit.circuits.search.base import Found, Progress, attempt, without
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranked import RankedSearch


class OneByOne(RankedSearch):
    """Tries to remove each unit alone, the least important first; as many evaluations as there are units.

    Takes the arguments of :class:`RankedSearch`.
    """

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """One evaluation for each unit of which anything is left."""
        for unit in self.ordered(problem, found.kept):
            if bool(found.kept[unit].any()):
                attempt(problem, found, without(found.kept, unit))
                progress("one by one", int(found.kept.sum()))
