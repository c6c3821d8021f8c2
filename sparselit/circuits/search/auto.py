"""The default search: coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from sparselit.circuits.run.granularity import Granularity
from sparselit.circuits.search.base import Found, Progress, Search
from sparselit.circuits.search.group_testing import GroupTesting
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.race import race
from sparselit.circuits.search.soft_masks import SoftMasks
from sparselit.errors import check_choice

#: How long a search may look for a smaller circuit.
Effort = Literal["quick", "normal", "thorough"]


class Auto(Search):
    """Removes whole parts by group testing, then weights by soft masks, all against each other.

    Args:
        effort: ``quick``: soft masks alone, on smaller batches; ``normal``; ``thorough``: then every other search as
            well, and circuits made of theirs, for about ten times as long. The smallest certified one is the result.
        coarse: granularities that go first, one after the other; default heads.
        steps: steps of the soft masks, at least 1.
        batch: discovery examples in each of these steps, at least 1.
        seed: of their batches.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self,
        effort: Effort = "normal",
        coarse: Sequence[Granularity] | None = None,
        steps: int = 200,
        batch: int = 128,
        seed: int = 0,
    ) -> None:
        check_choice("search.effort", effort, get_args(Effort))
        self.effort: Effort = effort
        self.coarse: list[Granularity] = ["head"] if coarse is None else list(coarse)
        self.steps = steps
        self.batch = batch
        self.seed = seed
        self._masks = SoftMasks(steps, 0.05, batch, seed)
        self._quick = SoftMasks(steps, batch=max(1, batch // 2), seed=seed)

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """Each stage begins with what the one before left."""
        if self.effort == "quick":
            (self._quick if problem.granularity == "weight" else GroupTesting()).shrink(problem, found, progress)
        elif self.effort == "normal":
            self._normal(problem, found, progress)
        else:
            race(problem, found, progress, self._normal, self.seed)

    def _normal(self, problem: Problem, found: Found, progress: Progress) -> None:
        for granularity in self.coarse:
            # So few parts need no ranking that costs passes.
            GroupTesting("magnitude").shrink(problem.at(granularity), found, progress)
            problem.focus(found.kept)
        if problem.granularity == "weight":
            self._masks.shrink(problem, found, progress)
        else:
            GroupTesting().shrink(problem, found, progress)
