"""Dark matter: nothing of a whole model, everything of an empty circuit, and of a union what its edges say."""

from __future__ import annotations

import pytest
import torch

from sparselit.circuits.criterion import measure
from sparselit.circuits.evidence.dark_matter import dark_matter, of_union
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.subnetwork import Observed, Subnetwork
from sparselit.errors import SparselitError
from sparselit.model.wiring import Edges
from sparselit.runs.json_record import write
from tests.circuits.models import random_subset, randomised, some_behaviour

MODEL = randomised(seed=3, n_layers=2)
BEHAVIOUR = some_behaviour(MODEL)
EDGES = Edges.of(MODEL)
EVERYTHING = torch.ones(len(EDGES), dtype=torch.bool)


def subject(kept: torch.Tensor) -> Observed:
    return Subnetwork(NaiveEngine.of(MODEL), kept).on(BEHAVIOUR.splits["report"])


def test_a_whole_model_leaves_nothing_and_an_empty_circuit_everything() -> None:
    whole, empty = dark_matter(subject(EVERYTHING)), dark_matter(subject(~EVERYTHING))
    assert (whole.task_loss, whole.kl) == (0.0, 0.0)
    assert set(whole.residual.values()) == {0.0}
    assert (empty.task_loss, empty.kl) == (1.0, 1.0)
    assert min(empty.residual.values()) >= 1.0
    assert set(whole.residual) == {"embed", *(f"layers.{i}.{b}.residual" for i in (0, 1) for b in ("attn", "mlp"))}


def test_the_shares_are_those_of_the_gap() -> None:
    one = subject(random_subset(EVERYTHING, 0.8, seed=1))
    sets = (one.kept, EVERYTHING, ~EVERYTHING)
    circuit, full, empty = (measure(one.keeping(kept).logits(), one.examples, one.full) for kept in sets)
    found = dark_matter(one)
    gap = empty["task_loss"] - full["task_loss"]
    assert found.task_loss == pytest.approx((circuit["task_loss"] - full["task_loss"]) / gap, abs=1e-5)
    assert found.kl == pytest.approx(circuit["kl"] / empty["kl"], abs=1e-5)


def test_a_union_holds_the_edges_of_all_and_is_measured_on_each_task() -> None:
    halves = torch.arange(len(EDGES)) % 2 == 0
    known = {"a": subject(halves), "b": subject(~halves)}
    found = of_union(known)
    assert found[""]["edges"] == found[""]["of"] == found["a"]["edges"] + found["b"]["edges"]
    assert found["a"]["together"] == found["b"]["together"] == write(dark_matter(subject(EVERYTHING)))
    assert found["a"]["alone"] == write(dark_matter(subject(halves)))
    mean = Subnetwork.of(NaiveEngine.of(MODEL, "mean", BEHAVIOUR.splits)).on(BEHAVIOUR.splits["report"])
    with pytest.raises(SparselitError, match="several ablations"):
        of_union({**known, "c": mean})
