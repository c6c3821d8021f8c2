"""Circuits as sets of edges: union, intersection, difference, and how much two of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from sparselit.circuits.circuit import Edge, EdgeSet, KeptBias, KeptEdge, Size, free_parameters, nodes_of
from sparselit.circuits.criterion import Bound
from sparselit.errors import SparselitError


class Shared(NamedTuple):
    """The edges and biases of two circuits, each in the order of the forward pass.

    Attributes:
        first: only in the first.
        both: in both.
        second: only in the second.
    """

    first: list[Edge]
    both: list[Edge]
    second: list[Edge]

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


def jaccard(first: Sequence[Edge], second: Sequence[Edge]) -> float:
    """Share of places in both, of those in either; of two empty sets 1."""
    one, other = set(first), set(second)
    return len(one & other) / len(one | other) if one | other else 1.0


def union(first: EdgeSet, second: EdgeSet) -> EdgeSet:
    """The edges of either circuit; see :func:`combined`."""
    return combined(first, second, lambda a, b: a | b)


def intersection(first: EdgeSet, second: EdgeSet) -> EdgeSet:
    """The edges of both circuits; see :func:`combined`."""
    return combined(first, second, lambda a, b: a & b)


def difference(first: EdgeSet, second: EdgeSet) -> EdgeSet:
    """The edges of the first circuit that the second has not; see :func:`combined`."""
    return combined(first, second, lambda a, b: a & ~b)


def combined(first: EdgeSet, second: EdgeSet, how: Callable[[Tensor, Tensor], Tensor]) -> EdgeSet:
    """A set of edges made of two circuits of one model, that can be run.

    It has the first circuit's task, criterion and model, but neither certificate nor evidence: nobody has searched it.

    Args:
        first: read from a file.
        second: read from a file.
        how: from the two boolean sets (edge,) to the new one.

    Raises:
        SparselitError: the circuits belong to different weights or have different ablations.
    """
    if first.model.hash != second.model.hash:
        raise SparselitError("the circuits belong to different weights; set operations need one model")
    if first.ablation != second.ablation:
        raise SparselitError(f"the circuits have different ablations ({first.ablation}; {second.ablation}); use one")
    model, edges = first.runner.model, first.runner.edges
    kept = how(first.runner.kept, second.runner.kept)
    weights = first.weights | second.weights
    listed = [place for place, chosen in zip(edges.places(), kept.tolist(), strict=True) if chosen]
    nodes = nodes_of(edges, kept)
    found = tuple(KeptEdge(*place, weights[place]) for place in listed if not edges.bundles[place[0]].is_bias)
    return EdgeSet(
        model=first.model,
        task=first.task,
        criterion=tuple(Bound(row.metric, row.at_most, row.at_least) for row in first.criterion),
        ablation=first.ablation,
        nodes={site: tuple(channels) for site, channels in nodes.items()},
        edges=found,
        biases=tuple(KeptBias(name, i, weights[name, i, 0]) for name, i, _ in listed if edges.bundles[name].is_bias),
        size=Size(
            nodes=sum(map(len, nodes.values())),
            edges=len(found),
            free=free_parameters(model, edges, kept, first.ablation),
        ),
        path=first.path,
    )
