"""Magnitude projection after every optimizer step: the training method of Gao et al. 2025 (arXiv 2511.13653, §2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparselit.sparsity.budget import Budget
from sparselit.sparsity.projection import select
from sparselit.sparsity.top_k import SMALL, keep_largest_
from sparselit.training.sparsifier import Sparsifier


class AnnealedSparsity(Sparsifier):
    """Keeps the largest weights of each matrix after every optimizer step, at a density that follows a schedule.

    The top-k projection of Gao et al. 2025, §2. Gradients and moments stay dense, so that a dead weight comes back
    when it grows larger than a living one.

    Examples:
        >>> from sparselit.sparsity import Schedule
        >>> sparsity = AnnealedSparsity(Schedule(to=0.1, begin=0.2, end=0.6))
        >>> (budget,) = sparsity.validate(torch.nn.Linear(10, 10), total_steps=100)
        >>> [budget.k(step, total_steps=100) for step in (0, 40, 100)]
        [100, 55, 10]
    """

    def update(self, tensors: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """The k largest entries of each tensor, floors inside k."""
        kept = self.targets(step)
        return {
            budget.name: select(tensors[budget.name].abs(), kept[budget.name], floor=budget.floor, per=budget.per)
            for budget in self.budgets
        }

    def cut(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor] | None:
        """Keep the same entries as :meth:`update`, large tensors on the CPU in a fraction of the time."""
        kept = self.targets(step)
        cut = {b.name: self._cut_one(b, tensors[b.name], kept[b.name]) for b in self.budgets}
        masks = {name: mask for name, mask in cut.items() if mask is not None}
        return masks if self.needs_masks else None

    def _cut_one(self, budget: Budget, weight: Tensor, k: int) -> Tensor | None:
        """Project one tensor; its mask where masks are needed."""
        if k == budget.numel:
            return torch.ones_like(weight, dtype=torch.bool) if self.needs_masks else None
        found = None
        if weight.device.type == "cpu" and weight.is_contiguous() and budget.numel >= SMALL and not budget.floor:
            found = keep_largest_(weight, k, self.thresholds.get(budget.name))
        if found is None:
            mask = select(weight.abs(), k, floor=budget.floor, per=budget.per)
            weight.masked_fill_(~mask, 0.0)
            return mask
        self.thresholds[budget.name] = found
        return weight != 0 if self.needs_masks else None
