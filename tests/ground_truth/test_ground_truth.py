"""Circuits whose answer is proven: computed from the whole input domain, by the naive masked forward pass.

``Ness`` is the set of weights whose removal alone breaks the criterion. Where ``Ness`` alone meets the criterion it is
the unique minimal circuit, and the search must find exactly that, whatever the order in which it tries the edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparselit.circuits import Behaviour, discover
from sparselit.circuits.criterion import measure
from sparselit.circuits.search import Found, GroupTesting
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranking import integrated_gradients

from .cases import (
    Case,
    conjunction,
    copy_last,
    copy_offset,
    identity_with_cancelling_pair,
    match_quotes,
)
from .truth import Truth, members

UNIQUE: dict[str, Callable[..., Case]] = {
    "copy the last token": copy_last,
    "copy at an offset": copy_offset,
    "match quotes": match_quotes,
    "conjunction": conjunction,
}


class Ordered(GroupTesting):
    """Group testing that tries the edges in an order of our own."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order

    def rank(self, problem: Problem) -> Tensor:
        n = len(problem.edges)
        if self.order.startswith("random"):
            return torch.rand(n, generator=torch.Generator().manual_seed(int(self.order.split()[1])))
        listed = torch.arange(n, dtype=torch.float)
        return {
            "forward": lambda: listed,
            "backward": lambda: -listed,
            "gradients": lambda: integrated_gradients(problem),
            "gradients, upside down": lambda: -integrated_gradients(problem),
        }[self.order]()


ORDERS = ["gradients", "gradients, upside down", "forward", "backward", *(f"random {seed}" for seed in range(4))]


def searched(case: Case, order: str, kind: Any = "zero") -> Found:
    return Ordered(order).run(Problem.of(case.model, case.domain, case.criterion, kind))


# -- one minimal circuit -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(name, seed) for name in UNIQUE for seed in (0, 1)], ids=str)
def unique(request: pytest.FixtureRequest) -> tuple[Truth, Tensor]:
    """A case with its Ness."""
    name, seed = request.param
    truth = Truth(UNIQUE[name](seed))
    return truth, truth.ness()


def test_the_necessary_weights_alone_meet_the_criterion_so_they_are_the_unique_minimal_circuit(
    unique: tuple[Truth, Tensor],
) -> None:
    truth, ness = unique
    assert truth.passes(truth.everything)
    assert truth.passes(ness)
    assert truth.is_minimal(ness)
    assert 4 < int(ness.sum()) < len(ness)
    # The criterion is not monotone in general. Sets that lack something necessary fail here nevertheless:
    generator = torch.Generator().manual_seed(0)
    for i in members(ness):
        for share in (0.2, 0.9):
            rest = truth.everything & ((torch.rand(len(ness), generator=generator) < share) | ness)
            assert not truth.passes(truth.without(rest, i))


def test_it_is_the_wiring_and_no_distractor(unique: tuple[Truth, Tensor]) -> None:
    truth, ness = unique
    assert truth.places(ness) == set(truth.case.wired)


@pytest.mark.parametrize("order", ORDERS)
def test_group_testing_finds_exactly_it_in_every_order(unique: tuple[Truth, Tensor], order: str) -> None:
    truth, ness = unique
    found = searched(truth.case, order)
    assert found.complete
    assert truth.places(found.kept) == truth.places(ness)


def test_its_certificate_is_the_damage_of_each_removal_by_the_naive_path(unique: tuple[Truth, Tensor]) -> None:
    truth, ness = unique
    found = searched(truth.case, "gradients")
    edges = {name: int(unit) for name, unit in truth.problem.removal_units(ness).items()}
    assert found.removals.keys() == edges.keys()
    for name, values in found.removals.items():
        edge = edges[name]
        logits = truth.problem.naive_logits(truth.without(ness, edge), truth.case.domain)
        expected = measure(logits, truth.case.domain)
        assert values == pytest.approx({metric: expected[metric] for metric in values}, abs=1e-5)


def test_discovery_documents_exactly_it(unique: tuple[Truth, Tensor]) -> None:
    truth, ness = unique
    words = [str(token) for token in range(truth.case.model.unembed.out_features)]
    behaviour = Behaviour(dict.fromkeys(("discovery", "selection", "report"), truth.case.domain), words)
    circuit = discover(truth.case.model, behaviour, truth.case.criterion, "zero")
    assert set(circuit.places) == truth.places(ness)
    assert circuit.certificate.complete
    assert circuit.evidence.necessity.still_necessary == circuit.size.edges
    assert circuit.evidence.held_out.accuracy == 1.0
    assert circuit.evidence.nulls.random_circuits.meet_criterion < 5  # of 20; some luck in models this small
    # These models have neither gains nor sinks, so the free parameters are the biases.
    assert circuit.size.free == len(circuit.biases)


