"""The tests of a circuit: p-values against slow references, calibration on simulated nulls, exact copies."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparselit.circuits.criterion import METRICS, Bound
from sparselit.circuits.evidence.hypothesis_tests import Settings, equivalence, hypotheses, minimality, sufficiency
from sparselit.circuits.search.problem import Problem
from sparselit.errors import SparselitError
from sparselit.statistics.p_values import holm, p_mean_below, p_rank, p_share_below
from tests.circuits.models import random_subset, randomised, some_behaviour

SOURCE = Path(__file__).parents[3] / "benchmarks" / "calibration.py"
SPEC = importlib.util.spec_from_file_location("calibration", SOURCE)
assert SPEC is not None
assert SPEC.loader is not None
calibration = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(calibration)
CRITERION = [Bound("accuracy", at_least=0.5)]
PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm by definition: the largest Bonferroni p-value of all sets of hypotheses that contain each one."""
    index = range(len(p_values))
    sets = [c for size in range(1, len(p_values) + 1) for c in itertools.combinations(index, size)]
    bonferroni = {c: min(1.0, len(c) * min(p_values[i] for i in c)) for c in sets}
    return [max(p for c, p in bonferroni.items() if i in c) for i in index]


@given(PROBABILITIES)
def test_holm_is_the_closure_of_bonferroni(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(closed_testing(p_values))


@given(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=30))
def test_a_rank_counts_ties_against_and_is_never_zero(value: float, others: list[float]) -> None:
    p = p_rank(value, others)
    assert p == sum(x <= value for x in [value, *others]) / (len(others) + 1)
    assert 0 < p <= 1
    assert p_rank(value, [value] * 9) == 1


def likelihood_maximum(plus: int, minus: int, n: int, bound: float) -> float:
    """Share of -1 of largest trinomial likelihood under "share of +1 minus share of -1 is ``bound``", by a grid."""
    best, at = -math.inf, 0.0
    for i in range(20_001):
        q = max(0.0, -bound) + i / 20_000 * ((1 - abs(bound)) / 2)
        shares = ((plus, q + bound), (minus, q), (n - plus - minus, 1 - 2 * q - bound))
        if any(share <= 0 and count for count, share in shares):
            continue
        value = sum(count * math.log(share) for count, share in shares if count)
        best, at = max((best, at), (value, q))
    return at


@pytest.mark.parametrize(
    ("plus", "minus", "n", "bound"), [(5, 9, 100, 0.05), (3, 0, 60, 0.1), (0, 7, 50, -0.1), (20, 20, 80, -0.02)]
)
def test_tangos_variance_is_that_of_the_largest_likelihood_under_the_null(plus, minus, n, bound) -> None:
    q = likelihood_maximum(plus, minus, n, bound)
    z = (plus - minus - n * bound) / math.sqrt(n * (2 * q + bound * (1 - bound)))
    differences = torch.tensor([1.0] * plus + [-1.0] * minus + [0.0] * (n - plus - minus))
    assert p_share_below(differences, bound) == pytest.approx(NormalDist().cdf(z), abs=1e-3)


def test_without_skewness_the_mean_is_tested_as_by_student() -> None:
    x = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, -x]) + 0.02
    t = float(x.mean() / x.std() * len(x) ** 0.5)
    assert p_mean_below(x, 0.0) == pytest.approx(NormalDist().cdf(t), abs=1e-9)
    assert p_mean_below(-x, 0.0) == pytest.approx(1 - NormalDist().cdf(t), abs=1e-9)


def test_a_sample_says_nothing_of_rare_examples_that_it_does_not_hold() -> None:
    """All of a hundred lie a tenth of the margin below the bound: one in ten, as far above as the margin, fits that."""
    x = torch.full((100,), 0.045)
    assert p_mean_below(x, 0.05, effect=0.05) == pytest.approx(0.9**100, rel=1e-3)
    assert p_mean_below(x[:20], 0.05, effect=0.05) == pytest.approx(0.9**20, rel=1e-3)
    assert p_mean_below(x, 0.05) == 0.0
    assert p_mean_below(x, 0.04, effect=0.05) == 1.0
    seen = torch.cat([x, torch.tensor([0.25])])  # the largest difference that was seen counts where it is larger
    mean = float(seen.mean())
    assert p_mean_below(seen, 0.05, effect=0.05) >= (1 - (0.05 - mean) / (0.25 - mean)) ** 101


ROWS = [row for row in calibration.rows() if row[2] in (1000, 19)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}, {row[1]}")
def test_false_positives_are_within_the_binomial_error_of_alpha(row) -> None:
    """At 1,000 examples (19 random circuits); tests of shares are discrete, and may be cautious."""
    test, kind, n, experiment = row
    if test == "sufficiency":  # the same test without the transformer, which takes half a minute

        def experiment(kind: str, n: int, g: torch.Generator) -> bool:
            first, *others = (torch.randn(n + 1, generator=g).exp()).tolist()
            return sufficiency(first, others)["verdict"] == "sufficient"

    g = torch.Generator().manual_seed(1)
    share = sum(experiment(kind, n, g) for _ in range(1000)) / 1000
    error = 2.576 * math.sqrt(0.05 * 0.95 / 1000)
    assert share <= 0.05 + error
    if "accuracy" not in test:
        assert share >= 0.05 - error


@pytest.mark.parametrize("kind", ["normal", "exponential", "lognormal", "rare"])
def test_with_a_hundred_examples_false_positives_stay_below_alpha_and_its_binomial_error(kind) -> None:
    g = torch.Generator().manual_seed(1)
    share = sum(calibration.equivalence_of_losses(kind, 100, g) for _ in range(1000)) / 1000
    assert share <= 0.05 + 2.576 * math.sqrt(0.05 * 0.95 / 1000)


