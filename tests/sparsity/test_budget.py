"""Plans: which parameters are sparsified, and how many of their entries stay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule, plan, top_k_mask
from sparselit.sparsity.budget import entries, smallest_density


class Net(nn.Module):
    always_dense = ("table*",)

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv1d(4, 6, 3)
        self.table = nn.Linear(5, 5)
        self.out = nn.Linear(4, 10)
        self.out.weight = self.embed.weight


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.table = nn.Linear(3, 3, bias=False)
        self.count = nn.Parameter(torch.zeros(2, 2, dtype=torch.int64), requires_grad=False)


def names(*rules: Rule, density: float = 0.5) -> list[str]:
    return [budget.name for budget in plan(Outer(), Schedule.constant(density), rules)]


def test_by_default_matrices_are_sparsified_once_and_vectors_stay_dense():
    # `out.weight` is tied to `embed.weight`; `net.table` is kept dense by Net, the outer `table` is not
    assert names() == ["net.embed.weight", "net.conv.weight", "table.weight"]


def test_the_first_matching_rule_wins():
    rules = Rule("*.conv.*", density=None), Rule("net.*", density=0.25)
    budgets = {b.name: b for b in plan(Outer(), Schedule.constant(0.5), rules)}
    assert list(budgets) == [
        "net.embed.weight",
        "net.norm.weight",
        "net.norm.bias",
        "net.table.weight",
        "net.table.bias",
        "net.out.bias",
        "table.weight",
    ]
    assert budgets["net.norm.bias"].k(0, -1) == 1
    assert budgets["net.embed.weight"].k(0, -1) == 10
    assert budgets["table.weight"].k(0, -1) == 5  # 4.5 rounds up


def test_a_shared_parameter_can_be_named_by_any_of_its_names():
    assert "net.embed.weight" not in names(Rule("net.out.weight", density=None))


def test_a_rule_without_a_density_adds_a_floor_and_nothing_else():
    budgets = plan(Outer(), Schedule.constant(0.5), [Rule("net.*", floor=2)])
    assert [(b.name, b.floor) for b in budgets] == [
        ("net.embed.weight", 2),
        ("net.conv.weight", 2),
        ("table.weight", 0),
    ]


def test_a_number_in_a_rule_is_reached_on_the_schedule_of_the_callback():
    schedule = Schedule(to=0.1, begin=10, end=20)
    budget = plan(Outer(), schedule, [Rule("*.conv.*", density=0.5)])[1]
    assert [budget.density.at(s, -1) for s in (0, 15, 20)] == pytest.approx([1, 0.75, 0.5])


def test_a_pattern_that_matches_nothing_is_named_with_the_closest_parameter():
    with pytest.raises(SparselitError, match=r"'\*\.convv\.\*' matches no parameter; did you mean 'net\.conv\.weight'"):
        names(Rule("*.convv.*", density=None))
    with pytest.raises(SparselitError, match=r"'xyzzy\*' matches no parameter; there are count, net\.embed\.weight"):
        names(Rule("xyzzy*", density=None))


def test_a_plan_without_tensors_is_refused():
    with pytest.raises(SparselitError, match="no parameter of Outer is left"):
        names(Rule("*", density=None))


def test_lazy_parameters_are_refused_by_name():
    with pytest.raises(SparselitError, match="weight has no shape yet"):
        plan(nn.LazyLinear(3), Schedule.constant(0.5))


@pytest.mark.parametrize("schedule", [Schedule.constant(0.1), Schedule(to=0.1, begin=3, end=9)])
def test_a_floor_that_cannot_fit_names_tensor_floor_and_smallest_density(schedule):
    with pytest.raises(
        SparselitError, match=r"net\.conv\.weight: a floor of 3 per row .* density 0\.1; .* 0\.2431"
    ) as e:
        plan(Outer(), schedule, [Rule("*.conv.weight", floor=3)])
    smallest = float(str(e.value).split()[-1])
    plan(Outer(), Schedule.constant(smallest), [Rule("*.conv.weight", floor=3), Rule("*", density=0.9)])
    with pytest.raises(SparselitError):
        plan(Outer(), Schedule.constant(smallest - 1e-3), [Rule("*.conv.weight", floor=3)])


def test_a_floor_larger_than_a_row_fits_at_no_density():
    with pytest.raises(SparselitError, match=r"net\.conv\.weight: .* fits at no density: a row has 12"):
        names(Rule("*.conv.weight", floor=13))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 2.0}, r"'a\*': density must lie in \(0, 1\], got 2\.0"),
        ({"density": 0}, "got 0"),
        ({"floor": -1}, "floor must be at least 0, got -1"),
        ({"per": "cell"}, "per must be row, column or both, got 'cell'"),
        ({"density": None, "floor": 2}, "no meaning for dense"),
    ],
)
def test_rules_out_of_range_are_refused(values, message):
    with pytest.raises(SparselitError, match=message):
        Rule("a*", **values)


@given(st.integers(1, 10**7), st.floats(1e-6, 1.0))
def test_the_budget_is_the_density_rounded_half_up_and_never_empty(numel, density):
    k = entries(density, numel)
    assert 1 <= k <= numel
    assert k == 1 or abs(k - density * numel) <= 0.5


@given(st.integers(1, 10**6), st.data())
def test_the_smallest_density_fits_and_a_smaller_one_of_its_digits_does_not(numel, data):
    k = data.draw(st.integers(2, numel)) if numel > 1 else 1
    density = smallest_density(k, numel)
    assert 0 < density <= 1
    assert entries(density, numel) >= k
    unit = 10.0 ** (math.floor(math.log10(density)) - 3)
    assert numel == 1 or entries(density - 1.001 * unit, numel) < k


def test_the_budget_of_a_plan_is_what_the_projection_keeps():
    net = Outer()
    for budget in plan(net, Schedule.constant(0.3)):
        mask = top_k_mask(net.get_parameter(budget.name), budget.k(0, -1), floor=budget.floor, per=budget.per)
        assert mask.sum() == math.floor(0.3 * mask.numel() + 0.5)
