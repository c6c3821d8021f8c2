"""Orders in which edges are tried for removal, least important first. An order ranks; it never decides."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.criterion import task_loss
from sparselit.circuits.masked import masked_logits
from sparselit.circuits.problem import Problem


@torch.enable_grad()
def integrated_gradients(problem: Problem, steps: int = 10, examples: int = 256) -> Tensor:
    """Importance (edge,) of each edge: the change of the task loss that it brings as all edges open together.

    Integrated gradients (Sundararajan et al. 2017, eq. 1) over the mask: the path runs from all edges closed to all
    open, by the midpoint rule. A single gradient at the open end misses saturated attention. Magnitudes, because an
    edge that lowers the loss on one example often raises it on another that needs the opposite answer.

    Args:
        problem: the model, its edges and the discovery split.
        steps: points on the path.
        examples: discovery examples used, the first ones.
    """
    subset = problem.discovery.select(slice(0, examples))
    total = torch.zeros(len(problem.edges))
    device = subset.tokens.device
    for step in range(steps):
        kept = torch.full((len(problem.edges),), (step + 0.5) / steps, requires_grad=True)
        masks = {name: mask.to(device) for name, mask in problem.edges.masks(kept).items()}
        logits = masked_logits(problem.model, masks, problem.ablation, subset.tokens, subset.length - 1)
        (gradient,) = torch.autograd.grad(task_loss(logits, subset).mean(), kept)
        total -= gradient.cpu() / steps
        problem.cost.forwards += 1
        problem.cost.backwards += 1
    return total.abs()
