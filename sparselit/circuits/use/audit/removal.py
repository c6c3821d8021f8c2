"""What carried an answer: the margin that is lost when one part is removed, in the circuit and in the full model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.subnetwork import Subnetwork
from sparselit.circuits.use.names import node_name
from sparselit.data.examples import Examples
from sparselit.model.wiring import BIAS, place_name


@dataclass(frozen=True)
class Removals:
    """Some prompts with each part removed alone.

    Attributes:
        names: of the parts: edges and biases, then nodes.
        nodes: how many of them are nodes; the last ones.
        circuit: margin (part, example) of the circuit without the part.
        full: the same of the full model without it.
        circuit_answer: (part, example) what the circuit answers then.
        full_answer: the same of the full model.
    """

    names: tuple[str, ...]
    nodes: int
    circuit: Tensor
    full: Tensor
    circuit_answer: Tensor
    full_answer: Tensor


def margins(logits: Tensor, answer: Tensor, rival: Tensor) -> Tensor:
    """The logit of one token over another's (example,).

    Args:
        logits: (example, vocabulary).
        answer: (example,).
        rival: (example,).
    """
    rows = torch.arange(len(logits))
    return logits[rows, answer] - logits[rows, rival]


def parts_of(network: Subnetwork) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Edges and biases of a circuit by name, then its nodes, each with the numbers of the edges that go with it.

    A node goes with all of the circuit's edges and the bias at it.
    """
    edges: dict[str, Tensor] = {}
    nodes: dict[str, list[int]] = {}
    for number in network.kept.nonzero()[:, 0].tolist():
        edges[place_name(network.edges.describe(number), bool(network.edges.is_bias[number]))] = torch.tensor([number])
        for site, channel in network.edges.endpoints(number):
            if site != BIAS:
                nodes.setdefault(node_name(site, channel), []).append(number)
    return edges, {name: torch.tensor(numbers) for name, numbers in nodes.items()}


def removals(network: Subnetwork, examples: Examples, answer: Tensor, rival: Tensor) -> Removals:
    """Remove each edge, bias and node of a circuit alone, by the plain masked forward pass.

    Args:
        network: the circuit; what stands in for a removed edge is its ablation's.
        examples: the prompts.
        answer: (example,) the token whose margin is measured.
        rival: (example,) over which other one.
    """
    edges, nodes = parts_of(network)
    parts: Mapping[str, Tensor] = edges | nodes
    whole, naive = network.whole.kept, network.naive
    # A circuit may hold no part at all.
    margin = torch.zeros(2, len(parts), len(answer))
    said = torch.zeros(2, len(parts), len(answer), dtype=torch.long)
    for i, numbers in enumerate(parts.values()):
        for full, base in enumerate((network.kept, whole)):
            without = base.clone()
            without[numbers] = False
            logits = naive.keeping(without).logits(examples)
            margin[full, i] = margins(logits, answer, rival)
            said[full, i] = logits.argmax(-1)
    return Removals(tuple(parts), len(nodes), *margin, *said)
