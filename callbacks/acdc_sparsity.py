"""AC/DC: phases in which all weights live alternate with phases in which few do (Peste et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparselit.errors import SparselitError, check_moment, check_whole
from sparselit.sparsity.budget import Budget, Rule
from sparselit.sparsity.projection import select
from sparselit.sparsity.schedule import steps
from sparselit.training.method import Density, Gradients, Moments
from sparselit.training.sparsifier import Sparsifier


class AcdcSparsity(Sparsifier):
    """Alternates dense and sparse phases, and ends sparse.

    Peste et al. 2021 (arXiv 2106.12379), algorithm 1: dense until ``begin``; then a compressed phase, whose mask is
    the largest weights at its beginning, and a decompressed one in turn, until ``end``, after which the model stays
    compressed. Moments of weights that come back to life begin at zero.

    Args:
        density: share of living weights in the compressed phases, in (0, 1]; a schedule is refused.
        begin: moment of the first compression; a fraction of the run in [0, 1], or optimizer steps above 1.
        end: moment after which the model is compressed for good; a fraction of the run, or optimizer steps above 1.
        every_n_steps: optimizer steps of each phase, at least 1.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: a phase has no step, a moment is negative, or the density changes during the run.
    """

    saves_masks: ClassVar[bool] = True

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        *,
        begin: float = 0.1,
        end: float = 0.75,
        every_n_steps: int = 50,
        moments: Moments = "reset",
        grads: Gradients = "masked",
        **kwargs: Any,
    ) -> None:
        super().__init__(density, rules, moments=moments, grads=grads, **kwargs)
        check_whole("every_n_steps", every_n_steps, 1)
        for key, value in (("begin", begin), ("end", end)):
            check_moment(key, value)
        self.begin, self.end = begin, end
        self.every_n_steps = every_n_steps

    def check(self, budgets: Sequence[Budget]) -> None:
        """Refuse densities that change during the run."""
        for budget in budgets:
            if not budget.density.is_constant:
                raise SparselitError(
                    f"{type(self).__name__}: the compressed phases have one density, that of {budget.name} must be a "
                    "number, not a schedule"
                )

    @property
    def needs_length(self) -> bool:
        """Whether a moment or the density is a fraction of the run."""
        return any(0 < moment <= 1 for moment in (self.begin, self.end)) or super().needs_length

    def compressed_since(self, step: int) -> int | None:
        """The step at which the compressed phase around step ``step`` began, None in a dense phase."""
        begin, end = (round(steps(moment, self.total_steps)) for moment in (self.begin, self.end))
        if step < begin:
            return None
        last = max(0, end - begin) // self.every_n_steps  # number of the phase in which `end` lies
        phase = min((step - begin) // self.every_n_steps, last)
        if phase % 2 == 0:
            return begin + phase * self.every_n_steps
        return end if step >= end else None

    def targets(self, step: int) -> dict[str, int]:
        """Number of living entries: all of them in the dense phases."""
        since = self.compressed_since(step)
        return super().targets(since) if since is not None else {b.name: b.numel for b in self.budgets}

    def update(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """All entries, the mask of the phase, or the largest weights where a phase begins."""
        since = self.compressed_since(step)
        if since is None:
            return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in tensors.items()}
        if since != step and self.masks:
            return self.masks
        kept = self.targets(step)
        return {b.name: select(tensors[b.name].abs(), kept[b.name], floor=b.floor, per=b.per) for b in self.budgets}
