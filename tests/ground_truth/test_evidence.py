"""The flags of the evidence where the circuit is known: planted unfaithful ones raise some, honest ones none."""

from __future__ import annotations

import pytest

from sparselit.circuits.claims import Evidence
from sparselit.circuits.evidence.adversary import adversary
from sparselit.circuits.evidence.collect import collect
from sparselit.circuits.search import GroupTesting
from sparselit.circuits.search.problem import Problem
from sparselit.data.behaviour import Behaviour

from .cases import Case
from .suite import CASES, NOT_MONOTONE, UNIQUE

#: Of four prompts and matrices with hardly a weight to spare, one of twenty random circuits is right by chance.
TINY = ("conjunction", "exclusive or")

#: Which holds under 20 of the other edges; larger budgets were not tried.
MANY = "compiled reverse"


def evidence_of(case: Case) -> Evidence:
    problem = Problem.of(case.model, case.domain, case.criterion)
    kept = GroupTesting().run(problem).kept
    words = [str(token) for token in range(case.model.unembed.out_features)]
    behaviour = Behaviour(dict.fromkeys(("discovery", "selection", "report"), case.domain), words)
    worst = adversary(problem, kept, budget=6)
    return collect(problem.keeping(kept).naive, behaviour, case.criterion, put_back=worst)


@pytest.mark.parametrize("name", [name for name in UNIQUE if name not in TINY])
def test_an_honest_circuit_raises_no_flag(name: str) -> None:
    assert evidence_of(CASES[name]()).flags == ()


@pytest.mark.parametrize("name", TINY)
def test_an_honest_circuit_of_a_tiny_model_may_be_found_by_chance_and_raises_no_other_flag(name: str) -> None:
    assert set(evidence_of(CASES[name]()).flags) <= {"random_circuits"}


@pytest.mark.parametrize("name", NOT_MONOTONE)
def test_a_circuit_that_leaves_out_parts_that_cancel_is_flagged(name: str) -> None:
    """All weights outside are harmless together, which is all that the criterion sees; half of them are not."""
    evidence = evidence_of(CASES[name]())
    assert evidence.held_out.accuracy == 1.0
    assert "random_halves" in evidence.flags
    assert ("adversary" in evidence.flags) == (name != MANY)
    assert evidence.faithfulness.random_halves.worst_accuracy < 1.0
