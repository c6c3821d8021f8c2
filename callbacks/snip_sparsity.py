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
    largest are chosen in each tensor, not over all of them, so that no layer is cut off at low densities. A tensor
    without a gradient (frozen, or not used) keeps its largest weights.

    Args:
        density: share of non-zero weights in (0, 1]; a schedule is refused, because the mask never changes.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, density: Density, rules: list[Rule] | None = None, **kwargs: Any) -> None:
        super().__init__(density, rules, mask="random", seed=0, **kwargs)  # neither is used, so neither is offered
        self.since = 0  # the step before the one on whose gradient the masks are chosen

    def targets(self, step: int) -> dict[str, int]:
        """Number of living entries of every tensor: all of them until the first gradient is there."""
        return super().targets(step) if step > self.since else {budget.name: budget.numel for budget in self.budgets}

    def start(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All entries live until the first gradient is there."""
        if not self.masks:
            self.since = self.step
        return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in tensors.items()}

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Choose the masks on the first gradient; mixed precision's overflow gives a second try."""
        if step > self.since + 1:
            return
        kept = self.targets(step)
        for budget in self.budgets:
            weight = tensors[budget.name]
            gradient = weight.grad
            if gradient is not None and gradient.is_sparse:
                gradient = gradient.to_dense()
            scores = weight.abs() if gradient is None else (weight * gradient).abs().nan_to_num(0.0, 0.0, 0.0)
            self.masks[budget.name] = select(scores, kept[budget.name], floor=budget.floor, per=budget.per)

    def state_dict(self) -> dict[str, Any]:
        """The base's state, and on which step the masks are chosen."""
        return {**super().state_dict(), "since": self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        super().load_state_dict(state_dict)
        self.since = state_dict["since"]
