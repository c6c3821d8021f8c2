"""A circuit as a graph: nodes and links with labels as data, from its record alone; no model is built.

What joins what follows from the configuration (:func:`sparselit.model.wiring.matrices`), what a node is called from the
task's vocabulary. Tables, pictures, stories and exports are made from this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sparselit.circuits.circuit import EdgeSet
from sparselit.model.site_table import Block, Shape, site
from sparselit.model.wiring import BIAS, biases, matrices
from sparselit.runs.json_record import write

_QUOTES = {"'": "single quote", '"': "double quote", "`": "backtick"}


class NodeKey(NamedTuple):
    """A channel of a site."""

    site: str
    channel: int


@dataclass(frozen=True)
class Node:
    """A node of a circuit, and what it is called.

    Attributes:
        site: as in ``layers.0.attn.q``.
        channel: index on its last axis.
        label: as it can be read: a token, or ``ch 3`` of a head, or the channel.
        caption: what the label belongs to, as ``head 1``, or the name of a quotation mark; may be empty.
        layer: None outside of the layers.
        block: attention, MLP, embedding, unembedding, input or output.
        kind: the last word of the site's name.
        head: of a query, key or value; None elsewhere.
        within: the channel within the head; None elsewhere.
    """

    site: str
    channel: int
    label: str
    caption: str
    layer: int | None
    block: Block
    kind: str
    head: int | None
    within: int | None

    @property
    def key(self) -> NodeKey:
        """Site and channel."""
        return NodeKey(self.site, self.channel)

    @property
    def text(self) -> str:
        """The label on one line: ``head 1 · ch 3``, or ``" double quote``."""
        if not self.caption:
            return self.label
        return f"{self.label} {self.caption}" if self.head is None else f"{self.caption} · {self.label}"


@dataclass(frozen=True)
class Link:
    """An edge of a circuit, or a bias, which starts nowhere.

    Attributes:
        parameter: name of the tensor.
        row: in the tensor.
        column: in the tensor; 0 of a bias.
        weight: the entry.
        source: the node at which it starts; None of a bias.
        target: the node at which it ends.
    """

    parameter: str
    row: int
    column: int
    weight: float
    source: NodeKey | None
    target: NodeKey

    @property
    def is_bias(self) -> bool:
        """Whether it is a bias."""
        return self.source is None

    @property
    def place(self) -> tuple[str, int, int]:
        """Parameter, row and column."""
        return self.parameter, self.row, self.column


@dataclass(frozen=True)
class Graph:
    """The nodes and links of a circuit.

    Attributes:
        nodes: in the order of the forward pass, then by channel.
        links: the edges in the order of the file, then the biases.
        attention: for each head with a query or a key, the pairs (query or key, pattern) and (pattern, value); a
            pattern is no node of the circuit, and its channel is the head.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    attention: tuple[tuple[NodeKey, NodeKey], ...]

    @cached_property
    def by_key(self) -> dict[NodeKey, Node]:
        """The nodes by site and channel."""
        return {node.key: node for node in self.nodes}

    @property
    def edges(self) -> tuple[Link, ...]:
        """The links that are no biases."""
        return tuple(link for link in self.links if not link.is_bias)

    def keys(self, link: Link) -> tuple[NodeKey, NodeKey]:
        """The ends of an edge, source first.

        Raises:
            ValueError: the link is a bias.
        """
        if link.source is None:
            raise ValueError(f"{link.parameter}[{link.row}] is a bias and starts nowhere")
        return link.source, link.target

    def ends(self, link: Link) -> tuple[Node, Node]:
        """The nodes that an edge joins, source first.

        Raises:
            ValueError: the link is a bias.
        """
        source, target = self.keys(link)
        return self.by_key[source], self.by_key[target]

    def as_json(self) -> dict[str, Any]:
        """The graph as dictionaries, lists, texts and numbers."""
        content: dict[str, Any] = write(self)
        return content


def graph_of(circuit: EdgeSet) -> Graph:
    """The graph of a circuit, from its record.

    Raises:
        SparselitError: the record's configuration is none.
        KeyError: an edge names a tensor that the configuration has not; a circuit that was read from a file does not.
    """
    bundles = matrices(shape := Shape.of(circuit.model.config)) | biases(shape)
    links = []
    for (name, row, column), weight in circuit.weights.items():
        (start, channel), end = bundles[name].endpoints(row, column)
        source = None if start == BIAS else NodeKey(site(start).node, channel)
        links.append(Link(name, row, column, weight, source, NodeKey(*end)))
    keys = {NodeKey(name, channel) for name, channels in circuit.nodes.items() for channel in channels}
    keys |= {key for link in links for key in (link.source, link.target) if key is not None}
    ordered = sorted(keys, key=lambda key: (site(key.site).order, key.channel))
    nodes = tuple(node_of(circuit, *key) for key in ordered)
    return Graph(nodes, tuple(links), tuple(_attention(nodes)))


def node_of(circuit: EdgeSet, name: str, channel: int) -> Node:
    """A node of the circuit's model, labelled.

    Args:
        circuit: whose vocabulary and heads are meant.
        name: of a site.
        channel: at the site.

    Raises:
        SparselitError: there is no such site.
    """
    row, head, within = site(name), None, None
    label, caption = str(channel), ""
    if row.axis == "head":
        head, within = divmod(channel, Shape.of(circuit.model.config).d_head)
        label, caption = f"ch {within}", f"head {head}"
    elif row.axis == "token":
        label, caption = token_label(circuit, channel)
    return Node(name, channel, label, caption, row.layer, row.block, row.kind, head, within)


def token_label(circuit: EdgeSet, token: int) -> tuple[str, str]:
    """A token as it can be read, and its name: quotation marks bare and named, all else as Python writes it.

    Args:
        circuit: its task has the vocabulary.
        token: the token's number.

    Returns:
        Text and name; the name is empty but for quotation marks.
    """
    words = circuit.task.vocabulary
    if not 0 <= token < len(words):
        return f"#{token}", ""
    return (words[token], _QUOTES[words[token]]) if words[token] in _QUOTES else (repr(words[token]), "")


def _attention(nodes: Iterable[Node]) -> list[tuple[NodeKey, NodeKey]]:
    """From queries and keys to their head's pattern, and from there to its values."""
    below: list[tuple[NodeKey, NodeKey]] = []
    above: list[tuple[NodeKey, NodeKey]] = []
    for node in sorted((node for node in nodes if node.head is not None), key=lambda node: node.key):
        pattern = NodeKey(site(node.site).beside("pattern"), node.head or 0)
        if node.kind == "v":
            above.append((pattern, node.key))
        else:
            below.append((node.key, pattern))
    heads = {pattern for _, pattern in below}
    return below + [pair for pair in above if pair[0] in heads]
