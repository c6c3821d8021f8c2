"""Hard-concrete masks: edges closed by noise that is exactly zero or one with finite probability."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparselit.circuits.search.learned import LearnedMasks
from sparselit.circuits.search.problem import Problem

_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1  # Louizos et al. 2018, §4.1


class HardConcrete(LearnedMasks):
    """Gates over edges from the hard-concrete distribution, with a penalty on the expected number of open ones.

    Louizos et al. 2018 (arXiv 1712.01312), equations 10-12. An edge counts as open where its gate's median is above 0.

    Args:
        steps: steps of gradient descent, at least 1.
        lr: Adam's learning rate of the gates' parameters, above 0.
        batch: discovery examples in each step, at least 1.
        seed: of the batches and of the gates' noise.
    """

    def __init__(self, steps: int = 300, lr: float = 0.1, batch: int = 128, seed: int = 0) -> None:
        super().__init__(steps, lr, batch, seed)

    def start(self, problem: Problem, kept: Tensor) -> Tensor:
        """Open with a probability near 0.9."""
        return torch.full((len(kept),), 2.0)

    def shares(self, parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One draw of all gates, and how many are open on average."""
        noise = torch.rand(len(parameters), generator=generator).clamp(1e-6, 1 - 1e-6)
        drawn = torch.sigmoid((noise.logit() + parameters) / _TEMPERATURE)
        expected = torch.sigmoid(parameters - _TEMPERATURE * math.log(-_LOW / _HIGH))
        return (drawn * (_HIGH - _LOW) + _LOW).clamp(0, 1), expected.sum()

    def binarised(self, parameters: Tensor, stuck: bool) -> Tensor:
        """Gates whose median is above zero."""
        return torch.sigmoid(parameters / _TEMPERATURE) * (_HIGH - _LOW) + _LOW > 0