def test_the_tests_have_power() -> None:
    g = torch.Generator().manual_seed(0)
    full = torch.rand(2000, generator=g)
    near, far = full + 0.1 * torch.randn(2000, generator=g), full + 0.2
    assert equivalence(near, full, "task_loss", 0.05)["verdict"] == "equivalent"
    assert equivalence(far + 0.1 * torch.randn(2000, generator=g), full, "task_loss", 0.05)["verdict"] == "different"
    wavering = full[:30] + torch.tensor([1.0, -1.0] * 15)
    assert equivalence(wavering, full[:30], "task_loss", 0.05)["verdict"] == "undecided"
    assert sufficiency(0.1, [0.2] * 19)["verdict"] == "sufficient"
    needed, idle = {"task_loss": full + 0.1 + torch.randn(2000, generator=g)}, {"task_loss": full.clone()}
    whole = {"task_loss": full}
    found = minimality(whole, {"needed": needed, "idle": idle})
    assert (found["matter"], found["verdict"]) == (1, "undecided")
    assert [row[0] for row in found["removals"]] == ["idle", "needed"]
    assert minimality(whole, {"needed": needed})["verdict"] == "minimal"
    assert minimality(whole, {"needed": needed}, least=0.5)["verdict"] == "undecided"
    # An edge that only the second metric needs matters as well, and the family is larger.
    right = torch.ones(2000)
    worse = right - (torch.rand(2000, generator=g) < 0.05).float()
    both = minimality(whole | {"accuracy": right}, {"edge": idle | {"accuracy": worse}})
    assert (both["verdict"], both["removals"][0][1]) == ("minimal", "accuracy")
    alone = minimality({"accuracy": right}, {"edge": {"accuracy": worse}})
    assert both["removals"][0][3] == pytest.approx(2 * alone["removals"][0][3])


@pytest.mark.parametrize("n", [2, 30, 3000])
@pytest.mark.parametrize("metric", ["task_loss", "accuracy"])
def test_an_exact_copy_is_never_rejected(metric: str, n: int) -> None:
    g = torch.Generator().manual_seed(n)
    for _ in range(100):
        values = torch.rand(n, generator=g) if metric == "task_loss" else (torch.rand(n, generator=g) < 0.9).float()
        found = equivalence(values, values.clone(), metric, 0.01)
        assert found["p_different"] == 1
        assert found["verdict"] == ("equivalent" if metric == "task_loss" or n == 3000 else "undecided")
        # Removing what changes nothing leaves an exact copy of the circuit.
        copy = minimality({metric: values}, {"edge": {metric: values.clone()}})
        assert copy["removals"] == [["edge", metric, 0.0, 1.0]]


def test_few_examples_without_a_difference_do_not_prove_equal_accuracies() -> None:
    right = torch.ones(50)
    assert equivalence(right, right, "accuracy", 0.01)["verdict"] == "undecided"
    assert equivalence(right, right, "accuracy", 0.2)["verdict"] == "equivalent"


@pytest.mark.parametrize("metric", ["task_loss", "accuracy"])
def test_of_a_model_the_tests_compare_what_the_naive_path_measures(metric: str) -> None:
    model = randomised(seed=4, density=0.5)
    behaviour = some_behaviour(model)
    problem = Problem.of(model, behaviour.splits["discovery"], CRITERION)
    report = behaviour.splits["report"]
    kept = random_subset(problem.all_edges(), 0.4, 0)
    calls: list[tuple[int, int]] = []
    found = hypotheses(problem, kept, report, Settings(metric, draws=19), lambda *done: calls.append(done))
    assert calls[-1][0] == calls[-1][1] == 2 + int(kept.sum()) + 19

    def mean(chosen: torch.Tensor, name: str = metric) -> float:
        return float(METRICS[name](problem.naive_logits(chosen, report), report, None).double().mean())

    assert found["equivalence"]["mean_difference"] == pytest.approx(mean(kept) - mean(problem.all_edges()), abs=1e-5)
    assert found["sufficiency"]["loss"] == pytest.approx(mean(kept, "task_loss"), abs=1e-5)
    assert found["equivalence"]["n"] == found["sufficiency"]["n"] == found["minimality"]["n"] == 40
    removals = {name: effect for name, _, effect, _ in found["minimality"]["removals"]}
    for name, unit in problem.removal_units(kept).items():
        trial = kept.clone()
        trial[unit] = False
        worse = mean(trial) - mean(kept)
        assert removals[name] == pytest.approx(-worse if metric == "accuracy" else worse, abs=1e-5)
    copy = hypotheses(problem, problem.all_edges(), report, Settings(metric, draws=19))
    assert copy["equivalence"]["p_different"] == 1
    assert copy["sufficiency"]["p"] == 1  # every random circuit of this size is the model itself


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "kl"}, "task_loss, answer_loss, accuracy"),
        ({"alpha": 0.7}, "alpha"),
        ({"margin": -1.0}, "margin"),
        ({"least": -1.0}, "least"),
        ({"draws": 5}, "5 random circuits cannot reach the level"),
        ({"metric": "accuracy", "margin": 1.5}, "below 1"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message) -> None:
    model = randomised(density=0.5)
    behaviour = some_behaviour(model)
    problem = Problem.of(model, behaviour.splits["discovery"], CRITERION)
    with pytest.raises(SparselitError, match=message):
        hypotheses(problem, problem.all_edges(), behaviour.splits["report"], Settings(**arguments))
