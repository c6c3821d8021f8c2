"""What the searches by gradient descent share: a loss on one side, a penalty on what is open on the other."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sparselit.circuits.criterion import METRICS, WORST, Bound, Criterion
from sparselit.circuits.search.base import Found, Progress, Search, attempt
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.errors import LARGEST_RATE, MOST_STEPS, check_range, check_seed, check_whole

#: The loss that is kept low where the criterion bounds none.
_DEFAULT = Bound("task_loss", at_most=0.1)
#: Steps between two tries of what is open as a circuit, and tries without a smaller one after which it ends.
_TRY_EVERY, _PATIENCE = 10, 5


class LearnedMasks(Search):
    """Gradient descent on the criterion's loss plus a penalty on what is open; subclasses say what a gate is.

    Of several bounded losses it is, at each step, the one that stands worst beside its bound. The penalty grows while
    the running loss is below 0.7 of the bound and falls above it, so that nothing has to be tuned. Every ten steps the
    edges that are open at all are tried as a circuit, fully open; the smallest set that meets the criterion is the
    result, and five tries without a smaller one end the descent.

    Args:
        steps: steps of gradient descent, at least 1.
        lr: Adam's learning rate of the gates' parameters, above 0.
        batch: discovery examples in each step, at least 1.
        seed: of the batches, and of the noise where there is some.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, steps: int = 200, lr: float = 0.05, batch: int = 128, seed: int = 0) -> None:
        check_whole("search.steps", steps, 1, most=MOST_STEPS)
        check_whole("search.batch", batch, 1)
        check_range("search.lr", lr, 0, above=True, most=LARGEST_RATE)
        check_seed("search.seed", seed)
        self.steps = steps
        self.lr = lr
        self.batch = batch
        self.seed = seed

    @abstractmethod
    def start(self, problem: Problem, kept: Tensor) -> Tensor:
        """The gates' parameters before the first step, all open.

        Args:
            problem: what is sought.
            kept: the edges that the search begins with, boolean (edge,).

        Returns:
            One number per gate (gate,), float; which gates there are is the subclass's choice.
        """

    @abstractmethod
    def shares(self, parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Share (edge,) by which each edge is open, in [0, 1], and the size that is penalised, a scalar.

        Args:
            parameters: of the gates (gate,).
            generator: of random gates.
        """

    @abstractmethod
    def binarised(self, parameters: Tensor, stuck: bool) -> Tensor:
        """The edges to try fully open, boolean (edge,): all that are open at all, or fewer where those have failed.

        Args:
            parameters: of the gates (gate,).
            stuck: whether the last two tries have failed.
        """

    def project(self, parameters: Tensor) -> None:
        """Bring the parameters back into their range after a step, in place."""
        return

    @torch.enable_grad()
    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """Close gates by gradient descent, and keep the smallest open set that works."""
        bounds = [b for b in problem.criterion if b.at_most is not None and b.metric not in WORST] or [_DEFAULT]
        target = 0.7 * (bounds[0].at_most or 0.0)
        device, n = problem.discovery.answer.device, len(problem.discovery.answer)
        generator = torch.Generator().manual_seed(self.seed)
        parameters = self.parameters = self.start(problem, found.kept).requires_grad_()
        optimizer = torch.optim.Adam([parameters], lr=self.lr, betas=(0.9, 0.95))
        idle, shrunk, tried = 0, False, int(found.kept.sum())
        running, penalty = target, 1e-3 * max(target, 1e-3)
        for step in range(1, self.steps + 1):
            chosen = torch.randint(n, (min(self.batch, n),), generator=generator).to(device)
            some = problem.discovery.select(chosen)
            reference = None if problem.reference is None else problem.reference[chosen]
            shares, size = self.shares(parameters, generator)
            loss = furthest(bounds, problem.soft_logits(shares * found.kept, some), some, reference)
            (parameters.grad,) = torch.autograd.grad(loss + penalty * size, parameters)
            problem.cost.forwards += 1
            problem.cost.backwards += 1
            optimizer.step()
            running = 0.9 * running + 0.1 * float(loss.detach())
            penalty *= 1.05 if running < target else 0.95
            with torch.no_grad():
                self.project(parameters)
                opened = self.binarised(parameters, idle > 1) & found.kept
                regular = step % _TRY_EVERY == 0 or step == self.steps
                if regular or int(opened.sum()) <= 0.5 * tried:
                    tried = int(opened.sum())
                    smaller = int(opened.sum()) < int(found.kept.sum()) and attempt(problem, found, opened)
                    idle = 0 if smaller or not shrunk else idle + regular
                    shrunk = shrunk or smaller
                    progress("masks", int(found.kept.sum()))
                    if idle == _PATIENCE:
                        return


def furthest(bounds: Criterion, logits: Tensor, examples: Examples, reference: Tensor | None = None) -> Tensor:
    """The mean loss that is the largest share of its upper bound, in units of the first bound; a scalar.

    Args:
        bounds: upper bounds on means, at least one.
        logits: (example, vocabulary).
        examples: their examples.
        reference: the full model's logits, where a bound compares with them.
    """
    losses = [METRICS[bound.metric](logits, examples, reference).mean() for bound in bounds]
    unit = bounds[0].at_most or 0.0
    scaled = [
        loss * (unit / bound.at_most if bound.at_most else 1.0) for loss, bound in zip(losses, bounds, strict=True)
    ]
    return max(scaled, key=lambda loss: float(loss.detach()))
