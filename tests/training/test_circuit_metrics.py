"""What is logged of one circuit and of several: averages, and how much they share."""

from __future__ import annotations

import pytest

from sparselit.circuits.circuit import Circuit
from sparselit.training.circuit_metrics import combined, overlap
from tests.circuits.records import some_circuit

ONE = {"found": 1.0, "edges": 4.0, "nodes": 9.0, "loss": 0.1, "accuracy": 1.0, "null_edges": 10.0}
OTHER = {"found": 0.0, "edges": 25.0, "nodes": 1.0, "loss": 0.3, "accuracy": 0.5, "null_edges": 1000.0}


def circuit(*edges: tuple[str, int, int]) -> Circuit:
    return some_circuit([[*edge, 0.5] for edge in edges])


def test_a_single_task_keeps_its_figures() -> None:
    assert combined({"": ONE}) == ONE


def test_sizes_are_geometric_means_scores_plain_ones_and_each_task_stays_visible() -> None:
    values = combined({"A": ONE, "B": OTHER})
    assert values["edges"] == pytest.approx(10)
    assert values["nodes"] == pytest.approx(3)
    assert values["null_edges"] == pytest.approx(100)
    assert values["loss"] == pytest.approx(0.2)
    assert values["accuracy"] == pytest.approx(0.75)
    assert values["found"] == 0
    assert (values["A/edges"], values["B/edges"], values["B/loss"]) == (4, 25, 0.3)


def test_overlap_is_the_mean_share_of_common_edges_over_all_pairs() -> None:
    a, b, c = (("w", 0, 0), ("w", 0, 1), ("v", 0, 0))
    assert overlap([circuit(a, b), circuit(b, c)]) == pytest.approx(1 / 3)
    assert overlap([circuit(a, b), circuit(a, b), circuit(c)]) == pytest.approx(1 / 3)
    assert overlap([circuit(a)]) == 0
