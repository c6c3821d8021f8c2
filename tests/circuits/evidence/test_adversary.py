"""The adversary against brute force, and what is measured of it against the plain masked forward pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparselit.circuits.claims import OpenEdge
from sparselit.circuits.criterion import Bound, measure
from sparselit.circuits.evidence.adversary import CANDIDATES, RESTARTS, Attack, adversary, ascent, greedy, projected
from sparselit.circuits.evidence.other_ways import PutBack, attacked, opened, other_ablations
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.subnetwork import Subnetwork
from tests.circuits.models import random_subset, randomised, some_examples

CRITERION = [Bound("task_loss", at_most=2.0), Bound("kl", at_most=0.5)]


def attack_on(kind: str = "zero", density: float = 0.1) -> tuple[Problem, torch.Tensor]:
    problem = Problem.of(randomised(seed=3, density=density), some_examples(24, seed=4), CRITERION, kind)
    return problem, random_subset(problem.all_edges(), 0.5, seed=5)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_the_first_edge_is_the_worst_of_all_where_all_are_tried(kind: str) -> None:
    problem, kept = attack_on(kind)
    kept |= torch.arange(len(kept)) >= 16
    outside = (~kept).nonzero()[:, 0].tolist()
    assert len(outside) <= CANDIDATES // 2
    full = problem.logits(problem.all_edges(), problem.discovery)

    def harm(number: int) -> float:
        trial = kept.clone()
        trial[number] = True
        values = measure(problem.naive_logits(trial, problem.discovery), problem.discovery, full)
        return max(values["task_loss"], values["kl"] * 2.0 / 0.5)

    (first,) = greedy(Attack.of(problem, kept), budget=1)
    assert harm(first) == pytest.approx(max(map(harm, outside)), abs=1e-5)


def test_the_slope_is_the_derivative_of_the_harm() -> None:
    problem, kept = attack_on("mean")
    attack = Attack.of(problem, kept)
    shares = torch.rand(len(kept), generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    _, slope = attack.slope(shares)
    direction = torch.randn(len(kept), generator=torch.Generator().manual_seed(1))
    up, down = (attack.slope(shares + sign * 1e-3 * direction)[0] for sign in (1, -1))
    assert (up - down) / 2e-3 == pytest.approx(float(slope @ direction), rel=0.05, abs=1e-2)


def test_the_ascent_stays_outside_within_its_budget_and_does_harm() -> None:
    problem, kept = attack_on()
    attack = Attack.of(problem, kept)
    shares = ascent(attack, budget=3)
    assert not bool(shares[kept].any())
    assert float(shares.sum()) <= 3 + 1e-4
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert attack.slope(shares + kept)[0] > attack.slope(kept.float())[0]


@given(st.lists(st.floats(-2, 3, width=32), min_size=1, max_size=8), st.integers(1, 5))
def test_the_projection_is_the_nearest_point_within_the_budget(values: list[float], budget: int) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    nearest = projected(x, budget)
    assert bool(((nearest >= 0) & (nearest <= 1)).all())
    assert float(nearest.sum()) <= budget + 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # no other point is nearer: the angle to each is obtuse
        other = torch.rand(len(x), generator=generator, dtype=torch.float64)
        other = other * min(1.0, budget / float(other.sum()))
        assert float((x - nearest) @ (other - nearest)) <= 1e-6


def test_what_was_put_back_is_measured_by_the_plain_masked_forward_pass() -> None:
    problem, kept = attack_on("mean")
    circuit, report = problem.keeping(kept), some_examples(30, seed=9)
    reference = circuit.whole.logits(report)
    found = adversary(problem, kept, budget=4)
    assert (found.chosen_on, found.budget, found.restarts) == ("discovery", 4, RESTARTS)
    row = attacked(circuit, found, report, reference, CRITERION)
    for scored, edges in ((row.greedy, found.greedy), (row.gradient, found.gradient)):
        assert list(scored.edges) == list(edges)
        logits = circuit.naive.engine.logits(opened(circuit, edges), report)
        assert scored.kl == pytest.approx(measure(logits, report, reference)["kl"], abs=1e-5)
    broken = None
    for count in range(len(found.greedy), 0, -1):
        trial = kept | problem.edges.find([edge[:3] for edge in found.greedy[:count]])
        values = measure(problem.naive_logits(trial, report), report, reference)
        broken = broken if all(bound.holds(values[bound.metric]) for bound in CRITERION) else count
    assert row.broken_by == broken


def test_edges_that_nobody_can_put_back_are_left_out() -> None:
    problem, kept = attack_on()
    circuit, report = problem.keeping(kept), problem.discovery
    inside, outside = (problem.edges.places(which) for which in (kept, ~kept))
    edge = OpenEdge(*outside[0], 1.0)
    wrong = [
        [OpenEdge(*inside[0], 1.0)],
        [OpenEdge("nowhere", 0, 0, 1.0)],
        [edge, edge],
        [edge, OpenEdge(*outside[1], 1.0)],  # beyond the budget
        [OpenEdge(*outside[0], 1.5)],
        [OpenEdge(*outside[0], 0.0)],
    ]
    for edges in wrong:
        found = PutBack("discovery", 1, 0, edges, [])
        row = attacked(circuit, found, report, circuit.whole.logits(report), CRITERION)
        assert len(row.greedy.edges) < len(edges)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_other_ablations_are_those_of_the_same_edges(kind: str) -> None:
    model, examples = randomised(seed=3), some_examples(20, seed=4)
    splits = {"discovery": examples, "report": some_examples(20, seed=7)}
    engine = NaiveEngine.of(model, kind, splits)
    circuit = Subnetwork(engine, random_subset(engine.everything(), 0.5, seed=5))
    found = other_ablations(circuit, splits)
    assert set(found) == {"zero", "mean", "resample"} - {kind}
    for other, row in found.items():
        there = NaiveEngine.of(model, Ablation(other), splits)
        places = set(circuit.edges.places(circuit.kept))
        biases = set(there.edges.places(there.edges.is_bias)) if kind != "zero" else set()
        kept = torch.tensor([place in places | biases for place in there.edges.places(there.everything())])
        assert row.task_loss == pytest.approx(
            measure(there.logits(kept, splits["report"]), splits["report"])["task_loss"]
        )


def test_prompts_that_were_never_corrupted_have_no_resample_ablation() -> None:
    examples = some_examples(20, seed=4)
    splits = dict.fromkeys(("discovery", "report"), examples._replace(corrupted=examples.tokens))
    engine = NaiveEngine.of(randomised(seed=3), "zero", splits)
    assert set(other_ablations(Subnetwork(engine, engine.everything()), splits)) == {"mean"}


def test_a_whole_model_has_nothing_to_put_back() -> None:
    problem, _ = attack_on()
    found = adversary(problem, problem.all_edges(), budget=2)
    assert (list(found.greedy), list(found.gradient)) == ([], [])
    circuit = problem.keeping(problem.all_edges())
    row = attacked(circuit, found, problem.discovery, circuit.whole.logits(problem.discovery), CRITERION)
    assert row.broken_by is None
    assert row == replace(row, greedy=row.gradient)
