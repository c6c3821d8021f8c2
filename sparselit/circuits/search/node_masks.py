"""Learned node masks: the search of Gao et al. 2025 (§2.4), with a controller instead of a tuned penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.search.base import Found, Progress, attempt
from sparselit.circuits.search.learned import LearnedMasks
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranking import integrated_gradients


class _Step(torch.autograd.Function):
    """Heaviside step forwards, the derivative of a sigmoid backwards."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        """One where ``x`` is above zero."""
        context.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        """As if the step had been a sigmoid."""
        (x,) = context.saved_tensors  # type: ignore[attr-defined]
        sigmoid = torch.sigmoid(x)
        return gradients[0] * sigmoid * (1 - sigmoid)


def heaviside(x: Tensor) -> Tensor:
    """One where ``x`` is above zero, else zero, with the derivative of a sigmoid."""
    step: Tensor = _Step.apply(x)
    return step


class NodeMasks(LearnedMasks):
    """One gate for each node (site, channel): Heaviside forwards, sigmoid backwards; an edge needs both its nodes.

    Under mean ablation a closed node has its mean. After the descent the nodes are sorted by their logits, and
    bisection between the set that works and none at all finds how many of the last can go together. The certificate
    then goes down to single weights, unless the problem's granularity is ``channel``, as in the paper. A bound on
    ``calibrated_loss`` fits the paper's scale and shift of the logits anew for every set that is tried.
    """

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """The descent, then the bisection."""
        super().shrink(problem, found, progress)
        openness = self.parameters.detach()[self._ends].amin(0)  # of an edge: that of its less open end
        levels = openness[found.kept].unique()
        low, high = 0, len(levels)
        while high - low > 1:
            middle = (low + high) // 2
            if attempt(problem, found, found.kept & (openness >= levels[middle])):
                low = middle
            else:
                high = middle
            progress("bisection", int(found.kept.sum()))

    def start(self, problem: Problem, kept: Tensor) -> Tensor:
        """All nodes open, by a margin in (0, 1] that grows with their rank.

        Where the model is sure of its answers every gradient is tiny, and Adam moves all nodes at one speed: from equal
        margins they would all close in the same step, after which no path has a gradient to open again. The rank is
        that of a node's largest edge by integrated gradients.
        """
        units = problem.at("channel").removal_units(kept)
        always = len(units)  # for ends that are tokens, positions or logits
        self._ends = torch.full((2, len(kept)), always)
        filled = torch.zeros(len(kept), dtype=torch.long)
        for number, edges in enumerate(units.values()):
            self._ends[filled[edges], edges] = number
            filled[edges] += 1
        importance = integrated_gradients(problem)
        order = torch.tensor([float(importance[edges].max()) for edges in units.values()]).argsort(stable=True)
        margins = torch.empty(always)
        margins[order] = torch.arange(1, always + 1) / always
        return torch.cat([margins, torch.full((1,), torch.inf)])

    def shares(self, parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """An edge is open where both ends are; the size is the number of open nodes."""
        gates = heaviside(parameters)
        return gates[self._ends[0]] * gates[self._ends[1]], gates.sum()

    def binarised(self, parameters: Tensor, stuck: bool) -> Tensor:
        """Edges between two open nodes."""
        return (parameters > 0)[self._ends].all(0)
