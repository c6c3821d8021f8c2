"""Attribution: the shortest prefix of a ranking that works."""

from __future__ import annotations

import torch

from sparselit.circuits.search.base import Found, Progress, attempt
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranked import RankedSearch


class Attribution(RankedSearch):
    """Ranks the units once and cuts the ranking where the criterion holds, by bisection.

    The rankings ``magnitude`` and ``random`` are the baselines of the others. The certificate then removes what the
    ranking kept in vain.

    Takes the arguments of :class:`RankedSearch`.
    """

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """Bisect between no unit, and all of them, with which the criterion is known to hold."""
        units, whole = self.ordered(problem, found.kept), found.kept
        kept, dropped = 0, len(units)  # so many of the least important: known to be droppable, and not known
        while kept < dropped:
            middle = (kept + dropped + 1) // 2
            trial = whole.clone()
            trial[torch.cat(units[:middle])] = False
            if attempt(problem, found, trial & found.kept):
                kept = middle
            else:
                dropped = middle - 1
            progress("bisection", int(found.kept.sum()))
