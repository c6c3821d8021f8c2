"""Nulls that need a search: their targets, the start where the whole model fails, and what can be recomputed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparselit.circuits import Behaviour, Bound, Problem, discover, verify, write_circuit
from sparselit.circuits.claims import Evidence, KeptPlace
from sparselit.circuits.criterion import measure
from sparselit.circuits.evidence.collect import collect
from sparselit.circuits.evidence.null_searches import searched_nulls, working_set
from sparselit.circuits.evidence.null_targets import (
    NAMES,
    constant_target,
    nonsense_target,
    null_bounds,
    recomputed,
    relabelled,
    swapped_target,
)
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.search import GroupTesting
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from tests.circuits.models import randomised, some_behaviour, some_examples
from tests.circuits.records import some_searched_null
from tests.ground_truth.cases import Case, copy_last, identity_with_cancelling_pair

CRITERION = [Bound("accuracy", at_least=0.75)]


def test_the_targets_are_fixed_by_the_prompt_and_none_of_them_is_the_task() -> None:
    examples = some_examples(60)._replace(answer=torch.arange(60) % 2, wrong=1 - torch.arange(60) % 2)
    constant, nonsense, swapped = (make(examples) for make in (constant_target, nonsense_target, swapped_target))
    assert set(constant.answer.tolist()) == {2}
    assert set(nonsense.answer.tolist()) == {0, 1}
    assert torch.equal(nonsense.answer + nonsense.wrong, torch.ones(60, dtype=torch.long))
    assert 15 < int((nonsense.answer == examples.answer).sum()) < 45
    assert torch.equal(swapped.answer, examples.wrong)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    again = nonsense_target(examples.select(order)._replace(tokens=examples.tokens[order].roll(0)))
    assert torch.equal(again.answer, nonsense.answer[order])
    padded = torch.cat([examples.tokens, torch.ones(60, 2, dtype=torch.long)], 1)
    assert torch.equal(nonsense_target(examples._replace(tokens=padded)).answer, nonsense.answer)


def test_a_criterion_without_a_loss_is_replaced_by_the_loss_that_the_circuit_reaches() -> None:
    assert null_bounds([Bound("task_loss", at_most=0.1), *CRITERION], 0.05) == [Bound("task_loss", at_most=0.1)]
    assert null_bounds(CRITERION, 0.25) == [Bound("task_loss", at_most=0.25)]


def test_a_faithful_circuit_of_a_null_would_give_the_model_with_two_logits_exchanged() -> None:
    model, examples = randomised(), some_examples(12)
    logits = model(examples.tokens, examples.length - 1).detach()
    swapped = relabelled(model, examples, swapped_target(examples))
    rows = torch.arange(12)
    assert torch.equal(swapped[rows, examples.wrong], logits[rows, examples.answer])
    assert torch.equal(swapped[rows, examples.answer], logits[rows, examples.wrong])
    rest = torch.ones_like(logits, dtype=torch.bool)
    rest[rows, examples.answer] = rest[rows, examples.wrong] = False
    assert torch.equal(swapped[rest], logits[rest])
    assert torch.equal(relabelled(model, examples, examples), logits)


def test_a_divergence_is_a_bound_of_the_nulls_too_and_can_be_met() -> None:
    """A model that answers nearly as well with two tokens exchanged is near the model relabelled."""
    case = copy_last()
    with torch.no_grad():
        case.model.get_parameter("unembed.weight").mul_(0.01)
    bounds = [Bound("kl", at_most=0.01)]
    assert null_bounds([*bounds, Bound("accuracy", at_least=0.5)], 0.1) == bounds
    problem = Problem.of(case.model, case.domain, bounds)
    found = searched_nulls(problem, problem.all_edges(), GroupTesting())["swapped_target"]
    assert found.edges is not None
    assert 0 < found.reached["kl"] <= 0.01
    again = recomputed({"swapped_target": found}, bounds, NaiveEngine.of(case.model), case.domain)
    assert again["swapped_target"] == replace(found, reached={"kl": pytest.approx(found.reached["kl"], abs=1e-5)})
    with torch.no_grad():
        case.model.get_parameter("unembed.weight").mul_(100)
    problem = Problem.of(case.model, case.domain, bounds)
    found = searched_nulls(problem, problem.all_edges(), GroupTesting())["swapped_target"]
    assert found.edges is None
    assert found.reached["kl"] > 0.01


def spoiled() -> Case:
    """Copying the last token, a neuron that spoils it and none that mends it: the full model fails, parts do not."""
    case = identity_with_cancelling_pair()
    with torch.no_grad():
        case.model.get_parameter("layers.0.mlp.up.weight")[0, 0] = 0
    return case


def test_a_working_set_is_found_where_the_whole_model_fails() -> None:
    case = spoiled()
    problem = Problem.of(case.model, case.domain, [Bound("task_loss", at_most=0.1)])
    assert not problem.works(problem.all_edges())
    found, values = working_set(problem)
    assert found is not None
    assert values["task_loss"] == pytest.approx(
        measure(problem.naive_logits(found, case.domain), case.domain)["task_loss"], abs=1e-5
    )
    assert values["task_loss"] <= 0.1


def test_where_nothing_works_the_best_loss_is_told() -> None:
    """Two equal prompts with different answers: no loss below log 2."""
    examples = some_examples(8)
    same = examples._replace(
        tokens=examples.tokens[:1].expand(8, -1).contiguous(),
        length=examples.length[:1].expand(8).contiguous(),
        answer=torch.arange(8) % 2,
    )
    problem = Problem.of(randomised(), same, [Bound("task_loss", at_most=0.5)])
    found, values = working_set(problem)
    assert found is None
    assert 0.69 <= values["task_loss"] < 1.2 < problem.values(problem.all_edges())["task_loss"]


def test_each_null_has_its_edges_and_they_can_be_run_again() -> None:
    case = copy_last()
    problem = Problem.of(case.model, case.domain, case.criterion)
    kept = GroupTesting().run(problem).kept
    found = searched_nulls(problem, kept, GroupTesting())
    assert set(found) <= set(NAMES)
    assert "constant_target" not in found  # every token is an answer
    bounds = [Bound("task_loss", at_most=0.1)]
    again = recomputed(found, bounds, NaiveEngine.of(case.model), case.domain)
    for name, row in found.items():
        loss = pytest.approx(row.reached["task_loss"], abs=1e-5)
        assert again[name] == replace(row, reached={"task_loss": loss})
    swapped = found["swapped_target"]
    assert swapped.edges is None
    assert swapped.reached["task_loss"] > 0.1


def test_a_claim_whose_edges_do_not_reach_the_loss_is_recomputed_to_none() -> None:
    case = copy_last()
    row = some_searched_null(edges=1, places=(KeptPlace("embed.token.weight", 0, 0),), reached={"task_loss": 0.01})
    bounds = [Bound("task_loss", at_most=0.1)]
    for places in (row.places, (KeptPlace("embed.token.weight", 99, 0),), (KeptPlace("nowhere", 0, 0),)):
        claimed = {"swapped_target": replace(row, places=places)}
        again = recomputed(claimed, bounds, NaiveEngine.of(case.model), case.domain)
        assert again["swapped_target"].edges is None
        assert again["swapped_target"].reached["task_loss"] > 0.1
    with pytest.raises(SparselitError, match="no null is called 'other'"):
        recomputed({"other": row}, bounds, NaiveEngine.of(case.model), case.domain)


def evidence_of_what_works(model: Transformer, domain: Examples, criterion: list[Bound]) -> Evidence:
    problem = Problem.of(model, domain, criterion)
    start, _ = working_set(problem)
    assert start is not None
    kept = GroupTesting().run(problem, start).kept
    behaviour = Behaviour(dict.fromkeys(("discovery", "selection", "report"), domain), list("abcde"))
    return collect(problem.keeping(kept).naive, behaviour, criterion)


def test_a_circuit_for_what_the_model_does_not_do_is_flagged() -> None:
    case = spoiled()
    evidence = evidence_of_what_works(case.model, case.domain, list(case.criterion))
    assert evidence.held_out.accuracy == 1.0
    assert {"full_model", "random_halves", "relaxation"} <= set(evidence.flags)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_circuit_of_a_nonsense_target_is_flagged_inside_too(seed: int) -> None:
    """Random weights, and answers by a hash of the prompt: a search finds a circuit, every look inside denies it."""
    model = randomised(seed, n_layers=2, d_model=16, d_mlp=32, norm="none")
    domain = nonsense_target(some_examples(8, seed)._replace(answer=torch.arange(8) % 2))
    evidence = evidence_of_what_works(model, domain, [Bound("task_loss", at_most=0.3)])
    assert evidence.held_out.task_loss <= 0.3
    assert {"full_model", "random_halves", "relaxation", "interchange_into_full"} <= set(evidence.flags)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return randomised(seed=4, density=0.5, sink=True, unembed_bias=False)


def test_full_evidence_is_written_and_verified_and_a_false_size_is_named(tmp_path: Path, model: Transformer) -> None:
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, CRITERION, search=GroupTesting(), evidence="full", ablation="zero")
    searched = circuit.evidence.nulls.searched
    assert set(searched) <= set(NAMES)
    assert any(row.edges is not None for row in searched.values())
    path = tmp_path / "c.json"
    write_circuit(path, circuit, model, behaviour)
    assert not [name for name in verify(path)["false_claims"] if name.startswith("evidence")]
    adversary = circuit.evidence.adversary
    better = replace(adversary, greedy=replace(adversary.greedy, kl=adversary.greedy.kl / 2 + 0.1))
    write_circuit(path, replace(circuit, evidence=replace(circuit.evidence, adversary=better)), model, behaviour)
    assert "evidence.adversary.greedy.kl" in verify(path)["false_claims"]
    name, row = next((name, row) for name, row in searched.items() if row.edges is not None)
    nulls = replace(circuit.evidence.nulls, searched={**searched, name: replace(row, edges=row.edges + 1)})
    write_circuit(path, replace(circuit, evidence=replace(circuit.evidence, nulls=nulls)), model, behaviour)
    assert any(name.endswith(".edges") for name in verify(path)["false_claims"])


def test_an_unknown_depth_of_evidence_is_refused(model: Transformer) -> None:
    with pytest.raises(SparselitError, match="evidence must be one of quick, full, got 'some'"):
        discover(model, some_behaviour(model), CRITERION, evidence="some", ablation="zero")  # type: ignore[arg-type]
