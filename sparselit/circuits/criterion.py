"""When a circuit counts as doing the task: metrics with bounds, all of which must hold on a fixed set of examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselit.data.examples import Examples
from sparselit.errors import SparselitError, check_range
from sparselit.runs.json_record import LEFT_OUT

#: Largest bound on a loss or a divergence, nats; every model meets a larger one.
LARGEST_LOSS = 100.0
#: Examples after which an evaluation may be given up, first and then.
FIRST_PORTION, PORTION = 128, 512


def task_loss(logits: Tensor, examples: Examples, reference: Tensor | None = None) -> Tensor:
    """Cross-entropy of the answer over the whole vocabulary (example,), nats.

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples.
        reference: not used; every metric has the same three arguments.
    """
    return F.cross_entropy(logits, examples.answer, reduction="none")


def answer_loss(logits: Tensor, examples: Examples, reference: Tensor | None = None) -> Tensor:
    """Cross-entropy between answer and wrong answer only (example,), nats (Gao et al. 2025, the task loss).

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples.
        reference: not used.
    """
    pair = torch.stack([examples.answer, examples.wrong], dim=1)
    return F.cross_entropy(logits.gather(1, pair), torch.zeros_like(examples.answer), reduction="none")


def calibrated_loss(logits: Tensor, examples: Examples, reference: Tensor | None = None) -> Tensor:
    """As :func:`answer_loss` after the one scale and shift of the two logits' difference that fit best (example,).

    Gao et al. 2025 (§2.4) calibrate a pruned model so before its loss is compared. The difference is that of the token
    with the larger number and the one with the smaller, so that the shift favours a token and not the answer. Where
    the answer always has the smaller number, or always the larger, the shift alone is right and the loss says nothing.

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples; scale and shift are fitted to all of them.
        reference: not used.

    Returns:
        The loss of each example after calibration (example,), nats.
    """
    pair = torch.stack([examples.answer, examples.wrong], dim=1)
    return _calibrated(logits.gather(1, pair), examples)


def _calibrated(pair: Tensor, examples: Examples) -> Tensor:
    """:func:`calibrated_loss` from the logits of answer and wrong answer (example, 2)."""
    sign = (examples.answer > examples.wrong).to(pair.dtype) * 2 - 1
    difference = (pair[:, 0] - pair[:, 1]) * sign
    scale, shift = _best_scale_and_shift(difference.detach().double(), sign.double())
    return F.softplus(-sign * (scale * difference + shift))


def _best_scale_and_shift(x: Tensor, sign: Tensor) -> tuple[float, float]:
    """Scale (at least 0) and shift with the least logistic loss of ``sign`` (example,) given ``x``, by Newton's method.

    A weak pull towards zero, in units of the spread of ``x``, keeps both finite where ``x`` separates the signs.
    """
    unit = x.square().mean().sqrt().clamp(min=1e-30)
    features, pull = torch.stack([x / unit, torch.ones_like(x)], dim=1), 1e-6

    def loss(at: Tensor) -> float:
        return float(F.softplus(-sign * (features @ at)).mean() + pull / 2 * at.square().sum())

    best = torch.zeros(2, dtype=x.dtype, device=x.device)
    for _ in range(50):
        doubt = torch.sigmoid(-sign * (features @ best))
        gradient = pull * best - (features * (sign * doubt)[:, None]).mean(0)
        curvature = (features * (doubt * (1 - doubt))[:, None]).T @ features / len(x)
        step = torch.linalg.solve(curvature + pull * torch.eye(2, dtype=x.dtype, device=x.device), gradient)
        size = next((2.0**-n for n in range(20) if loss(best - 2.0**-n * step) < loss(best)), 0.0)
        best = best - size * step
        if size * float(step.abs().max()) < 1e-6:
            break
    scale, shift = float(best[0] / unit), float(best[1])
    if scale >= 0:
        return scale, shift
    share = float((sign > 0).double().mean().clamp(1e-6, 1 - 1e-6))  # it says the opposite, so that it says nothing
    return 0.0, math.log(share / (1 - share))


def accuracy(logits: Tensor, examples: Examples, reference: Tensor | None = None) -> Tensor:
    """One where the answer has the largest logit of the whole vocabulary (example,), else zero.

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples.
        reference: not used.
    """
    return (logits.argmax(-1) == examples.answer).float()


def divergence(logits: Tensor, examples: Examples, reference: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the full model's next-token distribution from the circuit's (example,), nats.

    Args:
        logits: the circuit's answer logits (example, vocabulary).
        examples: not used.
        reference: the full model's answer logits (example, vocabulary).

    Raises:
        SparselitError: there is no ``reference``.
    """
    if reference is None:
        raise SparselitError("a divergence needs the full model's logits")
    full = reference.log_softmax(-1)
    return (full.exp() * (full - logits.log_softmax(-1))).sum(-1).clamp(min=0)


