"""The same edges in other company: under other ablations, and with the worst of all other edges put back.

A circuit claims that what is outside does not matter. Ablating all of it at once, in one way, is the kindest test of
that. Which edges are the worst is found in :mod:`sparselit.circuits.evidence.adversary`; here they are measured, so
that ``verify`` needs no search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from sparselit.circuits.claims import Adversary, Opened, OpenEdge, Score, extended
from sparselit.circuits.criterion import Criterion
from sparselit.circuits.evidence.scores import meets, score
from sparselit.circuits.run.ablation import Ablation, Kind
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.examples import Examples


class PutBack(NamedTuple):
    """What an adversary has put back, before anything is measured; the fields are those of :class:`Adversary`."""

    chosen_on: str
    budget: int
    restarts: int
    greedy: Sequence[OpenEdge]
    gradient: Sequence[OpenEdge]

    @classmethod
    def of(cls, claimed: Adversary) -> PutBack:
        """The edges that a file names."""
        edges = claimed.greedy.edges, claimed.gradient.edges
        return cls(claimed.chosen_on, claimed.budget, claimed.restarts, *edges)


def other_ablations(circuit: Subnetwork, splits: Mapping[str, Examples]) -> dict[str, Score]:
    """The circuit's edges under every kind of ablation that is not its own, on the report split.

    A bias that its own ablation cannot remove stays; ``resample`` is left out where no prompt has a corrupted one.

    Args:
        circuit: the circuit in its model.
        splits: the behaviour's, by name.
    """
    report, found = splits["report"], {}
    places, own = circuit.edges.places(circuit.kept), circuit.ablation
    for kind in get_args(Kind):
        if kind == own.kind or (kind == "resample" and torch.equal(report.corrupted, report.tokens)):
            continue
        engine = type(circuit.engine).of(circuit.model, Ablation(kind, norm=own.norm), splits)
        kept = torch.isin(torch.arange(len(engine.edges)), engine.edges.numbers(places))
        if not own.removes_biases:
            kept |= engine.edges.is_bias
        other = Subnetwork(engine, kept)
        found[kind] = score(other.logits(report), report, other.whole.logits(report))
    return found


def attacked(
    circuit: Subnetwork, found: PutBack, report: Examples, reference: Tensor, criterion: Criterion
) -> Adversary:
    """What the edges that an adversary has put back do, measured on the report split.

    Args:
        circuit: the circuit.
        found: which edges they are, and by which share.
        report: the report split.
        reference: the full model's answer logits there (example, vocabulary).
        criterion: the stated bounds.

    Returns:
        Its figures. An edge that the model has not, that is the circuit's, or beyond the budget, is
        left out, so that it differs from what a file claims.
    """
    greedy = _possible(circuit, found.greedy, found.budget)
    broken = None
    for count in range(1, len(greedy) + 1):
        if not meets(circuit.keeping(opened(circuit, greedy[:count]) > 0), report, reference, criterion):
            broken = count
            break

    def measured(edges: Sequence[OpenEdge]) -> Opened:
        logits = circuit.naive.keeping(opened(circuit, edges)).logits(report)
        return extended(Opened, score(logits, report, reference), edges=tuple(edges))

    return Adversary(
        chosen_on=found.chosen_on,
        budget=found.budget,
        restarts=found.restarts,
        broken_by=broken,
        greedy=measured(greedy),
        gradient=measured(_possible(circuit, found.gradient, found.budget)),
    )


def opened(circuit: Subnetwork, edges: Sequence[OpenEdge]) -> Tensor:
    """The share (edge,) by which each of the model's edges is open: the circuit's wholly, these as they say."""
    shares = circuit.kept.to(torch.get_default_dtype())
    shares[circuit.edges.numbers([edge[:3] for edge in edges])] = torch.tensor([edge.share for edge in edges])
    return shares


def _possible(circuit: Subnetwork, edges: Sequence[OpenEdge], budget: int) -> list[OpenEdge]:
    """Those that the model has outside of the circuit, as long as their shares do not exceed the budget."""
    found: dict[int, OpenEdge] = {}
    numbers = circuit.edges.numbers([edge[:3] for edge in edges]).tolist()
    for number, edge in zip(numbers, edges, strict=True):
        spent = sum(known.share for known in found.values())
        outside = number >= 0 and number not in found and not circuit.kept[number]
        if outside and 0 < edge.share <= 1 and spent + edge.share <= budget + 1e-3:
            found[number] = edge
    return list(found.values())
