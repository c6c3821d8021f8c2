"""Scores: every metric of some logits with its n, its 95 % intervals and the worst example, as files hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sparselit.circuits.claims import Score, Worst
from sparselit.circuits.criterion import METRICS, Criterion, Evaluation, measure
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.examples import Examples
from sparselit.statistics.intervals import bootstrap, wilson

DIGITS = 6
#: Metrics whose mean has a bootstrap interval; an accuracy has Wilson's.
RESAMPLED = ("task_loss", "answer_loss", "kl")
#: Called with the name of what is computed next.
Told = Callable[[str], None]


def silent(part: str) -> None:
    """Tell nobody."""


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Values as they are written to files."""
    return {name: round(value, DIGITS) for name, value in values.items()}


def score(logits: Tensor, examples: Examples, reference: Tensor) -> Score:
    """Every metric with its 95 % interval, the worst example, and n.

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples.
        reference: the full model's logits.

    Returns:
        The metrics; Wilson's interval of the accuracy, bootstrap intervals over examples of the means;
        ``task_loss_max``, the largest loss of any example, nats, and ``margin_min``, the smallest lead of the answer's
        logit over all others; ``n``.
    """
    values = rounded(measure(logits, examples, reference))
    n = len(examples.answer)
    intervals = {"accuracy": wilson(values["accuracy"] * n, n)}
    each = torch.stack([METRICS[name](logits, examples, reference).double() for name in RESAMPLED])
    intervals |= dict(zip(RESAMPLED, bootstrap(each), strict=True))
    ends = {name: (round(low, DIGITS), round(high, DIGITS)) for name, (low, high) in intervals.items()}
    return Score(
        **values,
        accuracy_interval=ends["accuracy"],
        task_loss_interval=ends["task_loss"],
        answer_loss_interval=ends["answer_loss"],
        kl_interval=ends["kl"],
        task_loss_max=round(float(each[0].max()), DIGITS),
        margin_min=round(float(lead(logits, examples).min()), DIGITS),
        n=n,
    )


def lead(logits: Tensor, examples: Examples) -> Tensor:
    """By how much the answer's logit exceeds the largest other one (example,); negative where the answer is wrong.

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples.
    """
    answer = examples.answer[:, None]
    others = logits.scatter(1, answer, -torch.inf).amax(1)
    return logits.gather(1, answer)[:, 0] - others


def by_stratum(logits: Tensor, examples: Examples, reference: Tensor, strata: list[str]) -> dict[str, Score]:
    """:func:`score` per stratum; strata without examples are left out.

    Args:
        logits: answer logits (example, vocabulary).
        examples: their examples.
        reference: the full model's logits.
        strata: names of the strata, in the order of ``examples.stratum``.
    """
    chosen = {name: examples.stratum == i for i, name in enumerate(strata)}
    return {name: score(logits[c], examples.select(c), reference[c]) for name, c in chosen.items() if c.any()}


def meets(
    circuit: Subnetwork, examples: Examples, reference: Tensor, criterion: Criterion, first: int | None = None
) -> bool:
    """Whether the criterion holds with only the circuit's edges; stops where it is hopeless.

    Args:
        circuit: the circuit.
        examples: the examples.
        reference: the full model's answer logits on them (example, vocabulary).
        criterion: bounds that must all hold.
        first: examples after which it may stop first, see :class:`Evaluation`.
    """
    return Evaluation(criterion, lambda part: circuit.logits(examples.select(part)), examples, reference, first).holds()


def worst_of(values: list[dict[str, float]], criterion: Criterion) -> Worst:
    """The worst of several measurements of the same thing, of each metric that the criterion bounds among others.

    Args:
        values: one measurement each, by metric.
        criterion: its metrics are given beside loss and accuracy.
    """
    names = dict.fromkeys(["task_loss", "accuracy", *(bound.metric for bound in criterion)])
    worst = {name: (min if name == "accuracy" else max)(each[name] for each in values) for name in names}
    met = sum(all(bound.holds(each[bound.metric]) for bound in criterion) for each in values)
    return Worst(runs=len(values), meet_criterion=met, worst=rounded(worst))
