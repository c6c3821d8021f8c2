"""When a circuit counts as doing the task: metrics with bounds, all of which must hold on a fixed set of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselit.errors import SparselitError
from sparselit.examples import Examples


def task_loss(logits: Tensor, examples: Examples) -> Tensor:
    """Cross-entropy of the answer over the whole vocabulary (example,), nats."""
    return F.cross_entropy(logits, examples.answer, reduction="none")


def answer_loss(logits: Tensor, examples: Examples) -> Tensor:
    """Cross-entropy between answer and wrong answer only (example,), nats (Gao et al. 2025, the task loss)."""
    pair = torch.stack([examples.answer, examples.wrong], dim=1)
    return F.cross_entropy(logits.gather(1, pair), torch.zeros_like(examples.answer), reduction="none")


def accuracy(logits: Tensor, examples: Examples) -> Tensor:
    """One where the answer has the largest logit of the whole vocabulary (example,), else zero."""
    return (logits.argmax(-1) == examples.answer).float()


#: Metrics of each example (example,), none of them negative; a criterion bounds their means.
METRICS: dict[str, Callable[[Tensor, Examples], Tensor]] = {
    "task_loss": task_loss,
    "answer_loss": answer_loss,
    "accuracy": accuracy,
}


@dataclass(frozen=True)
class Bound:
    """One line of a criterion: a metric and the bound it must meet.

    Args:
        metric: ``task_loss`` (cross-entropy over the vocabulary, nats), ``answer_loss`` (over the two candidate
            answers, nats) or ``accuracy`` (share in [0, 1]).
        at_most: largest value allowed.
        at_least: smallest value allowed.

    Raises:
        SparselitError: the metric is unknown, or not exactly one bound is given.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise SparselitError(f"criterion metric {self.metric!r} is unknown; choose from {', '.join(METRICS)}")
        for bound in (self.at_most, self.at_least):
            if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
                raise SparselitError(f"the criterion's bound on {self.metric} must be a number, got {bound!r}")
        if (self.at_most is None) == (self.at_least is None):
            raise SparselitError(f"the criterion on {self.metric} needs either at_most or at_least")

    def holds(self, value: float) -> bool:
        """Whether ``value`` meets the bound; NaN never does."""
        return self.margin(value) >= 0

    def margin(self, value: float) -> float:
        """Distance of ``value`` from the bound, positive on the side that is allowed."""
        return self.at_most - value if self.at_most is not None else value - (self.at_least or 0.0)

    def tightened(self, share: float) -> Bound:
        """The bound moved towards the perfect value (loss 0, accuracy 1) by ``share`` of the distance."""
        if self.at_most is not None:
            return Bound(self.metric, at_most=self.at_most * (1 - share))
        perfect = 1.0 if self.metric == "accuracy" else 0.0
        at_least = self.at_least or 0.0
        return Bound(self.metric, at_least=at_least + (perfect - at_least) * share)

    def implies(self, other: Bound) -> bool:
        """Whether meeting this bound means meeting ``other``: the same metric and side, at least as tight."""
        if self.metric != other.metric or (self.at_most is None) != (other.at_most is None):
            return False
        limit = self.at_most if self.at_most is not None else self.at_least
        return other.holds(limit or 0.0)

    def __str__(self) -> str:
        sign, value = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{self.metric} {sign} {value:g}"


Criterion = Sequence[Bound]


def measure(logits: Tensor, examples: Examples) -> dict[str, float]:
    """The mean of every metric on these logits (example, vocabulary), in double precision: a share is exact."""
    return {name: float(metric(logits, examples).double().mean()) for name, metric in METRICS.items()}


def holds(criterion: Criterion, values: Mapping[str, float]) -> bool:
    """Whether all bounds hold."""
    return all(bound.holds(values[bound.metric]) for bound in criterion)


def hopeless(bound: Bound, total: float, seen: int, n: int) -> bool:
    """Whether a mean over ``n`` examples misses the bound whatever the ones to come are.

    Args:
        bound: the bound on the mean; accuracy is at most 1 per example, losses are at least 0.
        total: sum over the examples seen.
        seen: number of examples seen.
        n: number of all examples.
    """
    slack = 1e-4  # of the mean: for the order of summation, so that a full evaluation decides every close case
    if bound.at_most is not None:
        return total / n > bound.at_most + slack and bound.metric != "accuracy"
    return bound.metric == "accuracy" and (total + n - seen) / n < (bound.at_least or 0.0) - slack


def margin(criterion: Criterion, values: Mapping[str, float]) -> float:
    """The smallest distance from any bound; negative where the criterion fails."""
    return min(bound.margin(values[bound.metric]) for bound in criterion)
