"""QuickXplain: divide and conquer for one minimal set that works (Junker 2004)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.search.base import Found, Progress, attempt
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranked import RankedSearch


class QuickXplain(RankedSearch):
    """Splits the units in halves, and finds in each half what is needed beside what is needed of the other.

    Junker 2004 (AAAI, "QUICKXPLAIN"), with the important units preferred. About 2 k log2(N / k) evaluations for a
    circuit of k in N.

    Takes the arguments of :class:`RankedSearch`.
    """

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """Find what is needed of the units, the least important of which are assumed to go first."""
        units = self.ordered(problem, found.kept)[::-1]
        everything = torch.zeros_like(found.kept)
        if units:
            everything[torch.cat(units)] = True
        fixed = found.kept & ~everything  # edges that belong to no unit stay

        def needed(base: Tensor, added: bool, rest: list[Tensor]) -> Tensor:
            """The part of ``rest`` that is needed beside ``base``, which is tried first where it has grown."""
            progress("QuickXplain", int(found.kept.sum()))
            if added and problem.works(base):
                return torch.zeros_like(base)
            if len(rest) == 1:
                return _with(torch.zeros_like(base), rest)
            first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
            late = needed(_with(base, first), True, second)
            early = needed(base | late, bool(late.any()), first)
            return early | late

        if units:
            attempt(problem, found, fixed | needed(fixed, True, units))


def _with(base: Tensor, units: list[Tensor]) -> Tensor:
    larger = base.clone()
    larger[torch.cat(units)] = True
    return larger
