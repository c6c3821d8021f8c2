"""A circuit as a network of nodes and arrows, for tools of graphs (extra ``[export]``)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.use.graph import Graph, Node, NodeKey, graph_of
from sparselit.errors import SparselitError
from sparselit.model.site_table import site

_STEP = 100.0  # between two nodes of a drawing


def network_of(circuit: Circuit) -> Any:
    """The circuit as a ``networkx.MultiDiGraph``.

    Nodes are called ``SITE:CHANNEL``. An arrow is of kind ``weight`` (an edge of the circuit, with its tensor's name,
    row, column and weight), ``residual`` (what is written to a channel of the residual stream is read there later) or
    ``attention`` (a query or a key makes a pattern, which weighs a value). A bias is an attribute of its node.

    Raises:
        SparselitError: networkx is not installed.
    """
    try:
        import networkx
    except ModuleNotFoundError:
        raise SparselitError("this format needs networkx: pip install 'sparselit[export]'") from None
    graph = graph_of(circuit)
    network = networkx.MultiDiGraph(name=f"circuit of {circuit.task.name}")
    biases = {link.target: link.weight for link in graph.links if link.is_bias}
    for key, (x, y) in _places(graph).items():
        attributes = {"site": key.site, "channel": key.channel, "label": _label(graph, key), "x": x, "y": y}
        network.add_node(name_of(key), **attributes, **({"bias": biases[key]} if key in biases else {}))
    for link in graph.edges:
        source, target = graph.keys(link)
        place = {"parameter": link.parameter, "row": link.row, "column": link.column, "weight": link.weight}
        network.add_edge(name_of(source), name_of(target), kind="weight", **place)
    for source, target in residual_pairs(graph):
        network.add_edge(name_of(source), name_of(target), kind="residual")
    for source, target in graph.attention:
        network.add_edge(name_of(source), name_of(target), kind="attention")
    return network


def name_of(key: NodeKey) -> str:
    """``SITE:CHANNEL``."""
    return f"{key.site}:{key.channel}"


def residual_pairs(graph: Graph) -> Iterator[tuple[NodeKey, NodeKey]]:
    """What is written to a channel of the residual stream, and each later place that reads the channel."""
    writers: dict[int, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if site(node.site).role == "writes":
            writers[node.channel].append(node)
    for node in graph.nodes:
        if site(node.site).role == "reads":
            for writer in writers[node.channel]:
                if site(writer.site).order < site(node.site).order:
                    yield writer.key, node.key


def graphml(circuit: Circuit, path: Path, prompt: str | None) -> bytes:
    """GraphML."""
    import networkx

    file = BytesIO()
    networkx.write_graphml(network_of(circuit), file)
    return file.getvalue()


def gexf(circuit: Circuit, path: Path, prompt: str | None) -> bytes:
    """GEXF 1.2, with positions."""
    import networkx

    network = network_of(circuit)
    for _, attributes in network.nodes(data=True):
        attributes["viz"] = {"position": {"x": attributes.pop("x"), "y": attributes.pop("y"), "z": 0.0}}
    file = BytesIO()
    networkx.write_gexf(network, file)
    return re.sub(rb' lastmodifieddate="[^"]*"', b"", file.getvalue())  # the same circuit, the same bytes


def dot(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """DOT, for Graphviz."""
    network = network_of(circuit)
    style = {"weight": "solid", "residual": "dotted", "attention": "dashed"}
    lines = [f"digraph {json.dumps(network.name)} {{", "  rankdir=BT;"]
    lines += [f"  {json.dumps(n)} [label={json.dumps(a['label'])}];" for n, a in network.nodes(data=True)]
    for source, target, attributes in network.edges(data=True):
        label = f", label={json.dumps(format(attributes['weight'], '.3g'))}" if "weight" in attributes else ""
        lines.append(f"  {json.dumps(source)} -> {json.dumps(target)} [style={style[attributes['kind']]}{label}];")
    return "\n".join([*lines, "}"]) + "\n"


def cytoscape(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """Cytoscape JSON, with positions."""
    import networkx

    content = networkx.cytoscape_data(network_of(circuit))
    for node in content["elements"]["nodes"]:
        node["position"] = {"x": node["data"].pop("x"), "y": -node["data"].pop("y")}  # its y grows downwards
    for number, edge in enumerate(content["elements"]["edges"]):
        edge["data"]["id"] = f"e{number}"
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _label(graph: Graph, key: NodeKey) -> str:
    """What a node is called; tokens are as Python writes them, so that there is nothing XML has no place for."""
    node = graph.by_key.get(key)
    return f"{key.site} {node.text}" if node else f"{key.site} head {key.channel}"


def _places(graph: Graph) -> dict[NodeKey, tuple[float, float]]:
    """Where nodes stand: a row for each site, upwards in the order of the forward pass; then the patterns."""
    keys = dict.fromkeys([*graph.by_key, *(key for pair in graph.attention for key in pair)])
    rows: dict[str, list[NodeKey]] = defaultdict(list)
    for key in sorted(keys, key=lambda key: (site(key.site).order, key.channel)):
        rows[key.site].append(key)
    return {
        key: (_STEP * (column - (len(row) - 1) / 2), _STEP * number)
        for number, row in enumerate(rows.values())
        for column, key in enumerate(row)
    }
