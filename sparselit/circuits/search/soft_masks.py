"""Soft masks: every edge is closed a little at a time, and all of them against each other."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.search.learned import LearnedMasks
from sparselit.circuits.search.problem import Problem

#: Share above which an edge is tried fully open where all that are open at all have failed. In a dense model many end
#: up open a little, each to offset others; fully open they miss the bound together, and without them it holds.
OPEN = 0.3


class SoftMasks(LearnedMasks):
    """Projected gradient descent on a mask in [0, 1] over edges, with a penalty on its sum.

    Each edge is open by a share of its own. Every step of Adam is projected back onto [0, 1], so that shares reach zero
    exactly and can come back. It needs no noise, so that it is repeatable. Unlike a greedy search it weighs all
    removals against each other, which is what finds small circuits under mean ablation (``docs/results/searches.md``).

    Args:
        steps: steps of gradient descent, at least 1.
        lr: Adam's learning rate of the shares, above 0.
        batch: discovery examples in each step, at least 1.
        seed: of the batches.
    """

    def __init__(self, steps: int = 200, lr: float = 0.1, batch: int = 64, seed: int = 0) -> None:
        super().__init__(steps, lr, batch, seed)

    def start(self, problem: Problem, kept: Tensor) -> Tensor:
        """All kept edges fully open."""
        return kept.float()

    def shares(self, parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The parameters are the shares."""
        return parameters, parameters.sum()

    def binarised(self, parameters: Tensor, stuck: bool) -> Tensor:
        """Shares above zero, or above :data:`OPEN`."""
        return parameters > (OPEN if stuck else 0)

    def project(self, parameters: Tensor) -> None:
        """Onto [0, 1]."""
        parameters.clamp_(0, 1)