@pytest.mark.parametrize("order", ORDERS[:5])
@pytest.mark.parametrize("name", UNIQUE)
def test_under_mean_ablation_the_result_passes_and_is_minimal(name: str, order: str) -> None:
    case = UNIQUE[name]()
    truth, found = Truth(case, "mean"), searched(case, order, "mean")
    assert found.complete
    assert truth.is_minimal(found.kept)


@pytest.mark.parametrize("name", ["copy the last token", "conjunction"])
def test_the_answer_depends_on_the_ablation(name: str) -> None:
    """Under mean ablation a removed weight still contributes a constant, so that other weights are necessary."""
    zero, mean = (Truth(UNIQUE[name](), kind) for kind in ("zero", "mean"))
    assert zero.places(zero.ness()) != mean.places(mean.ness())


def test_of_all_sets_of_edges_of_the_conjunction_one_is_minimal() -> None:
    truth = Truth(conjunction(quiet=0))
    (only,) = truth.minimal_circuits()
    assert sorted(only) == members(truth.ness())


# -- two minimal circuits ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def duplicated() -> tuple[Truth, list[frozenset[int]]]:
    """A conjunction whose outcome is carried twice, and all its minimal circuits."""
    truth = Truth(conjunction(quiet=0, paths=2))
    return truth, truth.minimal_circuits()


def test_a_duplicated_path_has_two_minimal_circuits_and_what_they_share_is_not_enough(
    duplicated: tuple[Truth, list[frozenset[int]]],
) -> None:
    truth, (one, other) = duplicated
    ness = truth.ness()
    assert one & other == set(members(ness))
    assert len(one - other) == len(other - one) == 2
    assert not truth.passes(ness)


def test_of_a_duplicated_path_one_minimal_circuit_is_found_in_every_order(
    duplicated: tuple[Truth, list[frozenset[int]]],
) -> None:
    truth, circuits = duplicated
    ness, reached = truth.ness(), set()
    for order in ORDERS:
        found = searched(truth.case, order)
        assert found.complete
        assert truth.is_minimal(found.kept)
        assert not (ness & ~found.kept).any()
        assert truth.places(found.kept) <= truth.case.wired
        reached.add(frozenset(members(found.kept)))
    assert reached == set(circuits)


# -- a criterion that is not monotone ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cancelling() -> Truth:
    return Truth(identity_with_cancelling_pair())


def test_a_cancelling_pair_makes_weights_necessary_that_no_circuit_needs(cancelling: Truth) -> None:
    ness = cancelling.ness()
    identity = cancelling.problem.edges.find(sorted(cancelling.case.wired))
    extra = ness & ~identity
    assert int(extra.sum()) == 2
    assert cancelling.passes(ness)
    assert not cancelling.is_minimal(ness)
    assert cancelling.is_minimal(identity)


class OnePass(GroupTesting):
    """Group testing without the certificate, the mending neuron's edges first."""

    def __init__(self, first: Tensor) -> None:
        super().__init__()
        self.first = first

    def rank(self, problem: Problem) -> Tensor:
        return torch.where(self.first, -1.0, 1.0)


def test_one_greedy_pass_stops_early_and_the_fixpoint_is_minimal(cancelling: Truth) -> None:
    identity = cancelling.problem.edges.find(sorted(cancelling.case.wired))
    search = OnePass(cancelling.ness() & ~identity)
    case = cancelling.case
    one_pass = Found(cancelling.everything.clone())
    search.shrink(Problem.of(case.model, case.domain, case.criterion), one_pass, lambda stage, edges: None)
    assert cancelling.passes(one_pass.kept)
    assert not cancelling.is_minimal(one_pass.kept)
    assert int(one_pass.kept.sum()) == int(identity.sum()) + 2
    found = search.run(Problem.of(case.model, case.domain, case.criterion))
    assert found.complete
    assert cancelling.is_minimal(found.kept)
    assert torch.equal(found.kept, identity)


@pytest.mark.parametrize("order", ORDERS)
def test_with_a_cancelling_pair_every_order_ends_in_a_minimal_circuit(cancelling: Truth, order: str) -> None:
    found = searched(cancelling.case, order)
    assert found.complete
    assert cancelling.is_minimal(found.kept)
    assert cancelling.places(found.kept) == set(cancelling.case.wired)
