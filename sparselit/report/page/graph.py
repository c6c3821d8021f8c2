"""The graphs of one or several circuits as a page's data: nodes with places, edges with a weight for each circuit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.use.graph import Graph, Link, Node, NodeKey, graph_of
from sparselit.errors import SparselitError
from sparselit.model.site_table import Shape, site
from sparselit.model.wiring import Place, place_name
from sparselit.report.facts import visible
from sparselit.report.page.layout import layout
from sparselit.report.story import block_words, node_words

_DIGITS = 6  # significant, of weights and losses


def graph_data(circuits: Sequence[Circuit]) -> dict[str, Any]:
    """Nodes, edges, biases, rows and tracks, of all circuits together, each in one place.

    Args:
        circuits: at least one, of models of one shape.

    Raises:
        SparselitError: their models have different shapes.
    """
    first = circuits[0]
    for other in circuits[1:]:
        if Shape.of(other.model.config) != Shape.of(first.model.config):
            raise SparselitError("the circuits belong to models of different shapes, so that no place is shared")
    graphs = [graph_of(circuit) for circuit in circuits]
    found: dict[NodeKey, tuple[Node, Circuit]] = {}
    for graph, circuit in zip(graphs, circuits, strict=True):
        for node in graph.nodes:
            found.setdefault(node.key, (node, circuit))
    keys = sorted(found, key=lambda key: (site(key.site).order, key.channel))
    nodes = [found[key][0] for key in keys]
    links: dict[Place, Link] = {}
    for graph in graphs:
        for link in graph.links:
            links.setdefault(link.place, link)
    edges = [link for link in links.values() if link.source is not None]
    shape = Shape.of(first.model.config)
    placed = layout(nodes, [Graph.keys(graphs[0], link) for link in edges], shape.d_model)
    number = {key: i for i, key in enumerate(keys)}
    lost = [losses(circuit) for circuit in circuits]
    sites = list(dict.fromkeys(node.site for node in nodes))
    parameters = list(dict.fromkeys(link.parameter for link in links.values()))

    def entry(link: Link, start: int) -> list[Any]:
        name = place_name(link.place, link.is_bias)
        weights = [_rounded(circuit.weights.get(link.place)) for circuit in circuits]
        losses = [_rounded(table.get(name)) for table in lost]
        return [start, number[link.target], parameters.index(link.parameter), link.row, link.column, weights, losses]

    return {
        "sites": sites,
        "parameters": parameters,
        "nodes": [
            {
                "site": sites.index(node.site),
                "channel": node.channel,
                "label": visible(node.label),
                "caption": visible(node.caption),
                "words": visible(node_words(found[node.key][1], node.key)),
                "where": _where(node),
                "role": site(node.site).role,
                "kind": node.kind,
                "layer": node.layer,
                "block": node.block,
                "head": node.head,
                "x": round(placed.x[i], 1),
                "y": round(placed.y[i], 1),
                "w": round(placed.widths[i], 1),
                "row": placed.row[i],
            }
            for i, node in enumerate(nodes)
        ],
        "edges": [entry(link, number[link.source]) for link in edges if link.source is not None],
        "biases": [entry(link, -1) for link in links.values() if link.source is None],
        "rows": [{"name": row.name, "layer": row.layer, "y": round(row.y, 1)} for row in placed.rows],
        "tracks": [[t.channel, round(t.x, 1), round(t.bottom, 1), round(t.top, 1)] for t in placed.tracks],
        "width": round(placed.width, 1),
        "height": round(placed.height, 1),
        "metrics": [removed_metric(circuit) for circuit in circuits],
        "d_head": shape.d_head,
    }


def removed_metric(circuit: Circuit) -> str:
    """The metric of the certificate that is shown for an edge that is removed alone: a loss where there is one."""
    bounds = [bound.metric for bound in circuit.certificate.criterion]
    return next((name for name in bounds if name.endswith("loss")), bounds[0] if bounds else "task_loss")


def losses(circuit: Circuit) -> dict[str, float]:
    """That metric without each unit of the certificate, by the unit's name."""
    metric = removed_metric(circuit)
    return {unit: values[metric] for unit, values in circuit.certificate.removals if metric in values}


def _where(node: Node) -> str:
    role = site(node.site).role
    return f"{'read by' if role == 'reads' else 'written by'} {block_words(node.site)}" if role else ""


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
