"""Birth and death of edges: the circuits of one run, step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.files import read_circuit
from sparselit.circuits.sets import shared
from sparselit.errors import SparselitError
from sparselit.model.wiring import Place

_CIRCUIT = re.compile(r"step=(\d+)\.json")


@dataclass(frozen=True)
class History:
    """The circuits of a run in the order of their steps.

    Attributes:
        circuits: by optimizer step, ascending.
        lives: for each edge or bias that any of them has, in the order of birth, the steps of those that have it.
    """

    circuits: Mapping[int, Circuit]
    lives: Mapping[Place, list[int]]

    def born(self, step: int) -> list[Place]:
        """Edges of the circuit at ``step`` that the one before lacks; at the first step all."""
        return self._new(step, -1)

    def died(self, step: int) -> list[Place]:
        """Edges of the circuit before ``step`` that the one at ``step`` lacks; at the first step none."""
        steps = list(self.circuits)
        index = steps.index(step)
        return self._new(steps[index - 1], 1) if index else []

    def _new(self, step: int, other: int) -> list[Place]:
        steps = list(self.circuits)
        index = steps.index(step) + other
        neighbour = self.circuits[steps[index]].places if 0 <= index < len(steps) else []
        return [edge for edge in self.circuits[step].places if edge not in set(neighbour)]

    def kept(self, step: int) -> float | None:
        """Jaccard overlap of the circuit at ``step`` with the one before; None at the first."""
        steps = list(self.circuits)
        index = steps.index(step)
        return shared(self.circuits[steps[index - 1]], self.circuits[step]).jaccard if index else None


def history(folder: Path) -> History:
    """The circuits ``step=N.json`` of a folder.

    Args:
        folder: a run's ``circuits`` folder, or the folder of one task in it.

    Raises:
        SparselitError: there are fewer than two circuits, one cannot be read, or their models have different shapes.
    """
    names = {int(match[1]): path for path in folder.glob("step=*.json") if (match := _CIRCUIT.fullmatch(path.name))}
    if len(names) < 2:
        inside = sorted({path.parent.name for path in folder.glob("*/step=*.json") if _CIRCUIT.fullmatch(path.name)})
        hint = f"; name one of its tasks: {', '.join(inside)}" if inside else ""
        hint = hint or "; a run writes them every circuits.every_n_steps steps"
        found = "one circuit" if names else "no circuit"
        raise SparselitError(f"{folder} holds {found} step=N.json, a history needs two{hint}")
    return history_of({step: read_circuit(path) for step, path in names.items()})


def history_of(circuits: Mapping[int, Circuit]) -> History:
    """The history that circuits by their steps make.

    Raises:
        SparselitError: their models have different shapes.
    """
    circuits = dict(sorted(circuits.items()))
    lives: dict[Place, list[int]] = {}
    for step, circuit in circuits.items():
        for edge in circuit.places:
            lives.setdefault(edge, []).append(step)
    first, *others = circuits.values()
    for other in others:
        shared(first, other)  # refuses other shapes
    return History(circuits, lives)
