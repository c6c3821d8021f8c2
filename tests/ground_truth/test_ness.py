"""The committed table of necessary weights is what the naive path computes, and says what the suite takes it to say."""

from __future__ import annotations

from typing import Any

import pytest

from .ness import ABLATIONS, FILE, TOLERANCES, entries, multiplicity, stored, written
from .suite import CASES, ENUMERATED, NOT_MONOTONE, SEVERAL, UNIQUE
from .truth import Truth, members

TABLE = stored()


def of(case: str, ablation: str = "zero") -> list[dict[str, Any]]:
    """The entries of a case, the tightest tolerance first."""
    return [row for row in TABLE["ness"] if (row["case"], row["ablation"]) == (case, ablation)]


def test_the_file_is_what_the_command_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == written(TABLE)
    assert len(TABLE["ness"]) == len(CASES) * len(ABLATIONS) * len(TOLERANCES)


@pytest.mark.parametrize("name", CASES)
def test_every_entry_is_what_the_naive_path_computes_over_the_whole_domain(name: str) -> None:
    assert entries(name) == [row for row in TABLE["ness"] if row["case"] == name]


@pytest.mark.parametrize("name", ENUMERATED)
def test_the_number_of_minimal_circuits_is_that_of_the_enumeration_of_all_sets(name: str) -> None:
    assert [multiplicity(name)] == [row for row in TABLE["multiplicity"] if row["case"] == name]


@pytest.mark.parametrize("name", ["neither", "conjunction, bare"])
def test_the_enumeration_in_batches_agrees_with_the_naive_path(name: str) -> None:
    truth = Truth(ENUMERATED[name]())
    for circuit in truth.minimal_circuits():
        kept = truth.problem.edges.find([truth.problem.edges.describe(i) for i in circuit])
        assert truth.is_minimal(kept)
        assert set(members(kept)) == circuit


def test_two_cases_have_two_minimal_circuits_and_two_have_one() -> None:
    found = {row["case"]: [len(circuit) for circuit in row["circuits"]] for row in TABLE["multiplicity"]}
    assert found == {
        "duplicated path": [8, 8],
        "neither": [6, 8],
        "conjunction, bare": [8],
        "exclusive or, bare": [10],
    }


@pytest.mark.parametrize("name", UNIQUE)
def test_where_the_answer_is_unique_the_necessary_weights_are_a_minimal_circuit(name: str) -> None:
    assert of(name)[0]["passes_alone"]
    assert of(name)[0]["is_minimal"]


@pytest.mark.parametrize("name", SEVERAL)
def test_where_there_are_several_the_necessary_weights_are_not_enough(name: str) -> None:
    assert not of(name)[0]["passes_alone"]


@pytest.mark.parametrize("name", NOT_MONOTONE)
def test_where_the_criterion_is_not_monotone_some_of_the_necessary_weights_can_go(name: str) -> None:
    assert of(name)[0]["passes_alone"]
    assert not of(name)[0]["is_minimal"]


def test_the_answer_depends_on_the_tolerance_and_on_the_ablation() -> None:
    tight, loose = of("induction")
    assert len(tight["ness"]) == 34
    assert len(loose["ness"]) == 29
    assert all(place in tight["ness"] for place in loose["ness"])
    for name in UNIQUE:
        zero, mean = of(name)[0], of(name, "mean")[0]
        assert len(mean["ness"]) < len(zero["ness"])
