"""A circuit file opened for use: the circuit with its model, its examples, and the edges it names in that model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.criterion import Bound
from sparselit.circuits.files import read_behaviour, read_circuit, read_model
from sparselit.circuits.search.problem import Problem
from sparselit.data.behaviour import Behaviour
from sparselit.errors import SparselitError


@dataclass(frozen=True)
class Opened:
    """A circuit and everything beside it.

    Attributes:
        path: the ``circuit.json``.
        circuit: its content.
        behaviour: its examples.
        problem: the model, its edges, the ablation, and the bounds of the search (those of the certificate).
        kept: boolean (edge,), the circuit.
    """

    path: Path
    circuit: Circuit
    behaviour: Behaviour
    problem: Problem
    kept: Tensor

    @property
    def stated(self) -> list[Bound]:
        """The stated criterion."""
        return list(self.circuit.criterion)


def open_circuit(path: str | Path) -> Opened:
    """Read a circuit with its weights and prompts.

    Raises:
        SparselitError: a file is missing or cannot be read, or the circuit names an edge that its model has not.
    """
    path = Path(path)
    circuit = read_circuit(path)
    model = read_model(path, circuit)
    behaviour = read_behaviour(path, circuit)
    criterion = circuit.certificate.criterion or circuit.criterion
    if len(behaviour.vocabulary) > model.unembed.out_features:
        raise SparselitError(f"{path}: the task has {len(behaviour.vocabulary)} tokens, the model knows fewer")
    splits: Mapping[str, Any] = behaviour.splits
    problem = Problem(model, splits["discovery"], criterion, circuit.ablation, circuit.certificate.granularity, splits)
    try:
        kept = problem.edges.find(circuit.places)
    except KeyError as error:
        raise SparselitError(f"{path}: its model has no edge {error}; `sparselit verify {path}` says more") from error
    return Opened(path, circuit, behaviour, problem, kept)
