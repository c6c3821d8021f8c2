"""Three hypotheses about a circuit, tested on held-out examples.

Shi et al. 2024 (arXiv 2410.13032, "Hypothesis testing the circuit hypothesis in LLMs") ask of a circuit that it does
what the model does, that it does so better than random circuits, and that none of its edges is superfluous. The
questions are theirs (equivalence, sufficiency, minimality); two of the tests differ, so that the circuit carries the
burden of proof: equivalence has to be shown within a margin, where they retain it until a difference is found, and
each edge has to be shown to matter, with Holm's correction for all edges together.

``benchmarks/calibration.py`` measures how often each test errs where its null hypothesis is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparselit.circuits.criterion import METRICS
from sparselit.circuits.evidence import random_circuit
from sparselit.circuits.problem import Problem
from sparselit.circuits.statistics import holm, p_mean_below, p_rank, p_share_below
from sparselit.errors import SparselitError
from sparselit.examples import Examples

#: Metrics of each example that are tested, with the largest difference that counts as none unless said otherwise.
MARGINS = {"task_loss": 0.05, "answer_loss": 0.05, "accuracy": 0.01}
#: Fewer examples than this and the p-values of losses may be off (docs/using_circuits.md, calibration).
ENOUGH = 1000
DIGITS = 6


def equivalence(circuit: Tensor, full: Tensor, metric: str, margin: float, alpha: float = 0.05) -> dict[str, Any]:
    """Whether circuit and full model differ, on average over the task, by less than ``margin``.

    Two one-sided tests (Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach")
    of the paired differences: both "the mean difference is at least ``margin``" and "at most ``-margin``" must be
    rejected, so that the larger p-value decides. ``different`` is the test of the opposite, that the mean lies within
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
    below = _below(metric)
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


def minimality(
    whole: Tensor, without: dict[str, Tensor], metric: str, least: float = 0.0, alpha: float = 0.05
) -> dict[str, Any]:
    """Which edges matter: the metric gets worse, by more than ``least`` on average, without each of them alone.

    One paired test for each edge, of "removing it makes the metric worse by at most ``least``", and Holm's correction:
    the probability that any edge that does not matter is counted is at most alpha. A removal that changes nothing has
    the p-value 1.

    Args:
        whole: (example,) metric of the circuit.
        without: (example,) metric without each edge, by the edge's name.
        metric: its name; of an accuracy, worse is lower.
        least: smallest worsening that matters, at least 0.
        alpha: level of the whole family.

    Returns:
        ``verdict`` (``minimal`` where all matter, else ``undecided``), ``matter`` (how many do) of ``edges``, and
        ``removals``: for each edge, the smallest effect first, ``[name, mean worsening, adjusted p]``.

    Raises:
        SparselitError: ``least`` or the level is out of range.
    """
    _check(alpha, metric)
    if least < 0 or (metric == "accuracy" and least >= 1):
        raise SparselitError(f"the least effect must be at least 0 (of an accuracy below 1), got {least}")
    sign, below = (-1 if metric == "accuracy" else 1), _below(metric)
    worse = {name: sign * (each.double() - whole.double()) for name, each in without.items()}
    adjusted = holm([below(-x, -least) for x in worse.values()])
    rows = [[name, round(float(x.mean()), DIGITS), p] for (name, x), p in zip(worse.items(), adjusted, strict=True)]
    matter = sum(p <= alpha for p in adjusted)
    return {
        "verdict": "minimal" if rows and matter == len(rows) else "undecided",
        "metric": metric,
        "least_effect": least,
        "matter": matter,
        "edges": len(rows),
        "removals": sorted(rows, key=lambda row: row[1]),
        "n": len(whole),
    }


def hypotheses(
    problem: Problem,
    kept: Tensor,
    examples: Examples,
    metric: str = "task_loss",
    margin: float | None = None,
    least: float = 0.0,
    draws: int = 99,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All three tests of the circuit ``kept``.

    Args:
        problem: the model, its edges and the ablation.
        kept: boolean (edge,), the circuit.
        examples: held-out examples, independent draws of the task: the report split.
        metric: what is compared in equivalence and minimality: ``task_loss``, ``answer_loss`` or ``accuracy``.
        margin: of the equivalence; default 0.05 nats, or 0.01 of an accuracy.
        least: smallest effect of an edge that matters.
        draws: random circuits, with as many edges of each matrix as the circuit has.
        alpha: level of each of the three.
        seed: of the random circuits.
        progress: called as (circuits evaluated, circuits to evaluate).

    Raises:
        SparselitError: a value is out of range, or there are fewer than two examples.
    """
    _check(alpha, metric)
    if len(examples.answer) < 2:
        raise SparselitError("the tests need at least two examples")
    margin = MARGINS[metric] if margin is None else margin
    units = problem.units(kept)
    total, done = 2 + len(units) + draws, 0

    def measured(chosen: Tensor, name: str = metric) -> Tensor:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)
        return METRICS[name](problem.logits(chosen, examples), examples, None)

    of_circuit, of_model = measured(kept), measured(problem.all_edges())
    first = equivalence(of_circuit, of_model, metric, margin, alpha)
    loss = metric if metric.endswith("loss") else "task_loss"
    random = [float(measured(random_circuit(problem.edges, kept, seed + i), loss).mean()) for i in range(draws)]
    own = of_circuit if loss == metric else METRICS[loss](problem.logits(kept, examples), examples, None)
    second = {"metric": loss, **sufficiency(float(own.mean()), random, alpha), "n": len(own)}
    without: dict[str, Tensor] = {}
    for name, unit in units.items():
        trial = kept.clone()
        trial[unit] = False
        without[name] = measured(trial)
    third = minimality(of_circuit, without, metric, least, alpha)
    return {"alpha": alpha, "equivalence": first, "sufficiency": second, "minimality": third}


def _below(metric: str) -> Callable[[Tensor, float], float]:
    return p_share_below if metric == "accuracy" else p_mean_below


def _check(alpha: float, metric: str = "task_loss") -> None:
    if metric not in MARGINS:
        raise SparselitError(f"the metric must be one of {', '.join(MARGINS)}, got {metric!r}")
    if not 0 < alpha < 0.5:
        raise SparselitError(f"the level alpha must lie in (0, 0.5), got {alpha}")
