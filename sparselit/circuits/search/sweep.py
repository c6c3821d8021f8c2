"""A sweep from the logits down, as in ACDC, with the bound on the total that ACDC lacks."""

from __future__ import annotations

from sparselit.circuits.criterion import holds, margin
from sparselit.circuits.search.base import Found, Progress, Search, without
from sparselit.circuits.search.problem import Problem
from sparselit.errors import check_range


class Sweep(Search):
    """Removes a unit where that costs little of the criterion's margin, in reverse order of the forward pass.

    Conmy et al. 2023 (arXiv 2304.14997, algorithm 1) bound what each removal costs and not their sum, so that the
    result may leave the tolerance by far. Here a removal must meet both bounds. One evaluation for each unit, whole.

    Args:
        threshold: largest loss of margin by one removal, as a share of the full model's margin, in (0, 1].

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        check_range("search.threshold", threshold, 0, 1, above=True)
        self.threshold = threshold

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """One pass from the last matrix to the first."""
        left = margin(problem.criterion, problem.values(found.kept))
        allowed = self.threshold * left
        for unit in reversed(list(problem.removal_units(found.kept).values())):
            if not bool(found.kept[unit].any()):
                continue
            trial = problem.useful(without(found.kept, unit))
            values = problem.values(trial)
            now = margin(problem.criterion, values)
            if holds(problem.criterion, values) and left - now <= allowed:
                found.kept, left = trial, now
                problem.focus(trial)
            progress("sweep", int(found.kept.sum()))
