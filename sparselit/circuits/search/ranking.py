"""Orders in which edges are tried for removal, least important first. An order ranks; it never decides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from sparselit.circuits.criterion import task_loss
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.errors import MOST_STEPS, check_choice, check_whole
from sparselit.model.sites import Edit

Ranking = Literal["integrated_mask", "integrated_inputs", "gradient", "magnitude", "random"]


@torch.enable_grad()
def mask_gradient(problem: Problem, share: float, examples: Examples, embedding: Edit | None = None) -> Tensor:
    """Gradient (edge,) of the task loss with respect to the mask, where all edges are open by the same share.

    Args:
        problem: the model, its edges and the ablation.
        share: how far every edge is open, in [0, 1].
        examples: what the loss is averaged over.
        embedding: edit of the embedded prompts, if any.
    """
    opened = torch.full((len(problem.edges),), share, requires_grad=True)
    with problem.model.sites.edited(after={} if embedding is None else {"embed": embedding}):
        logits = problem.soft_logits(opened, examples)
        (gradient,) = torch.autograd.grad(task_loss(logits, examples).mean(), opened)
    problem.cost.forwards += 1
    problem.cost.backwards += 1
    return gradient.cpu()


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
    gradients = (mask_gradient(problem, (step + 0.5) / steps, subset) for step in range(steps))
    return torch.stack(list(gradients)).mean(0).abs()


def integrated_inputs(problem: Problem, steps: int = 10, examples: int = 256) -> Tensor:
    """Importance (edge,) as the gradient of the full model's loss on the way from the corrupted prompt to the prompt.

    The embedded prompt is interpolated linearly from its corrupted prompt (Hanna et al. 2024, arXiv 2403.17806,
    EAP-IG); arguments as for :func:`integrated_gradients`.

    Args:
        problem: the model, its edges and the discovery split, whose examples have corrupted prompts.
        steps: points on the way, at least 1.
        examples: discovery examples used, the first ones.
    """
    subset = problem.discovery.select(slice(0, examples))
    with problem.model.sites.recorded(["embed"]) as record, torch.no_grad():
        problem.model(subset.corrupted)
    other = record["embed"]
    total = torch.zeros(len(problem.edges))
    for step in range(steps):
        total += mask_gradient(problem, 1.0, subset, _towards(other, (step + 0.5) / steps))
    return (total / steps).abs()


def _towards(other: Tensor, share: float) -> Edit:
    return lambda x: other + share * (x - other)


def gradient(problem: Problem, steps: int = 1, examples: int = 256) -> Tensor:
    """Importance (edge,): magnitude of the gradient with all edges open (attribution patching); no steps.

    Args:
        problem: the model, its edges and the discovery split.
        steps: not used.
        examples: discovery examples used, the first ones.
    """
    return mask_gradient(problem, 1.0, problem.discovery.select(slice(0, examples))).abs()


def magnitude(problem: Problem, steps: int = 1, examples: int = 1) -> Tensor:
    """Importance (edge,): the weight's magnitude; no example is run.

    Args:
        problem: the model and its edges.
        steps: not used.
        examples: not used.
    """
    tensors = [problem.model.get_parameter(name).detach().cpu() for name in problem.edges.names]
    importance = torch.zeros(len(problem.edges))
    for tensor, here in zip(tensors, problem.edges.members, strict=True):
        index = (problem.edges.row[here], problem.edges.column[here])[: tensor.ndim]
        importance[here] = tensor[index].abs().float()
    return importance


def shuffled(problem: Problem, steps: int = 1, examples: int = 1, seed: int = 0) -> Tensor:
    """Importance (edge,): a random order, the null of all others.

    Args:
        problem: its edges are counted.
        steps: not used.
        examples: not used.
        seed: of the order.
    """
    return torch.rand(len(problem.edges), generator=torch.Generator().manual_seed(seed))


_RANKINGS: dict[str, Callable[[Problem, int, int], Tensor]] = {
    "integrated_mask": integrated_gradients,
    "integrated_inputs": integrated_inputs,
    "gradient": gradient,
    "magnitude": magnitude,
}


def rank(problem: Problem, ranking: Ranking, steps: int, examples: int, seed: int = 0) -> Tensor:
    """Importance (edge,) by the ranking of that name.

    Args:
        problem: what is searched.
        ranking: name of the ranking.
        steps: points of the integrated ones.
        examples: discovery examples used.
        seed: of the random one.
    """
    function = partial(shuffled, seed=seed) if ranking == "random" else _RANKINGS[ranking]
    return function(problem, steps, examples)


def check_ranking(ranking: str, steps: int, examples: int) -> None:
    """Refuse what no ranking can use.

    Args:
        ranking: name of the ranking.
        steps: points of the integrated rankings.
        examples: discovery examples.

    Raises:
        SparselitError: the name is unknown or a number is below 1; the message names it.
    """
    check_choice("search.ranking", ranking, get_args(Ranking))
    check_whole("search.steps", steps, 1, most=MOST_STEPS)
    check_whole("search.examples", examples, 1)
