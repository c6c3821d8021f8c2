"""Circuits as sets of edges: union, intersection, difference, and how much two of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from sparselit.circuits.circuit import EdgeSet, KeptBias, KeptEdge
from sparselit.circuits.criterion import Bound
from sparselit.circuits.loaded import Recorded
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.size import nodes_of
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.errors import SparselitError
from sparselit.model.wiring import Place


class Shared(NamedTuple):
    """The edges and biases of two circuits, each in the order of the forward pass.

    Attributes:
        first: only in the first.
        both: in both.
        second: only in the second.
    """

    first: list[Place]
    both: list[Place]
    second: list[Place]

    @property
    def jaccard(self) -> float:
        """Share of edges in both, of those that either has; of two empty circuits 1."""
        union = sum(map(len, self))
        return len(self.both) / union if union else 1.0

    def by_matrix(self) -> dict[str, tuple[int, int, int]]:
        """Number of edges only in the first, in both, only in the second, by parameter name."""
        names = sorted({place[0] for part in self for place in part}, key=_order)
        counts = {name: [sum(place[0] == name for place in part) for part in self] for name in names}
        return {name: (a, b, c) for name, (a, b, c) in counts.items()}


def _order(name: str) -> tuple[bool, int, int, str]:
    """Sorts parameter names as the forward pass meets them, biases last."""
    parts = name.split(".")
    layer = int(parts[1]) if parts[0] == "layers" else -1 if parts[0] in ("embed", "positions") else 1 << 30
    kinds = ("q", "k", "v", "o", "up", "down")
    return parts[-1] == "bias", layer, kinds.index(parts[-2]) if parts[-2] in kinds else -1, name


def shared(first: EdgeSet, second: EdgeSet) -> Shared:
    """Compare two circuits edge by edge; an edge is the same where parameter, row and column are, whatever its weight.

    Circuits of different models can be compared where the models have the same shape, as checkpoints of one run have.

    Args:
        first: one circuit, or set of edges.
        second: the other.

    Returns:
        The edges and biases of the first alone, of both, and of the second alone.

    Raises:
        SparselitError: the models have different shapes.
    """
    one_shape, other_shape = first.model.config, second.model.config
    if one_shape != other_shape:
        differing = sorted(k for k in {*one_shape, *other_shape} if one_shape.get(k) != other_shape.get(k))
        raise SparselitError(f"the circuits' models have different shapes ({', '.join(differing)}): nothing to compare")
    one, other = set(first.places), set(second.places)
    return Shared(
        [place for place in first.places if place not in other],
        [place for place in first.places if place in other],
        [place for place in second.places if place not in one],
    )


def jaccard(first: Sequence[Place], second: Sequence[Place]) -> float:
    """Share of places in both, of those in either; of two empty sets 1.

    Args:
        first: edges and biases of one circuit.
        second: those of the other.

    Returns:
        In [0, 1]: size of the intersection, as a share of that of the union.
    """
    one, other = set(first), set(second)
    return len(one & other) / len(one | other) if one | other else 1.0


def union(first: Recorded, second: Recorded) -> Recorded:
    """The edges of either circuit: :func:`combined`, which says what may differ."""
    return combined(first, second, lambda a, b: a | b)


def intersection(first: Recorded, second: Recorded) -> Recorded:
    """The edges of both circuits: :func:`combined`, which says what may differ."""
    return combined(first, second, lambda a, b: a & b)


def difference(first: Recorded, second: Recorded) -> Recorded:
    """The edges of the first circuit that the second has not: :func:`combined`, which says what may differ."""
    return combined(first, second, lambda a, b: a & ~b)


def combined(first: Recorded, second: Recorded, how: Callable[[Tensor, Tensor], Tensor]) -> Recorded:
    """A set of edges made of two circuits of one model, that can be run.

    It has the first circuit's task, criterion and model, but neither certificate nor evidence: nobody has searched it.

    Args:
        first: one circuit.
        second: the other.
        how: from the two boolean sets (edge,) to the new one.

    Raises:
        SparselitError: the circuits belong to different weights or have different ablations.
    """
    one, other = first.circuit, second.circuit
    if one.model.hash != other.model.hash:
        raise SparselitError("the circuits belong to different weights; set operations need one model")
    if one.ablation != other.ablation:
        raise SparselitError(f"the circuits have different ablations ({one.ablation}; {other.ablation}); use one")
    engine, edges = FastEngine(first.model, first.edges, first.engine.replacement), first.edges
    made, weights = Subnetwork(engine, how(first.kept, second.kept)), one.weights | other.weights
    record = EdgeSet(
        model=one.model,
        task=one.task,
        criterion=tuple(Bound(row.metric, row.at_most, row.at_least) for row in one.criterion),
        ablation=one.ablation,
        nodes=nodes_of(edges, made.kept),
        edges=tuple(KeptEdge(*place, weights[place]) for place in edges.places(made.kept & ~edges.is_bias)),
        biases=tuple(KeptBias(*place[:2], weights[place]) for place in edges.places(made.kept & edges.is_bias)),
        size=made.size,
        path=one.path,
    )
    engine.focus(made.kept)
    return Recorded(engine, made.kept, record, first.behaviour, first.path)