#: Metrics of each example (example,), none of them negative, from logits, examples and the full model's logits.
METRICS: dict[str, Callable[[Tensor, Examples, Tensor | None], Tensor]] = {
    "task_loss": task_loss,
    "answer_loss": answer_loss,
    "calibrated_loss": calibrated_loss,
    "accuracy": accuracy,
    "kl": divergence,
    "kl_max": divergence,
}
#: Metrics that compare with the full model.
RELATIVE = ("kl", "kl_max")
#: Metrics that are known only once all examples are seen.
WHOLE = ("calibrated_loss",)
#: Metrics of which a criterion bounds the largest value and not the mean.
WORST = ("kl_max",)


@dataclass(frozen=True)
class Bound:
    """One line of a criterion: a metric and the bound it must meet.

    Args:
        metric: ``task_loss`` (cross-entropy over the vocabulary, nats), ``answer_loss`` (over the two candidate
            answers, nats), ``calibrated_loss`` (the same after the best scale and shift), ``accuracy`` (share in
            [0, 1]), or ``kl`` and ``kl_max`` (mean and worst divergence from the full model's distribution, nats).
        at_most: largest value allowed.
        at_least: smallest value allowed.

    Raises:
        SparselitError: the metric is unknown, or not exactly one bound is given.
    """

    metric: str
    at_most: float | None = field(default=None, metadata=LEFT_OUT)
    at_least: float | None = field(default=None, metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise SparselitError(f"criterion metric {self.metric!r} is unknown; choose from {', '.join(METRICS)}")
        if (self.at_most is None) == (self.at_least is None):
            raise SparselitError(f"the criterion on {self.metric} needs either at_most or at_least")
        key = "at_least" if self.at_most is None else "at_most"
        check_range(f"criterion {self.metric}.{key}", getattr(self, key), -math.inf)

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
        return f"{self.metric} {limit_text(self.at_most, self.at_least)}"


def limit_text(at_most: float | None, at_least: float | None = None, digits: int = 6) -> str:
    """A limit in words: ``≤ 0.15``.

    Args:
        at_most: the upper limit, or None.
        at_least: the lower limit, where there is no upper one.
        digits: significant digits.
    """
    return f"≤ {at_most:.{digits}g}" if at_most is not None else f"≥ {at_least:.{digits}g}"


Criterion = Sequence[Bound]


def check_criterion(criterion: Criterion) -> None:
    """Refuse what no model can meet, or every one.

    Raises:
        SparselitError: there is no bound, or two of one metric contradict each other.
    """
    if not criterion:
        raise SparselitError("circuits.criterion is empty; give at least one {metric, at_most | at_least}")
    for one in criterion:
        limit = 1.0 if one.metric == "accuracy" else LARGEST_LOSS
        value = one.at_least if one.at_most is None else one.at_most
        check_range(f"circuits.criterion: {one.metric}", value, 0, limit)
        if one.at_least == 0 or (one.metric == "accuracy" and one.at_most == 1):
            raise SparselitError(f"circuits.criterion: everything meets {one}; give a bound that some models miss")
        for other in criterion:
            if one.metric == other.metric and one.at_least is not None and not other.holds(one.at_least):
                raise SparselitError(f"circuits.criterion contradicts itself: {one} and {other}")


#: The default: it does the task, and it answers as the full model does. Measured beside others, with mean ablation, in
#: docs/results/what_size_means.md: what a search finds under it is small where there is a circuit and nowhere else.
ROBUST: Criterion = (Bound("task_loss", at_most=0.15), Bound("kl", at_most=0.02))


def measure(logits: Tensor, examples: Examples, reference: Tensor | None = None) -> dict[str, float]:
    """Every metric on these logits (example, vocabulary): its mean, or its worst value for those in ``WORST``.

    In double precision, so that a share is exact.

    Args:
        logits: answer logits.
        examples: their examples.
        reference: the full model's logits; without them the relative metrics are left out.
    """
    values = {}
    for name, metric in METRICS.items():
        if reference is not None or name not in RELATIVE:
            each = metric(logits, examples, reference).double()
            values[name] = float(each.max() if name in WORST else each.mean())
    return values


def holds(criterion: Criterion, values: Mapping[str, float]) -> bool:
    """Whether all bounds hold.

    Args:
        criterion: the bounds.
        values: by metric, its value over all examples, as :func:`measure` gives it.
    """
    return all(bound.holds(values[bound.metric]) for bound in criterion)


def hopeless(bound: Bound, total: float, seen: int, n: int) -> bool:
    """Whether a mean over ``n`` examples misses the bound whatever the ones to come are.

    Args:
        bound: the bound on the mean; accuracy is at most 1 per example, losses are at least 0.
        total: sum over the examples seen; the largest value for metrics in ``WORST``.
        seen: number of examples seen.
        n: number of all examples.
    """
    slack = 1e-4  # of the mean: for the order of summation, so that a full evaluation decides every close case
    if bound.metric in WORST:
        return bound.at_most is not None and total > bound.at_most + slack
    if bound.at_most is not None:
        return total / n > bound.at_most + slack and bound.metric != "accuracy"
    return bound.metric == "accuracy" and (total + n - seen) / n < (bound.at_least or 0.0) - slack


class Evaluation:
    """A criterion on a fixed set of examples, in portions: given up once it is hopeless, and finished where needed.

    Args:
        criterion: bounds that must all hold on the total over all examples.
        logits_of: answer logits (example, vocabulary) of the examples in a slice; called for a portion at a time.
        examples: the fixed set.
        reference: the full model's logits on it, where the criterion compares with them.
        first: examples of the first portion, where each one after it is to have as many as all before it.
        everything: whether :meth:`values` has every metric; otherwise those of the criterion.
    """

    def __init__(
        self,
        criterion: Criterion,
        logits_of: Callable[[slice], Tensor],
        examples: Examples,
        reference: Tensor | None = None,
        first: int | None = None,
        everything: bool = False,
    ) -> None:
        self._criterion, self._logits_of = criterion, logits_of
        self._examples, self._reference = examples, reference
        wanted = METRICS if everything else {bound.metric for bound in criterion}
        known = [name for name in METRICS if name in wanted and (reference is not None or name not in RELATIVE)]
        self._totals = {name: 0.0 for name in known if name not in WHOLE}
        self._calibrates = any(bound.metric in WHOLE for bound in criterion)
        self._pairs: list[Tensor] = []  # logits of answer and wrong answer
        self._seen, self._first = 0, first

    def holds(self) -> bool:
        """Whether all bounds hold; the rest of the examples is spared once they cannot save the criterion."""
        n = len(self._examples.answer)
        while self._seen < n:
            self._advance()
            sums = [bound for bound in self._criterion if bound.metric not in WHOLE]
            if any(hopeless(bound, self._totals[bound.metric], self._seen, n) for bound in sums):
                return False
        return holds(self._criterion, self.values())

    def values(self) -> dict[str, float]:
        """The metrics over all examples, as in :func:`measure`; a calibrated one only where the criterion has one."""
        n = len(self._examples.answer)
        while self._seen < n:
            self._advance()
        values = {metric: total if metric in WORST else total / n for metric, total in self._totals.items()}
        if self._calibrates:
            values["calibrated_loss"] = float(_calibrated(torch.cat(self._pairs), self._examples).double().mean())
        return values

    def _advance(self) -> None:
        size = (self._seen or self._first) if self._first else PORTION if self._seen else FIRST_PORTION
        portion = slice(self._seen, self._seen + size)
        some, logits = self._examples.select(portion), self._logits_of(portion)
        reference = None if self._reference is None else self._reference[portion]
        self._seen += len(some.answer)
        if self._calibrates:
            self._pairs.append(logits.gather(1, torch.stack([some.answer, some.wrong], dim=1)))
        for name, total in self._totals.items():
            each = METRICS[name](logits, some, reference).double()
            self._totals[name] = max(total, float(each.max())) if name in WORST else total + float(each.sum())


def is_relative(criterion: Criterion) -> bool:
    """Whether any bound compares with the full model."""
    return any(bound.metric in RELATIVE for bound in criterion)


def margin(criterion: Criterion, values: Mapping[str, float]) -> float:
    """The smallest distance from any bound; negative where the criterion fails.

    Args:
        criterion: the bounds, at least one.
        values: by metric, its value over all examples.

    Returns:
        In the unit of the bound that is nearest: nats, or a share.
    """
    return min(bound.margin(values[bound.metric]) for bound in criterion)
