"""Repairs on models whose fault is known: few weights, held-out errors, nothing else changed, and no score before."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sparselit.circuits import load
from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.repair import Provenance, applied
from sparselit.circuits.use.repair.baselines import _least_norm
from sparselit.circuits.use.repair.objective import Entries, Objective, joined
from sparselit.circuits.use.repair.repair import MAKERS, Errors, edit_of, errors_of, repaired
from sparselit.cli.commands.repair import METHODS
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from tests.circuits.models import randomised
from tests.cli.test_show_verify import NAME, with_circuit


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(with_circuit(tmp_path_factory.mktemp("repaired")) / NAME)


@pytest.fixture(scope="module")
def faulty(circuit: Loaded) -> Transformer:
    """The double quote's way is cut: its answer is lost."""
    other = copy.deepcopy(circuit.model)
    with torch.no_grad():
        other.get_parameter("layers.0.attn.o.weight")[3, 5] = 0.0
    return other


@pytest.fixture(scope="module")
def errors(circuit: Loaded, faulty: Transformer) -> Errors:
    splits = circuit.behaviour.splits
    return errors_of(faulty, joined([splits["discovery"], splits["selection"]]), splits["discovery"])


def test_the_smallest_repair_mends_the_held_out_errors_with_one_weight(
    circuit: Loaded, faulty: Transformer, errors: Errors
) -> None:
    other = repaired(faulty, circuit, errors, "smallest", 3)
    edit = edit_of(faulty, other, circuit, errors, {}, Provenance(maker="smallest"))
    scores = edit.scores
    assert len(edit.deltas) == scores["weights"] == 1
    assert scores["efficacy"]["held_out"]["share"] == 1
    assert scores["efficacy"]["before"]["share"] == 0  # only errors are counted: nothing is right beforehand
    assert scores["specificity"]["report"]["before"]["accuracy"] < 0.6
    assert scores["specificity"]["report"]["after"]["accuracy"] == 1
    back = applied(other, edit.undone)
    assert all(torch.equal(one, two) for one, two in zip(back.parameters(), faulty.parameters(), strict=True))


@pytest.mark.parametrize("maker", METHODS)
def test_every_way_keeps_its_limits_and_leaves_the_model_as_it_was(
    circuit: Loaded, faulty: Transformer, errors: Errors, maker: str
) -> None:
    before = [parameter.clone() for parameter in faulty.parameters()]
    other = repaired(faulty, circuit, errors, maker, 2)
    assert all(torch.equal(one, two) for one, two in zip(before, faulty.parameters(), strict=True))
    edit = edit_of(faulty, other, circuit, errors, {}, Provenance(maker=maker))
    places = {delta.place for delta in edit.deltas}
    if maker in ("smallest", "random"):
        assert len(places) <= 2
    if maker in ("smallest", "readout", "circuit"):
        assert places <= set(circuit.circuit.places)
    if maker == "readout":
        assert {name for name, _, _ in places} <= {"unembed.weight", "unembed.bias"}
    if maker == "rome":
        assert {name for name, _, _ in places} == {"layers.0.mlp.down.weight"}
    if maker in ("smallest", "circuit", "finetune", "rome"):
        assert edit.scores["efficacy"]["fitted"]["share"] == 1
    assert set(METHODS) == set(MAKERS)


def test_a_repair_that_breaks_right_answers_has_not_reached_its_end(circuit: Loaded, errors: Errors) -> None:
    objective = Objective(circuit.model, errors.cases)  # of the whole model: nothing is wrong
    assert objective.repaired({}) == 1
    assert objective.reached({})
    unembed = circuit.model.unembed.weight.detach().clone()
    unembed[errors.cases.right.answer.unique()] = 0
    assert not objective.reached({"unembed.weight": unembed})


def test_errors_are_divided_once_and_only_errors_are_among_them(faulty: Transformer, errors: Errors) -> None:
    wrong, held = errors.cases.wrong, errors.held_out
    assert len(wrong.answer) + len(held.answer) == errors.wrong
    for part in (wrong, held):
        assert bool((faulty(part.tokens, part.length - 1).argmax(-1) != part.answer).all())
    both = joined([wrong, held])
    assert both.different == len(both.answer)


def test_a_model_without_errors_has_nothing_to_repair(circuit: Loaded) -> None:
    splits = circuit.behaviour.splits
    with pytest.raises(SparselitError, match="nothing to repair: only 0 of"):
        errors_of(circuit.model, splits["report"], splits["discovery"])


def test_the_closed_form_is_the_shortest_vector_that_meets_the_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        rows = rng.normal(size=(4, 6))
        needed = np.array([1.0, 1.0, -5.0, 0.5])
        x = _least_norm(rows, needed)
        assert (rows @ x >= needed - 1e-6).all()
        for _ in range(200):  # no feasible point nearby is shorter
            other = x + rng.normal(size=6) * 0.05
            if (rows @ other >= needed).all():
                assert np.linalg.norm(other) >= np.linalg.norm(x) - 1e-6


def test_entries_are_put_where_they_belong() -> None:
    model = randomised(1)
    places = [("unembed.weight", 1, 2), ("layers.0.attn.q.bias", 3, 0), ("unembed.weight", 0, 0)]
    entries = Entries(model, places)
    other = entries.model(model, torch.tensor([1.0, 2.0, 3.0]))
    assert other.unembed.weight[1, 2] == 1
    assert other.get_parameter("layers.0.attn.q.bias")[3] == 2
    assert other.unembed.weight[0, 0] == 3
    changed = sum(int((a != b).sum()) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert changed == 3
    assert torch.equal(Entries(other, places).values, torch.tensor([1.0, 2.0, 3.0]))
