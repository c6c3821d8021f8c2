"""The geometry of a circuit's picture as data: where boxes, links, lines and labels stand, for any renderer.

The rows are the sites, tokens and positions at the bottom, logits at the top. A channel of the residual stream is one
vertical line from its first write to its last read, so what is written and what is read stand above each other;
``layout`` moves the order within the rows until few edges cross. Lengths are inches from the lower left corner,
thicknesses are points.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.use.graph import Graph, NodeKey, graph_of
from sparselit.model.site_table import site
from sparselit.model.wiring import place_name
from sparselit.report.facts import interval_text, percent, size_text
from sparselit.report.layout import Columns, Row, Thing
from sparselit.report.shapes import Band, Box, Geometry, Label, Line, Link, Point

LABELLED = 150  # edges; with more, labels cannot be read
#: Kinds of site from the bottom of a layer up, and what their row is called.
_ROWS = {
    "attn.in": "attention reads",
    "attn.q": "queries, keys",
    "attn.k": "queries, keys",
    "attn.pattern": "attention",
    "attn.v": "values",
    "attn.out": "attention writes",
    "mlp.in": "MLP reads",
    "mlp.act": "neurons",
    "mlp.out": "MLP writes",
}
_LAYER_ROWS = list(dict.fromkeys(_ROWS.values()))
_OUTER_ROWS = {"token": (-1, 0), "position": (-1, 0), "embed": (-1, 1), "positions": (-1, 1)}
_LEFT, _RIGHT, _BASE = 1.75, 0.3, 0.85  # margins; height of the lowest row
_STREAM, _ATTENTION = ("stream", 1.3), ("attention", 1.0)  # kinds of line and their thickness


def geometry(circuit: Circuit) -> Geometry:
    """Where everything in a circuit's picture stands.

    Args:
        circuit: what is drawn. Above 150 edges the labels are left out, and the title says so.
    """
    graph = graph_of(circuit)
    pairs = [graph.keys(link) for link in graph.edges]
    named, attention = len(pairs) <= LABELLED, graph.attention
    nodes = {node.key for node in graph.nodes} | {node for link in attention for node in link}
    shapes = {n: _shape(circuit, graph, n, named) for n in sorted(nodes, key=lambda n: (_row(circuit, n), n))}
    x = Columns(shapes, [*pairs, *attention], _passed).solve(refine=named)
    y = _heights([shape.row for shape in shapes.values()], len(pairs))
    span = max((x[shape.thing] + shape.width / 2 for shape in shapes.values()), default=0.0)
    width = max(8.8, _LEFT + span + _RIGHT)  # room for the legend
    indent = _LEFT + (width - _LEFT - _RIGHT - span) / 2
    title = _title(circuit, int((width - 0.4) / 0.068))
    height = max(y.values(), default=_BASE) + 0.55 + 0.2 * len(title)
    at = {node: (indent + x[shape.thing], y[shape.row]) for node, shape in shapes.items()}
    bands = _bands(circuit, y, width)
    labels = [Label("subtitle" if i else "title", text, 0.2, height - 0.28 - 0.2 * i) for i, text in enumerate(title)]
    labels += [Label("layer", f"layer {band.layer}", 0.34, band.y + band.height / 2) for band in bands]
    labels += _row_names(circuit, y)
    labels += [label for node, shape in shapes.items() for label in shape.labels(*at[node])]
    lines = [*_stream(at, shapes), *(Line(_ATTENTION[0], at[a], at[b], _ATTENTION[1]) for a, b in attention)]
    if pairs:
        largest = _largest(circuit)
        for line, label in _legend(largest, bool(attention)):
            lines.append(line)
            labels.append(label)
    return Geometry(
        width,
        height,
        tuple(bands),
        tuple(labels),
        tuple(lines),
        tuple(_links(circuit, graph, at, shapes, y, width - _RIGHT / 2)),
        tuple(Box(*node, s.kind, *at[node], s.width, s.height) for node, s in shapes.items()),
    )


@dataclass(frozen=True)
class _Shape:
    """A node before it has a position.

    Attributes:
        kind: the last word of its site.
        row: its row.
        thing: what gives it its x.
        group: things of one group stay together in their row: the head, or the thing itself.
        text: what it is called.
        caption: what it belongs to.
        width: of its box.
        height: of its box.
    """

    kind: str
    row: Row
    thing: Thing
    group: tuple[str, int]
    text: str
    caption: str
    width: float
    height: float

    def labels(self, x: float, y: float) -> Iterator[Label]:
        """Its texts, where the box stands around ``x, y``."""
        bare = self.kind in ("token", "logits")  # a bare quotation mark is small and hangs high
        kind = ("glyph" if self.caption else "token") if bare else "node"
        if self.text:
            raised = y - 0.06 if bare and self.caption else y
            yield Label(kind, self.text, x, raised + (0.07 if self.caption else -0.005))
        if self.caption:
            yield Label("caption", self.caption, x, y - 0.085)


def _shape(circuit: Circuit, graph: Graph, node: NodeKey, named: bool) -> _Shape:
    name, channel = node
    kind = site(name).kind
    offset = circuit.model.config["d_model"] if name == "positions" else 0
    thing: Thing = ("stream", channel + offset) if kind in ("in", "out", "embed", "positions") else node
    group: tuple[str, int] = thing
    known = graph.by_key.get(node)  # a pattern is no node of the circuit
    head = channel if known is None else known.head
    if head is not None:
        group = site(name).prefix, head
    if not named or known is None:
        return _Shape(kind, _row(circuit, node), thing, group, "", "", 0.09, 0.09)
    text, caption = known.label, known.caption
    text = "".join(c if c < "ɐ" else ascii(c)[1:-1] for c in text)  # what every font has
    text = f"{kind} {text}" if kind in ("q", "k") else text
    caption = "position" if kind == "position" else caption
    width = max(0.3, 0.16 + 0.078 * len(text), 0.14 + 0.056 * len(caption))
    return _Shape(kind, _row(circuit, node), thing, group, text, caption, width, 0.36 if caption else 0.24)


def _row(circuit: Circuit, node: NodeKey) -> Row:
    if node.site in _OUTER_ROWS:
        return _OUTER_ROWS[node.site]
    of = site(node.site)
    if of.layer is not None:
        return of.layer, _LAYER_ROWS.index(_ROWS[f"{of.block}.{of.kind}"])
    return circuit.model.config["n_layers"], int(node.site == "logits")


def _passed(layer: int) -> tuple[Row, Row]:
    """The rows through which edges to the values of a layer pass."""
    return (layer, _LAYER_ROWS.index("queries, keys")), (layer, _LAYER_ROWS.index("attention"))


def _heights(rows: Sequence[Row], edges: int) -> dict[Row, float]:
    """The y of each row. Rows between which only the residual stream runs are closer than others."""
    y: dict[Row, float] = {}
    near = {_LAYER_ROWS.index(name) for name in ("attention reads", "MLP reads")}
    wide = 0.72 + min(0.6, 0.007 * edges)
    height = _BASE
    for before, row in zip([None, *sorted(set(rows))], sorted(set(rows)), strict=False):
        if before is not None:
            (_, above), (layer, number) = before, row
            attention = layer == before[0] >= 0 and _LAYER_ROWS.index("attention") in (above, number)
            reads = (number in near if before[0] >= 0 or above == 1 else False) or (number == 0 and layer > 0)
            height += 0.4 if attention else 0.55 if reads else wide
        y[row] = height
    return y


def _largest(circuit: Circuit) -> float:
    """The largest magnitude of a weight."""
    return max((abs(edge[3]) for edge in circuit.edges), default=0.0) or 1.0


def _links(
    circuit: Circuit,
    graph: Graph,
    at: Mapping[NodeKey, Point],
    shapes: Mapping[NodeKey, _Shape],
    y: Mapping[Row, float],
    side: float,
) -> Iterator[Link]:
    """The edges, the largest weight first; from a token straight to a logit round the layers, at ``side``."""
    largest = _largest(circuit)
    for link in sorted(graph.edges, key=lambda link: -abs(link.weight)):
        source, target = graph.keys(link)
        start = at[source][0], at[source][1] + shapes[source].height / 2
        end = at[target][0], at[target][1] - shapes[target].height / 2
        if (source.site, target.site) == ("token", "logits"):
            segments = _detour(start, end, side)
        else:
            passed = y.get(_passed(shapes[target].row[0])[0]) if shapes[target].kind == "v" else None
            segments = _curve(start, end, end[1] if passed is None else passed - 0.2)
        thickness = _thickness(link.weight, largest)
        yield Link(place_name(link.place, False), link.weight, source, target, thickness, start, segments)


def _curve(start: Point, end: Point, turn: float) -> tuple[tuple[Point, ...], ...]:
    """From the top of the source, standing upright from height ``turn`` on, to the bottom of the target."""
    (x0, y0), (x1, _) = start, end
    bend = 0.45 * (turn - y0)
    return ((x0, y0 + bend), (x1, turn - bend), (x1, turn)), (end,)


def _detour(start: Point, end: Point, side: float) -> tuple[tuple[Point, ...], ...]:
    """From a token straight to a logit, round the layers."""
    (x0, y0), (x1, y1) = start, end
    up = (x0, y0 + 0.5), (side, y0), (side, y0 + 0.5)
    return up, ((side, y1 - 0.5),), ((side, y1), (x1, y1 - 0.5), end)


def _thickness(weight: float, largest: float) -> float:
    return 0.6 + 3.4 * abs(weight) / largest


def _stream(at: Mapping[NodeKey, Point], shapes: Mapping[NodeKey, _Shape]) -> Iterator[Line]:
    """Each residual channel from its first write to its last read."""
    spans: dict[Thing, tuple[list[NodeKey], list[NodeKey]]] = defaultdict(lambda: ([], []))
    for node, shape in shapes.items():
        if shape.thing[0] == "stream":
            spans[shape.thing][shape.kind == "in"].append(node)
    for writes, reads in spans.values():
        if writes and reads and at[writes[0]][1] < at[reads[-1]][1]:
            (x, low), (_, high) = at[writes[0]], at[reads[-1]]
            yield Line(_STREAM[0], (x, low), (x, high), _STREAM[1])


def _bands(circuit: Circuit, y: Mapping[Row, float], width: float) -> list[Band]:
    bands = []
    for layer in sorted({layer for layer, _ in y if 0 <= layer < circuit.model.config["n_layers"]}):
        heights = [height for (other, _), height in y.items() if other == layer]
        low, high = min(heights) - 0.26, max(heights) + 0.26
        bands.append(Band(layer, 0.15, low, width - 0.3, high - low))
    return bands


def _row_names(circuit: Circuit, y: Mapping[Row, float]) -> Iterator[Label]:
    for (layer, row), height in y.items():
        outer = ("tokens, positions", "embedding") if layer < 0 else ("final read", "logits")
        inside = 0 <= layer < circuit.model.config["n_layers"]
        yield Label("row", _LAYER_ROWS[row] if inside else outer[row], 0.52, height)


def _title(circuit: Circuit, columns: int) -> list[str]:
    """What the circuit is, how it was measured and how well it does, in lines of so many characters."""
    held_out, task = circuit.evidence.held_out, circuit.task.name
    size = circuit.size
    lines = [f"{task}: {size_text(size.edges, size.nodes, size.free)}"]
    bounds = [f"{row} (it is {row.value:.3g})" for row in circuit.criterion]
    kind, *details = str(circuit.ablation).split(", ")
    lines += textwrap.wrap(", ".join([f"{kind} ablation", *details, *bounds]), columns)
    interval = f"95 % interval {interval_text(held_out.accuracy_interval, '–')}"
    right = f"report split: accuracy {percent(held_out.accuracy)} ({interval}), n = {held_out.n:,}"
    lines += textwrap.wrap(right, columns)
    if not circuit.edges:
        lines.append("there are no edges to draw")
    if len(circuit.edges) > LABELLED:
        lines.append(f"the labels are left out: there are more than {LABELLED} edges")
    return lines


def _legend(largest: float, attention: bool) -> Iterator[tuple[Line, Label]]:
    x, y = 0.3, 0.25
    entries = [
        ("positive weight", "positive", 2.4),
        ("negative", "negative", 2.4),
        *((f"{share * largest:.2g}", "scale", _thickness(share, 1.0)) for share in (0.1, 0.5, 1.0)),
        ("residual stream", *_STREAM),
        *([("attention", *_ATTENTION)] if attention else []),
    ]
    for text, kind, thickness in entries:
        yield Line(kind, (x, y), (x + 0.32, y), thickness), Label("legend", text, x + 0.39, y)
        x += 0.39 + 0.068 * len(text) + 0.26
