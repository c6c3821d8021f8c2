"""RigL: a sparse mask whose smallest weights move to where the gradient is largest (Evci et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from sparselit.sparsity.budget import Budget
from sparselit.sparsity.schedule import steps

from .dynamic_sparsity import DynamicSparsity


class RiglSparsity(DynamicSparsity):
    """Drops the smallest living weights every few steps and grows as many where the gradient is largest.

    Evci et al. 2020 (arXiv 1911.11134), algorithm 1: the share that is exchanged falls from ``drop`` to 0 along half a
    cosine until ``until``. The gradient is that of the step's whole batch, over all processes and accumulated batches,
    before clipping; between two exchanges nobody needs it at dead entries. Arguments as of ``DynamicSparsity``.
    """

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Keep the magnitude of the dense gradient where an exchange is due."""
        self._gradients: dict[str, Tensor] = {}
        if self.is_due(step):
            found = {name: weight.grad for name, weight in tensors.items() if weight.grad is not None}
            self._gradients = {name: (g.to_dense() if g.is_sparse else g).abs() for name, g in found.items()}

    def reads_gradients(self, step: int) -> bool:
        """Where an exchange is due."""
        return self.is_due(step)

    def share(self, step: int) -> float:
        """Share of the living weights that is exchanged after step ``step``, in [0, 1]."""
        return self.drop / 2 * (1 + math.cos(math.pi * step / max(1.0, steps(self.until, self.total_steps))))

    def scores(self, budget: Budget, weight: Tensor, step: int) -> Tensor:
        """The gradient's magnitude; a tensor without a gradient exchanges in flat order."""
        return self._gradients.get(budget.name, weight.abs() * 0)
