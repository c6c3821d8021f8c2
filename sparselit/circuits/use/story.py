"""What a node of a circuit does: which examples move it, what it reads and what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparselit.circuits.loaded import Loaded
from sparselit.circuits.run.naive import CHUNK
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.site_table import SiteRow, site
from sparselit.model.wiring import BIAS

Node = tuple[str, int]


class Link(NamedTuple):
    """An edge at a node, and the nodes that stand behind it on the residual stream.

    Attributes:
        node: the other end.
        weight: of the edge.
        through: for an edge that reads the residual stream, the circuit's nodes that write that channel before; for
            one that writes it, those that read it afterwards.
    """

    node: Node
    weight: float
    through: list[Node]


class Peak(NamedTuple):
    """The strongest activation on one prompt.

    Attributes:
        value: the activation.
        position: at which token.
        tokens: the prompt.
        answer: its right answer.
    """

    value: float
    position: int
    tokens: list[int]
    answer: int


@dataclass(frozen=True)
class Story:
    """One node.

    Attributes:
        node: site and channel.
        bias: its bias, where the circuit keeps one.
        reads: edges that end here.
        writes: edges that start here.
        written_by: for a channel that a block reads, the nodes that write it before.
        read_by: for a channel that a block writes, the nodes that read it afterwards.
        peaks: prompts on which it is furthest from zero, one peak each.
        by_answer: mean activation at the answer position, by the prompt's answer.
        active: share of positions at which it is not zero.
        n: prompts looked at.
    """

    node: Node
    bias: float | None
    reads: list[Link]
    writes: list[Link]
    written_by: list[Node]
    read_by: list[Node]
    peaks: list[Peak]
    by_answer: dict[int, float]
    active: float
    n: int


def story(circuit: Loaded, node: Node, top: int = 5, examples: Examples | None = None) -> Story:
    """What ``node`` does in the circuit, its activations being those of the circuit run alone.

    Args:
        circuit: the circuit.
        node: one of its nodes.
        top: number of peaks.
        examples: prompts to look at; default the report split.

    Raises:
        SparselitError: the node is none of the circuit's.
    """
    name, channel = node
    if channel not in circuit.circuit.nodes.get(name, ()):
        inside = circuit.circuit.nodes.get(name)
        hint = f"of {name} it has {', '.join(map(str, inside))}" if inside else "its sites are "
        hint += "" if inside else ", ".join(circuit.circuit.nodes)
        raise SparselitError(f"the circuit has no node {name}:{channel}; {hint}")
    edges = circuit.edges
    reads: list[Link] = []
    writes: list[Link] = []
    bias = None
    for index in circuit.kept.nonzero()[:, 0].tolist():
        source, target = edges.endpoints(index)
        value = circuit.circuit.weights[edges.describe(index)]
        if target == node and source[0] == BIAS:
            bias = value
        elif target == node:
            reads.append(Link(source, value, _writers(circuit, source)))
        elif source == node:
            writes.append(Link(target, value, _readers(circuit, target)))
    examples = circuit.behaviour.splits["report"] if examples is None else examples
    values, real = activations(circuit, node, examples)
    at = examples.length - 1
    if values.shape[1] == 1 < real.shape[1]:  # only the answer's
        real = real.gather(1, at[:, None])
        at = torch.zeros_like(at)
    values = values.masked_fill(~real, 0.0)
    strongest, position = values.abs().max(1)
    chosen = torch.argsort(strongest, descending=True, stable=True)[:top].tolist()
    last = values.gather(1, at[:, None])[:, 0]
    answers = examples.answer.unique().tolist()
    return Story(
        node=node,
        bias=bias,
        reads=reads,
        writes=writes,
        written_by=_writers(circuit, node),
        read_by=_readers(circuit, node),
        peaks=[
            Peak(
                float(values[i, position[i]]),
                int(position[i]),
                examples.tokens[i, : examples.length[i]].tolist(),
                int(examples.answer[i]),
            )
            for i in chosen
            if float(strongest[i]) > 0
        ],
        by_answer={answer: float(last[examples.answer == answer].double().mean()) for answer in answers},
        active=float((values[real] != 0).double().mean()),
        n=len(examples.answer),
    )


@torch.no_grad()
def activations(circuit: Loaded, node: Node, examples: Examples) -> tuple[Tensor, Tensor]:
    """Activation (example, position) of a node in the circuit run alone, and which positions are no padding.

    A ``token`` or ``position`` is 1 where it stands and 0 elsewhere.

    Args:
        circuit: the circuit.
        node: site and channel.
        examples: the prompts.

    Returns:
        Values, and booleans (example, position); values of one position where the site is computed at the answer only.
    """
    name, channel = node
    real = examples.real
    if name in ("token", "position"):
        positions = torch.arange(real.shape[1], device=real.device).expand_as(real)
        return ((examples.tokens if name == "token" else positions) == channel).float(), real
    naive, found = circuit.naive, []
    for i in range(0, len(examples.answer), CHUNK):
        part = examples.select(slice(i, i + CHUNK))
        with circuit.model.sites.recorded([name]) as record:
            naive.run(part.tokens, None, part.corrupted)
        found.append(record[name][..., channel].expand(len(part.answer), -1))
    return torch.cat(found), real


def _writers(circuit: Loaded, node: Node) -> list[Node]:
    """The circuit's nodes that write a channel of the residual stream before ``node`` reads it."""
    read = site(node[0])
    if read.role != "reads":
        return []
    rows = map(site, circuit.circuit.nodes)
    return _others(circuit, node, [row for row in rows if row.role == "writes" and row.order < read.order])


def _readers(circuit: Loaded, node: Node) -> list[Node]:
    """The circuit's nodes that read a channel of the residual stream after ``node`` has written it."""
    written = site(node[0])
    if written.role != "writes":
        return []
    rows = map(site, circuit.circuit.nodes)
    return _others(circuit, node, [row for row in rows if row.role == "reads" and row.order > written.order])


def _others(circuit: Loaded, node: Node, rows: list[SiteRow]) -> list[Node]:
    ordered = [row.name for row in sorted(rows, key=lambda row: row.order)]
    return [(name, node[1]) for name in ordered if node[1] in circuit.circuit.nodes[name]]
