"""What the searches share that try units in the order of a ranking."""

from __future__ import annotations

from torch import Tensor

from sparselit.circuits.search.base import Search
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranking import Ranking, check_ranking, rank
from sparselit.errors import check_seed


class RankedSearch(Search):
    """A search over a ranking; the ranking says in which order, the search decides.

    Args:
        ranking: ``integrated_mask`` (from all edges closed to all open), ``integrated_inputs`` (from the corrupted
            prompt to the prompt), ``gradient`` (attribution patching), ``magnitude`` or ``random``.
        steps: points of the integrated rankings, at least 1.
        examples: discovery examples used for the ranking, at least 1.
        seed: of the random ranking.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self, ranking: Ranking = "integrated_mask", steps: int = 10, examples: int = 256, seed: int = 0
    ) -> None:
        check_ranking(ranking, steps, examples)
        check_seed("search.seed", seed)
        self.ranking: Ranking = ranking
        self.steps = steps
        self.examples = examples
        self.seed = seed

    def rank(self, problem: Problem) -> Tensor:
        """Importance (edge,); overridden by searches that try the edges in another order."""
        return rank(problem, self.ranking, self.steps, self.examples, self.seed)

    def ordered(self, problem: Problem, kept: Tensor) -> list[Tensor]:
        """The edges (index,) of each unit of ``kept``, least important first; a unit counts as its edges together.

        Args:
            problem: its granularity says what a unit is.
            kept: boolean (edge,).
        """
        return ordered_units(problem, kept, self.rank(problem))


def ordered_units(problem: Problem, kept: Tensor, importance: Tensor) -> list[Tensor]:
    """The edges (index,) of each unit of ``kept``, least important first.

    Args:
        problem: its granularity says what a unit is.
        kept: boolean (edge,).
        importance: (edge,), at least 0; a unit is as important as its edges together.
    """
    units = list(problem.removal_units(kept).values())
    weights = [float(importance[unit].sum()) for unit in units]
    return [units[i] for i in sorted(range(len(units)), key=weights.__getitem__)]
