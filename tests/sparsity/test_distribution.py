"""How a budget is divided: Erdős–Rényi proportions, exact sums, and growth that never takes an entry away."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule, Shares, plan

shapes = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5).map(tuple)


@given(st.sampled_from(["er", "erk"]), shapes, st.data())
@settings(deadline=None)
def test_the_counts_sum_exactly_to_the_budget_and_fit_the_tensors(kind, shapes, data):
    shares = Shares(kind, shapes)
    k = data.draw(st.integers(0, shares.numel))
    counts = shares.counts(k)
    assert sum(counts) == max(k, len(shapes))
    assert all(1 <= count <= size for count, size in zip(counts, shares.sizes, strict=True))


@given(st.sampled_from(["er", "erk"]), shapes)
@settings(max_examples=30, deadline=None)
def test_no_tensor_loses_an_entry_when_the_budget_grows(kind, shapes):
    shares = Shares(kind, shapes)
    counts = [shares.counts(k) for k in range(shares.numel + 1)]
    for before, after in itertools.pairwise(counts):
        assert all(a <= b for a, b in zip(before, after, strict=True))


def test_densities_are_in_the_proportions_of_the_papers():
    matrices = ((30, 50), (100, 200), (40, 40))
    counts = Shares("er", matrices).counts(1000)
    scale = 1000 / sum(a + b for a, b in matrices)
    assert counts == pytest.approx([scale * (a + b) for a, b in matrices], abs=1)
    kernel, matrix = (16, 8, 3, 3), (40, 40)
    ratio = {kind: Shares(kind, (kernel, matrix)).counts(500) for kind in ("er", "erk")}
    assert ratio["erk"][0] / ratio["erk"][1] == pytest.approx((16 + 8 + 3 + 3) / (40 + 40), abs=0.02)
    assert ratio["er"][0] / ratio["er"][1] == pytest.approx((16 + 8) * 9 / (40 + 40), abs=0.02)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(40, 10), nn.Linear(10, 80), nn.Linear(80, 4)


@pytest.mark.parametrize("kind", ["er", "erk"])
def test_the_total_is_that_of_the_density_at_every_step_of_a_schedule(kind):
    budgets = plan(Net(), Schedule(to=0.02), distribution=kind)
    numel = sum(budget.numel for budget in budgets)
    for step in range(0, 51, 5):
        density = budgets[0].density.at(step, 50)
        assert sum(budget.k(step, 50) for budget in budgets) == math.floor(density * numel + 0.5)
    assert budgets[2].k(50, 50) / budgets[2].numel > budgets[1].k(50, 50) / budgets[1].numel


def test_a_rule_has_a_distribution_of_its_own():
    rules = [Rule("[ab].weight", distribution="erk"), Rule("c.*", density=0.5, distribution="erk")]
    budgets = {budget.name: budget for budget in plan(Net(), Schedule.constant(0.1), rules)}
    assert budgets["a.weight"].k(0, -1) + budgets["b.weight"].k(0, -1) == 120
    assert budgets["c.weight"].k(0, -1) + budgets["c.bias"].k(0, -1) == 162
    with pytest.raises(SparselitError, match=r"rules: 'a\*': distribution must be uniform, er or erk, got 'best'"):
        Rule("a*", distribution="best")  # type: ignore[arg-type]


def test_a_floor_that_cannot_fit_names_the_smallest_density_of_the_shared_budget():
    rules = [Rule("b.weight", floor=2)]
    with pytest.raises(SparselitError, match=r"b\.weight: a floor of 2 per row .* fits is (\S+)") as error:
        plan(Net(), Schedule.constant(0.01), rules, "er")
    smallest = float(str(error.value).split()[-1])
    plan(Net(), Schedule.constant(smallest), rules, "er")
    with pytest.raises(SparselitError):
        plan(Net(), Schedule.constant(smallest - 1e-3), rules, "er")
