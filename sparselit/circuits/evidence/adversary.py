"""An adversary of a circuit: which of the other edges, put back, break it? Greedily, and by projected gradient ascent.

Random halves of the complement (``faithfulness``) are drawn blindly; this one looks for the worst, within a budget of
edges, on prompts of the discovery split. What it finds is measured on the report split.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.claims import OpenEdge
from sparselit.circuits.criterion import WORST, Bound, Criterion
from sparselit.circuits.evidence.other_ways import PutBack
from sparselit.circuits.evidence.scores import DIGITS, Told, silent
from sparselit.circuits.search.learned import furthest
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples

#: Most edges that are put back.
BUDGET = 20
#: Edges of the steepest slope that are tried at each step of the greedy search.
CANDIDATES = 32
#: Starts of the gradient's search, and its steps from each.
RESTARTS, STEPS = 3, 30
#: Examples on which edges are chosen: the first ones of the discovery split.
EXAMPLES = 256
#: What is raised where the criterion bounds no loss.
_DEFAULT = Bound("task_loss", at_most=0.1)


@dataclass(frozen=True)
class Attack:
    """The circuit and the prompts on which edges are chosen.

    Attributes:
        problem: on these prompts.
        kept: the circuit, boolean (edge,).
        reference: the full model's answer logits (example, vocabulary).
        bounds: upper bounds on means, of which the one that stands worst is raised.
    """

    problem: Problem
    kept: Tensor
    reference: Tensor
    bounds: Criterion

    @classmethod
    def of(cls, problem: Problem, kept: Tensor) -> Attack:
        """An attack on ``kept`` (edge,), on the first discovery examples of a problem."""
        examples = problem.discovery.select(slice(0, EXAMPLES))
        here = problem.on(examples, problem.criterion)  # an engine of its own: nothing was announced to it
        bounds = [b for b in problem.criterion if b.at_most and b.metric not in WORST] or [_DEFAULT]
        return cls(here, kept, here.logits(here.all_edges(), examples), bounds)

    @torch.no_grad()
    def harm(self, trial: Tensor) -> float:
        """By how much a set of edges, boolean (edge,), is beyond the bounds; in units of the first one."""
        return float(furthest(self.bounds, self.problem.logits(trial, self._on), self._on, self.reference))

    @torch.enable_grad()
    def slope(self, shares: Tensor) -> tuple[float, Tensor]:
        """The same of shares (edge,) in [0, 1], and its gradient (edge,)."""
        shares = shares.detach().requires_grad_()
        harm = furthest(self.bounds, self.problem.soft_logits(shares, self._on), self._on, self.reference)
        (gradient,) = torch.autograd.grad(harm, shares)
        return float(harm.detach()), gradient

    @property
    def _on(self) -> Examples:
        return self.problem.discovery


def adversary(problem: Problem, kept: Tensor, budget: int = BUDGET, told: Told = silent) -> PutBack:
    """The worst edges to put back into a circuit that were found.

    Args:
        problem: the circuit's; its discovery split is chosen on.
        kept: the circuit, boolean (edge,).
        budget: most edges, at least 1.
        told: called with what is being done.

    Returns:
        The edges; :func:`sparselit.circuits.evidence.other_ways.attacked` measures them on other prompts.
    """
    attack = Attack.of(problem, kept)
    order = greedy(attack, budget, told)
    whole = torch.zeros(len(kept))
    whole[order] = 1.0
    best = ascent(attack, budget, told)

    def put_back(shares: Tensor, numbers: Sequence[int]) -> list[OpenEdge]:
        return [OpenEdge(*problem.edges.describe(i), round(float(shares[i]), DIGITS)) for i in numbers]

    return PutBack(
        chosen_on="discovery",
        budget=budget,
        restarts=RESTARTS,
        greedy=put_back(whole, order),
        gradient=put_back(best, best.round(decimals=DIGITS).nonzero()[:, 0].tolist()),
    )


def greedy(attack: Attack, budget: int, told: Told = silent) -> list[int]:
    """Edges in the order in which each, with those before it, does the most harm.

    At each step the edges of the steepest slopes are tried: with all others closed, and with all others half open,
    since of a path that is closed twice neither edge alone has a slope. Where none does harm, the steepest of the
    latter goes first. The order ends where the harm is largest.

    Args:
        attack: the circuit and the prompts.
        budget: most edges.
        told: called with what is being done.
    """
    present, order, harms = attack.kept.clone(), list[int](), list[float]()
    while len(order) < budget and not bool(present.all()):
        told("adversary")
        harm, closed = attack.slope(present.to(torch.get_default_dtype()))
        _, half = attack.slope((1.0 + present) / 2)
        some = min(CANDIDATES // 2, int((~present).sum()))
        steepest = [slope.masked_fill(present, -torch.inf).topk(some).indices.tolist() for slope in (half, closed)]
        tried = {}
        for number in dict.fromkeys(itertools.chain(*steepest)):
            trial = present.clone()
            trial[number] = True
            tried[number] = attack.harm(trial)
        worst = max(tried, key=lambda number: tried[number])
        if tried[worst] <= harm + 1e-6:
            worst = steepest[0][0]
        present[worst] = True
        order.append(worst)
        harms.append(tried[worst])
    return order[: 1 + harms.index(max(harms))] if harms else []


def ascent(attack: Attack, budget: int, told: Told = silent) -> Tensor:
    """Shares (edge,) of the edges outside that do the most harm; zero inside.

    Projected gradient ascent on shares in [0, 1] whose sum is at most the budget (Madry et al. 2018, "Towards deep
    learning models resistant to adversarial attacks", §2.1), first from equal shares, then from random ones.

    Args:
        attack: the circuit and the prompts.
        budget: largest sum of the shares.
        told: called with what is being done.
    """
    outside = ~attack.kept
    best, most = torch.zeros(len(outside)), -torch.inf
    for restart in range(RESTARTS):
        draw = torch.rand(len(outside), generator=torch.Generator().manual_seed(restart)) if restart else 1.0
        shares = projected(outside * draw, budget)
        for step in range(STEPS):
            told("adversary")
            harm, slope = attack.slope(shares + attack.kept)
            if harm > most:
                best, most = shares, harm
            slope = slope * outside
            rate = 0.5 * (1 - step / STEPS)
            shares = projected(shares + rate * slope / slope.abs().max().clamp(min=1e-30), budget) * outside
    return best


def projected(shares: Tensor, budget: float) -> Tensor:
    """The nearest shares (edge,) in [0, 1] whose sum is at most ``budget``: all less by the same amount, by bisection.

    Args:
        shares: any numbers (edge,).
        budget: largest sum, at least 0.
    """
    if float(shares.clamp(0, 1).sum()) <= budget:
        return shares.clamp(0, 1)
    low, high = 0.0, float(shares.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((shares - middle).clamp(0, 1).sum()) > budget else (low, middle)
    return (shares - high).clamp(0, 1)
