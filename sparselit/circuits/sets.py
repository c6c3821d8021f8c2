"""Circuits as sets of edges: union, intersection, difference, and how much two of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from sparselit.circuits.circuit import Circuit, Edge, free_parameters, nodes_of
from sparselit.circuits.run.ablation import as_ablation
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


def shared(first: Circuit, second: Circuit) -> Shared:
    """Compare two circuits edge by edge; an edge is the same where parameter, row and column are, whatever its weight.

    Circuits of different models can be compared where the models have the same shape, as checkpoints of one run have.

    Raises:
        SparselitError: the models have different shapes.
    """
    if first.model["config"] != second.model["config"]:
        keys = {*first.model["config"], *second.model["config"]}
        differing = sorted(k for k in keys if first.model["config"].get(k) != second.model["config"].get(k))
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


def union(first: Circuit, second: Circuit) -> Circuit:
    """The edges of either circuit; see :func:`combined`."""
    return combined(first, second, lambda a, b: a | b)


def intersection(first: Circuit, second: Circuit) -> Circuit:
    """The edges of both circuits; see :func:`combined`."""
    return combined(first, second, lambda a, b: a & b)


def difference(first: Circuit, second: Circuit) -> Circuit:
    """The edges of the first circuit that the second has not; see :func:`combined`."""
    return combined(first, second, lambda a, b: a & ~b)


def combined(first: Circuit, second: Circuit, how: Callable[[Tensor, Tensor], Tensor]) -> Circuit:
    """A set of edges made of two circuits of one model, as a circuit that can be run.

    It has the first circuit's task, criterion and model, but neither certificate nor evidence: nobody has searched it.

    Args:
        first: read from a file.
        second: read from a file.
        how: from the two boolean sets (edge,) to the new one.

    Raises:
        SparselitError: the circuits belong to different weights or have different ablations.
    """
    if first.model["hash"] != second.model["hash"]:
        raise SparselitError("the circuits belong to different weights; set operations need one model")
    if first.ablation != second.ablation:
        raise SparselitError(
            f"the circuits have different ablations ({first.ablation_text}; {second.ablation_text}); use one"
        )
    model, edges = first.runner.model, first.runner.edges
    kept = how(first.runner.kept, second.runner.kept)
    weights = dict(zip(first.places, [e[-1] for e in [*first.edges, *first.biases]], strict=True))
    weights |= dict(zip(second.places, [e[-1] for e in [*second.edges, *second.biases]], strict=True))
    listed = [place for place, chosen in zip(edges.places(), kept.tolist(), strict=True) if chosen]
    nodes = nodes_of(edges, kept)
    found = [[*place, weights[place]] for place in listed if not edges.bundles[place[0]].is_bias]
    return Circuit(
        model=dict(first.model),
        task=dict(first.task),
        criterion=[{k: v for k, v in row.items() if k != "value"} for row in first.criterion],
        ablation=dict(first.ablation),
        nodes=nodes,
        edges=found,
        biases=[[name, i, weights[name, i, 0]] for name, i, _ in listed if edges.bundles[name].is_bias],
        size={
            "nodes": sum(map(len, nodes.values())),
            "edges": len(found),
            "free": free_parameters(model, edges, kept, as_ablation(first.ablation)),
        },
        path=first.path,
    )
