"""Sparse Evolutionary Training: a random mask whose smallest weights move to new positions (Mocanu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sparselit.errors import check_moment, check_range, check_whole
from sparselit.sparsity.budget import Budget, Rule
from sparselit.sparsity.regrowth import drop_and_grow, generator, random_scores
from sparselit.sparsity.schedule import steps
from sparselit.training.method import Density, Moments

from .static_sparsity import StaticSparsity


class DynamicSparsity(StaticSparsity):
    """Drops the smallest living weights every few steps and grows as many elsewhere at random (SET).

    Mocanu et al. 2018 (arXiv 1707.04780), algorithm 2. Grown weights start at 0. A random choice depends only on the
    seed, the step and the tensor's name, so that a resumed run makes the same ones. Other growth rules override
    :meth:`scores`, other shares of exchanged weights :meth:`share`.

    Args:
        density: share of living weights in (0, 1]; a schedule is refused, because the number never changes.
        seed: seed of the first masks and of the growth.
        every_n_steps: optimizer steps between two exchanges, at least 1.
        drop: share of the living weights that each exchange drops, in [0, 1].
        until: moment after which the masks stay; a fraction of the run in [0, 1], or optimizer steps above 1.
        kwargs: arguments of :class:`StaticSparsity`, which chooses the first masks.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        *,
        seed: int = 0,
        every_n_steps: int = 100,
        drop: float = 0.3,
        until: float = 0.75,
        moments: Moments = "reset",
        **kwargs: Any,
    ) -> None:
        super().__init__(density, rules, seed=seed, moments=moments, **kwargs)
        check_whole("every_n_steps", every_n_steps, 1)
        check_range("drop", drop, 0, 1)
        check_moment("until", until)
        self.every_n_steps = every_n_steps
        self.drop = drop
        self.until = until

    @property
    def needs_length(self) -> bool:
        """Whether ``until`` or the density is a fraction of the run."""
        return 0 < self.until <= 1 or super().needs_length

    def update(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The masks of the step before, or new ones when an exchange is due."""
        if not self.is_due(step):
            return self.masks
        return {
            budget.name: drop_and_grow(
                tensors[budget.name],
                self.masks[budget.name],
                self.share(step),
                self.scores(budget, tensors[budget.name], step),
                floor=budget.floor,
                per=budget.per,
            )
            for budget in self.budgets
        }

    def is_due(self, step: int) -> bool:
        """Whether weights are exchanged after step ``step``."""
        return step % self.every_n_steps == 0 and step <= steps(self.until, self.total_steps)

    def share(self, step: int) -> float:
        """Share of the living weights that is exchanged after step ``step``, in [0, 1]."""
        return self.drop

    def scores(self, budget: Budget, weight: Tensor, step: int) -> Tensor:
        """Which dead entries grow: those with the highest of these non-negative scores, here random ones.

        Args:
            budget: the tensor's budget.
            weight: the tensor.
            step: number of applied optimizer steps.
        """
        return random_scores(weight.shape, generator(self.seed, step, budget.name), weight.device)
