"""Gradual magnitude pruning: the smallest weights die on a schedule and stay dead (Zhu & Gupta 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from sparselit.errors import SparselitError, check_whole
from sparselit.sparsity.budget import Budget, Rule
from sparselit.sparsity.projection import select
from sparselit.training.method import Density, Gradients, Moments
from sparselit.training.sparsifier import Sparsifier


class GradualPruning(Sparsifier):
    """Prunes the smallest living weights every few steps until a density is reached; a dead weight never comes back.

    Zhu & Gupta 2017 (arXiv 1710.01878), §3; their schedule is ``{to: 0.02, begin: 0.1, end: 0.6, shape: cubic}``. At
    ``every_n_steps: 1`` it differs from ``AnnealedSparsity`` in that one respect.

    Args:
        density: share of non-zero weights, a schedule that does not rise.
        every_n_steps: optimizer steps between two prunings, at least 1.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: two prunings are less than a step apart, or the density rises.
    """

    saves_masks: ClassVar[bool] = True

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        *,
        every_n_steps: int = 10,
        moments: Moments = "mask",
        grads: Gradients = "masked",
        **kwargs: Any,
    ) -> None:
        super().__init__(density, rules, moments=moments, grads=grads, **kwargs)
        check_whole("every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps

    def check(self, budgets: Sequence[Budget]) -> None:
        """Refuse densities that rise."""
        for budget in budgets:
            if budget.density.rises:
                raise SparselitError(
                    f"{type(self).__name__} never revives a weight of {budget.name}: its density must not rise"
                )

    def targets(self, step: int) -> dict[str, int]:
        """Number of living entries after ``step`` steps: what the schedule said at the last pruning."""
        last = self.total_steps > 0 and step >= self.total_steps
        return super().targets(step if last else step - step % self.every_n_steps)

    def go_on(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The largest of the living entries; more of them than the checkpoint has are refused."""
        kept = self.targets(self.step)
        for name, mask in self.masks.items():
            if kept[name] > int(mask.sum()):
                raise SparselitError(
                    f"{type(self).__name__} never revives a weight: the checkpoint has {int(mask.sum())} of {name}, "
                    f"the density is now {kept[name]} of them; keep the density, or begin a run without --ckpt_path"
                )
        return {name: self._largest(name, tensors, k) for name, k in kept.items()}

    def update(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The largest of the living entries; before the first step, of all."""
        kept = self.targets(step)
        if self.masks and kept == self.targets(step - 1):
            return self.masks
        return {budget.name: self._largest(budget.name, tensors, kept[budget.name]) for budget in self.budgets}

    def _largest(self, name: str, tensors: Mapping[str, Tensor], k: int) -> Tensor:
        budget = next(budget for budget in self.budgets if budget.name == name)
        magnitude, eligible = tensors[name].abs(), None
        if name in self.masks:
            magnitude, eligible = magnitude.masked_fill(~self.masks[name], -1.0), self.masks[name]
        return select(magnitude, k, floor=budget.floor, per=budget.per, eligible=eligible)
