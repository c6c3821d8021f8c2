"""SNIP: a static mask of the connections whose removal would change the loss most (Lee et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparselit.sparsity.budget import Rule
from sparselit.sparsity.projection import select
from sparselit.training.method import Density

from .static_sparsity import StaticSparsity


class SnipSparsity(StaticSparsity):
    """Keeps the weights of largest ``|weight · gradient|`` on the first batch, and trains only those.

    Lee et al. 2019 (arXiv 1810.02340), equation 6. The mask is chosen between the first backward pass and the first
    update, on the gradient of the dense model; with gradient accumulation it sees all batches of that step. The
    largest are chosen in each tensor, not over all of them, so that no layer is cut off at low densities.

    Args:
        density: share of non-zero weights in (0, 1]; a schedule is refused, because the mask never changes.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, density: Density, rules: list[Rule] | None = None, **kwargs: Any) -> None:
        super().__init__(density, rules, mask="random", seed=0, **kwargs)  # neither is used, so neither is offered

    def targets(self, step: int) -> dict[str, int]:
        """Number of living entries of every tensor: all of them until the first gradient is there."""
        return super().targets(step) if step else {budget.name: budget.numel for budget in self.budgets}

    def start(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All entries live until the first gradient is there."""
        return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in tensors.items()}

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Choose the masks on the first gradient; mixed precision's overflow gives a second try."""
        if step > 1:
            return
        kept = self.targets(1)
        for budget in self.budgets:
            weight = tensors[budget.name]
            if weight.grad is None:
                continue
            scores = (weight * weight.grad).abs().nan_to_num(0.0, 0.0, 0.0)
            self.masks[budget.name] = select(scores, kept[budget.name], floor=budget.floor, per=budget.per)
