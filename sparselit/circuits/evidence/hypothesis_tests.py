"""Three hypotheses about a circuit, tested on held-out examples.

Shi et al. 2024 (arXiv 2410.13032, "Hypothesis testing the circuit hypothesis in LLMs") require of a circuit that it
does what the model does, that it does so better than random circuits, and that none of its edges is superfluous. The
questions are theirs (equivalence, sufficiency, minimality); two of the tests differ, so that the circuit carries the
burden of proof: equivalence has to be shown within a margin, where they retain it until a difference is found, and
each edge has to be shown to matter, with Holm's correction for all edges together.

``benchmarks/calibration.py`` measures how often each test errs where its null hypothesis is true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from sparselit.circuits.criterion import METRICS
from sparselit.circuits.evidence.nulls import random_circuit
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.statistics.p_values import holm, p_mean_below, p_rank, p_share_below

#: Metrics of each example that are tested, with the largest difference that counts as none unless said otherwise.
MARGINS = {"task_loss": 0.05, "answer_loss": 0.05, "accuracy": 0.01}
#: Fewer examples than this and the p-values of losses may be off (docs/results/hypothesis_tests.md).
ENOUGH = 1000
DIGITS = 6
#: Metrics (example,) by name.
Values = dict[str, Tensor]


def equivalence(circuit: Tensor, full: Tensor, metric: str, margin: float, alpha: float = 0.05) -> dict[str, Any]:
    """Whether circuit and full model differ, on average over the task, by less than ``margin``.

    Two one-sided tests (Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach")
    of the paired differences: both "the mean difference is at least ``margin``" and "at most ``-margin``" must be
    rejected, so that the larger p-value decides. A rare example is taken to differ by ``margin`` at least
    (:func:`p_mean_below`). ``different`` is the test of the opposite, that the mean lies within
    the margin; of an exact copy it is 1.

    Args:
        circuit: (example,) metric of the circuit.
        full: (example,) metric of the full model on the same examples.
        metric: its name; accuracies are tested as paired shares.
        margin: largest difference that counts as none, positive.
        alpha: level.

    Returns:
        ``verdict`` (``equivalent``, ``different`` or ``undecided``), ``mean_difference``, both p-values, ``margin``, n.

    Raises:
        SparselitError: the margin or the level is out of range.
    """
    _check(alpha, metric)
    if not margin > 0 or (metric == "accuracy" and margin >= 1):
        raise SparselitError(f"the margin must be positive (of an accuracy below 1), got {margin}")
    below = _below(metric, margin)
    differences = circuit.double() - full.double()
    inside = max(below(differences, margin), below(-differences, margin))
    outside = min(1.0, 2 * min(below(-differences, -margin), below(differences, -margin)))
    verdict = "equivalent" if inside <= alpha else "different" if outside <= alpha else "undecided"
    return {
        "verdict": verdict,
        "metric": metric,
        "mean_difference": round(float(differences.mean()), DIGITS),
        "margin": margin,
        "p_equivalent": inside,
        "p_different": outside,
        "n": len(differences),
    }


def sufficiency(circuit: float, random: list[float], alpha: float = 0.05) -> dict[str, Any]:
    """Whether the circuit does the task better than random circuits of its size.

    Args:
        circuit: mean loss of the circuit.
        random: mean losses of random circuits on the same examples.
        alpha: level; fewer than 1/alpha - 1 random circuits cannot reach it.

    Returns:
        ``verdict`` (``sufficient`` or ``undecided``), ``p`` (the rank of the circuit among them, exact), ``beaten``
        (how many of the random circuits have a larger loss), their ``best`` and ``median`` loss, ``draws``.

    Raises:
        SparselitError: there are too few random circuits for the level.
    """
    _check(alpha)
    if not random or 1 / (1 + len(random)) > alpha:
        raise SparselitError(f"{len(random)} random circuits cannot reach the level {alpha:g}; draw more")
    p, ordered = p_rank(circuit, random), sorted(random)
    return {
        "verdict": "sufficient" if p <= alpha else "undecided",
        "p": p,
        "loss": round(circuit, DIGITS),
        "beaten": sum(loss > circuit for loss in random),
        "best": round(ordered[0], DIGITS),
        "median": round(ordered[len(ordered) // 2], DIGITS),
        "draws": len(random),
    }


def minimality(whole: Values, without: dict[str, Values], least: float = 0.0, alpha: float = 0.05) -> dict[str, Any]:
    """Which edges matter: some metric gets worse, by more than ``least`` on average, without each of them alone.

    One paired test for each edge and metric, of "removing it makes the metric worse by at most ``least``", and Holm's
    correction over all of them: the probability that any edge that does not matter is counted is at most alpha. A
    removal that changes nothing has the p-value 1.

    Args:
        whole: (example,) metrics of the circuit, by name.
        without: the same metrics without each edge, by the edge's name.
        least: smallest worsening that matters, at least 0.
        alpha: level of the whole family.

    Returns:
        ``verdict`` (``minimal`` where all matter, else ``undecided``), ``metrics``, ``matter`` (how many do) of
        ``edges``, and ``removals``: for each edge, the least certain first, ``[name, metric, mean worsening, adjusted
        p]``, of the metric that speaks for it most clearly.

    Raises:
        SparselitError: ``least`` or the level is out of range.
    """
    for metric in whole:
        _check(alpha, metric)
    if least < 0 or ("accuracy" in whole and least >= 1):
        raise SparselitError(f"the least effect must be at least 0 (of an accuracy below 1), got {least}")
    signs = {metric: -1 if metric == "accuracy" else 1 for metric in whole}
    worse = {
        (name, metric): sign * (each[metric].double() - whole[metric].double())
        for name, each in without.items()
        for metric, sign in signs.items()
    }
    adjusted = holm([_below(metric)(-x, -least) for (_, metric), x in worse.items()])
    best: dict[str, list[Any]] = {}
    for ((name, metric), x), p in zip(worse.items(), adjusted, strict=True):
        if name not in best or p < best[name][3]:
            best[name] = [name, metric, round(float(x.mean()), DIGITS), p]
    matter = sum(row[3] <= alpha for row in best.values())
    return {
        "verdict": "minimal" if best and matter == len(best) else "undecided",
        "metrics": list(whole),
        "least_effect": least,
        "matter": matter,
        "edges": len(best),
        "removals": sorted(best.values(), key=lambda row: (-row[3], row[2])),
        "n": len(next(iter(whole.values()))),
    }


@dataclass(frozen=True)
class Settings:
    """What the tests compare, and how strictly.

    Attributes:
        metric: what is compared: ``task_loss``, ``answer_loss`` or ``accuracy``; default those that the problem's
            criterion bounds, the first of them in equivalence and all of them in minimality.
        margin: of the equivalence; default 0.05 nats, or 0.01 of an accuracy.
        least: smallest effect of an edge that matters.
        draws: random circuits, with as many edges of each matrix as the circuit has.
        alpha: level of each of the three.
        seed: of the random circuits.
    """

    metric: str | None = None
    margin: float | None = None
    least: float = 0.0
    draws: int = 99
    alpha: float = 0.05
    seed: int = 0


def hypotheses(
    problem: Problem,
    kept: Tensor,
    examples: Examples,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All three tests of the circuit ``kept``.

    Args:
        problem: the model, its edges and the ablation.
        kept: boolean (edge,), the circuit.
        examples: held-out examples, independent draws of the task: the report split.
        settings: what is compared, and how strictly.
        progress: called as (circuits evaluated, circuits to evaluate).

    Raises:
        SparselitError: a value is out of range, or there are fewer than two examples.
    """
    settings = settings or Settings()
    alpha, draws, metric = settings.alpha, settings.draws, settings.metric
    bounded = [bound.metric for bound in problem.criterion if bound.metric in MARGINS] or ["task_loss"]
    metrics = list(dict.fromkeys(bounded)) if metric is None else [metric]
    metric = metrics[0]
    _check(alpha, metric)
    if len(examples.answer) < 2:
        raise SparselitError("the tests need at least two examples")
    margin = MARGINS[metric] if settings.margin is None else settings.margin
    units = problem.removal_units(kept)
    total, done = 2 + len(units) + draws, 0

    loss = next((name for name in metrics if name.endswith("loss")), "task_loss")

    def measured(chosen: Tensor, names: list[str]) -> Values:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)
        logits = problem.logits(chosen, examples)
        return {name: METRICS[name](logits, examples, None) for name in names}

    own = measured(kept, [*metrics, loss])
    full = measured(problem.all_edges(), [metric])
    first = equivalence(own[metric], full[metric], metric, margin, alpha)
    drawn = (random_circuit(problem.keeping(kept), settings.seed + i) for i in range(draws))
    random = [float(measured(chosen, [loss])[loss].mean()) for chosen in drawn]
    second = {"metric": loss, **sufficiency(float(own[loss].mean()), random, alpha), "n": len(examples.answer)}
    without: dict[str, Values] = {}
    for name, unit in units.items():
        trial = kept.clone()
        trial[unit] = False
        without[name] = measured(trial, metrics)
    third = minimality({name: own[name] for name in metrics}, without, settings.least, alpha)
    return {"alpha": alpha, "equivalence": first, "sufficiency": second, "minimality": third}


def _below(metric: str, effect: float = 0.0) -> Callable[[Tensor, float], float]:
    return p_share_below if metric == "accuracy" else partial(p_mean_below, effect=effect)


def _check(alpha: float, metric: str = "task_loss") -> None:
    if metric not in MARGINS:
        raise SparselitError(f"the metric must be one of {', '.join(MARGINS)}, got {metric!r}")
    if not 0 < alpha < 0.5:
        raise SparselitError(f"the level alpha must lie in (0, 0.5), got {alpha}")
