"""Magnitude projection after every optimizer step: the training method of Gao et al. 2025 (arXiv 2511.13653, §2)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparselit.sparsifier import Sparsifier
from sparselit.sparsity.projection import select


class AnnealedSparsity(Sparsifier):
    """Keeps the largest weights of each matrix after every optimizer step, at a density that follows a schedule.

    The top-k projection of Gao et al. 2025, §2. Gradients and moments stay dense, so that a dead weight comes back
    when it grows larger than a living one.
    """

    def update(self, tensors: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """The k largest entries of each tensor, floors inside k."""
        kept = self.targets(step)
        return {
            budget.name: select(tensors[budget.name].abs(), kept[budget.name], floor=budget.floor, per=budget.per)
            for budget in self.budgets
        }
