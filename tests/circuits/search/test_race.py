"""``effort``: a race is never worse than its entrants, what it gives is certified, and it can be ended at any time."""

from __future__ import annotations

import pytest

from sparselit.circuits.search import Attribution, Auto, Found, without
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.race import race
from sparselit.errors import SparselitError
from tests.ground_truth.cases import Case
from tests.ground_truth.gate_cases import neither


def problem_of(case: Case, ablation: str = "zero") -> Problem:
    return Problem.of(case.model, case.domain, case.criterion, ablation)


def size(found: Found) -> int:
    return int(found.kept.sum())


def silent(stage: str, left: int) -> None:
    pass


def test_the_smallest_certified_circuit_wins_and_the_problem_goes_on_with_it() -> None:
    problem = problem_of(neither())
    first = Attribution("magnitude")  # comes to a larger circuit
    alone = first.run(problem_of(neither()))
    found = Found(problem.all_edges())
    race(problem, found, silent, first.shrink, seed=0)
    assert found.tried["first"] == size(alone) > size(found) == min(found.tried.values())
    assert found.complete
    assert problem.works(found.kept)
    units = problem.removal_units(found.kept)
    assert found.removals.keys() == units.keys()
    assert not any(problem.works(without(found.kept, unit)) for unit in units.values())


@pytest.mark.parametrize("at", ["first", "SoftMasks 1"])
def test_ctrl_c_gives_the_smallest_certified_circuit_so_far(at: str) -> None:
    def told(stage: str, left: int) -> None:
        if stage.startswith(at):
            raise KeyboardInterrupt

    problem = problem_of(neither())
    found = Auto("thorough", steps=30).run(problem, progress=told)
    assert problem.works(found.kept)
    assert found.complete == (at != "first")
    assert size(found) <= min(found.tried.values(), default=len(problem.edges))


def test_quick_leaves_the_coarse_stage_out_and_another_effort_is_refused() -> None:
    stages: dict[str, set[str]] = {}
    for effort in ("quick", "normal"):
        told: set[str] = set()
        found = Auto(effort, steps=30).run(problem_of(neither()), progress=lambda stage, left, to=told: to.add(stage))
        assert found.complete
        stages[effort] = told
    assert stages["normal"] - stages["quick"] == {"group testing"}
    with pytest.raises(SparselitError, match="effort"):
        Auto("hard")  # type: ignore[arg-type]
