"""Every search and every ranking of the suite against the committed truth."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from sparselit.circuits.search import Found
from sparselit.circuits.search.problem import Problem

from .cases import Place
from .compiled_cases import FRACTIONS, Compiled, compiled_frac_prevs, compiled_reverse
from .ness import ABLATIONS, stored
from .suite import CASES, ENUMERATED, RANKINGS, SEARCHES, SEVERAL, UNIQUE, auroc
from .truth import Truth

#: By case and ablation, at the case's own tolerance.
NESS: dict[tuple[str, str], set[Place]] = {}
for row in reversed(stored()["ness"]):
    NESS[row["case"], row["ablation"]] = {(name, i, j) for name, i, j in row["ness"]}
#: Each search takes about half a minute; the ones that decide alone run always, the others with ``pytest -m slow``.
ALWAYS = ("group testing", "QuickXplain", "coarse to fine")
SEARCHED = [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHES]
MENDED = ("identity with a cancelling pair", "identity with two menders")


@cache
def searched(name: str, search: str, ablation: str = "zero") -> tuple[Truth, Found]:
    """The truth about a case, and the outcome of a search by the fast path."""
    truth = Truth((CASES | ENUMERATED)[name](), ablation)
    case = truth.case
    return truth, SEARCHES[search]().run(
        Problem.of(case.model, case.domain, case.criterion, truth.problem.ablation.kind)
    )


@pytest.mark.parametrize("search", SEARCHED)
@pytest.mark.parametrize("name", UNIQUE)
def test_precision_and_recall_are_one_where_the_answer_is_unique(name: str, search: str) -> None:
    truth, found = searched(name, search)
    assert found.complete
    assert truth.places(found.kept) == NESS[name, "zero"]


@pytest.mark.parametrize("search", SEARCHED)
@pytest.mark.parametrize("name", SEVERAL)
def test_one_of_several_circuits_holds_the_necessary_weights_and_no_distractor(name: str, search: str) -> None:
    truth, found = searched(name, search)
    assert NESS[name, "zero"] <= truth.places(found.kept) <= truth.case.wired


@pytest.mark.parametrize("search", SEARCHED)
@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", CASES)
def test_whatever_the_case_and_the_ablation_the_result_passes_and_is_minimal(
    name: str, ablation: str, search: str
) -> None:
    truth, found = searched(name, search, ablation)
    assert found.complete
    assert truth.is_minimal(found.kept)
    assert found.removals.keys() == truth.problem.removal_units(found.kept).keys()


@pytest.mark.parametrize("search", SEARCHED)
@pytest.mark.parametrize("name", MENDED)
def test_neither_the_harm_nor_what_mends_it_is_kept(name: str, search: str) -> None:
    truth, found = searched(name, search)
    assert truth.places(found.kept) == truth.case.wired


@pytest.mark.parametrize("search", SEARCHED)
@pytest.mark.parametrize("name", ENUMERATED)
def test_what_is_found_is_one_of_all_minimal_circuits(name: str, search: str) -> None:
    truth, found = searched(name, search)
    (row,) = (row for row in stored()["multiplicity"] if row["case"] == name)
    assert sorted(list(place) for place in truth.places(found.kept)) in row["circuits"]


def test_with_two_menders_a_pass_that_comes_to_them_first_keeps_nine_weights_of_which_five_are_enough() -> None:
    truth = Truth(CASES["identity with two menders"]())
    places = truth.problem.edges
    menders = [i for i in range(len(places)) if places.describe(i) in NESS["identity with two menders", "zero"]]
    menders = [i for i in menders if places.describe(i) not in truth.case.wired]
    kept = truth.everything
    for edge in [*menders, *(i for i in range(len(places)) if i not in menders)]:
        if truth.passes(truth.without(kept, edge)):
            kept = truth.without(kept, edge)
    assert len(menders) == 4
    assert int(kept.sum()) == 9
    assert not truth.is_minimal(kept)
    assert len(truth.case.wired) == 5
    assert truth.is_minimal(places.find(sorted(truth.case.wired)))


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("name", UNIQUE)
def test_rankings_put_the_necessary_weights_first(name: str, ranking: str) -> None:
    truth = Truth(UNIQUE[name]())
    necessary = truth.problem.edges.find(sorted(NESS[name, "zero"]))
    asked = RANKINGS[ranking]
    assert auroc(asked.rank(truth.problem), necessary) >= asked.exceptions.get(name, asked.floor)


def test_auroc_counts_pairs_in_the_right_order_and_ties_by_half() -> None:
    positive = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor([3.0, 2.0, 1.0, 0.0]), positive) == 1.0
    assert auroc(torch.tensor([0.0, 1.0, 2.0, 3.0]), positive) == 0.0
    assert auroc(torch.tensor([2.0, 1.0, 1.0, 0.0]), positive) == 0.875


# -- the compiled programs ---------------------------------------------------------------------------------------------


def test_the_compiled_reversal_gives_the_programs_output_for_every_prompt() -> None:
    case, program = compiled_reverse(), Compiled("reverse")
    with case.model.sites.recorded(["unembed.in"]) as records:
        logits = case.model(case.domain.tokens, case.domain.length - 1)
    assert torch.equal(logits.argmax(-1), case.domain.answer)
    outputs = [program.channels.index(f"reverse_1:{token}") for token in "ab"]
    expected = torch.stack([(case.domain.answer == program.tokens[token]).float() for token in "ab"], dim=1)
    assert torch.allclose(records["unembed.in"][:, 0, outputs], expected, atol=1e-4)


def test_the_compiled_share_of_x_is_exact_at_every_position_of_every_prompt() -> None:
    case, program = compiled_frac_prevs(), Compiled("frac_prevs")
    with case.model.sites.recorded(["unembed.in"]) as records:
        logits = case.model(case.domain.tokens).detach()
    (channel,) = (i for i, label in enumerate(program.channels) if label.startswith("frac_prevs"))
    outputs = records["unembed.in"][..., channel]
    for prompt, length, output in zip(
        case.domain.tokens.tolist(), case.domain.length.tolist(), outputs.tolist(), strict=True
    ):
        for last in range(1, length):
            share = prompt[1 : last + 1].count(program.tokens["x"]) / last
            assert output[last] == pytest.approx(share, abs=1e-4)
    at = case.domain.length - 1
    answers = logits[torch.arange(len(at)), at].argmax(-1) - len(program.tokens)
    assert answers.tolist() == (case.domain.answer - len(program.tokens)).tolist()
    assert set(answers.tolist()) == set(range(len(FRACTIONS)))
