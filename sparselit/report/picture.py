"""The picture of a circuit: a layered graph, tokens and positions at the bottom, logits at the top.

The rows are the sites. A channel of the residual stream is one vertical line from its first write to its last read, so
what is written and what is read stand above each other; ``layout`` moves the order within the rows until few edges
cross. Lengths are inches; nothing global of matplotlib is touched.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from sparselit.circuits.circuit import Circuit, KeptEdge
from sparselit.report.layout import Columns, Place, Thing
from sparselit.report.terminal import Node, ends, head_of, node_label

POSITIVE, NEGATIVE = "#2a6fbb", "#e07b12"  # told apart by every kind of colour vision
LABELLED = 150  # edges; with more, labels cannot be read
_INK, _GREY, _LINE, _SHADE = "#1c1c1c", "#6a6a6a", "#9a9a9a", "#f2f4f7"
_FILLS = {"token": "#fff3c4", "logits": "#fff3c4", "act": "#dcf1e1", "q": "#e9e2f7", "k": "#e9e2f7", "v": "#e9e2f7"}
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
Point = tuple[float, float]
Points = Mapping[Node, Point]


def draw(circuit: Circuit) -> Figure:
    """The circuit as a figure; its ``savefig`` writes it.

    Args:
        circuit: what is drawn. Above 150 edges the labels are left out, and the title says so.
    """
    pairs = ends(circuit)
    named = len(pairs) <= LABELLED
    nodes = {node for pair in pairs for node in pair} | {(site, c) for site, cs in circuit.nodes.items() for c in cs}
    attention = _attention(circuit, nodes)
    nodes |= {node for link in attention for node in link}
    boxes = {node: _Box(circuit, node, named) for node in sorted(nodes, key=lambda n: (_place(circuit, n), n))}
    x = Columns(boxes, [*pairs, *attention], _passed).solve(refine=named)
    y = _heights([box.place for box in boxes.values()], len(pairs))
    span = max((x[box.thing] + box.width / 2 for box in boxes.values()), default=0.0)
    width = max(8.8, _LEFT + span + _RIGHT)  # room for the legend
    indent = _LEFT + (width - _LEFT - _RIGHT - span) / 2
    title = _title(circuit, int((width - 0.4) / 0.068))
    height = max(y.values(), default=_BASE) + 0.55 + 0.2 * len(title)
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    for i, line in enumerate(title):
        style: dict[str, Any] = {"size": 9} if i else {"size": 12, "weight": "bold"}
        axes.text(0.2, height - 0.28 - 0.2 * i, line, color=_INK, va="center", parse_math=False, **style)
    _name_rows(axes, circuit, y, width)
    at = {node: (indent + x[box.thing], y[box.place]) for node, box in boxes.items()}
    _stream(axes, at, boxes)
    for link in attention:
        axes.add_line(Line2D(*zip(*(at[node] for node in link), strict=True), color=_LINE, lw=1, ls=(0, (3, 2))))
    largest = max((abs(weight) for *_, weight in circuit.edges), default=0.0) or 1.0
    for pair, edge in sorted(zip(pairs, circuit.edges, strict=True), key=lambda item: -abs(item[1][3])):
        source, target = (boxes[node] for node in pair)
        start = at[pair[0]][0], at[pair[0]][1] + source.height / 2
        end = at[pair[1]][0], at[pair[1]][1] - target.height / 2
        if (source.kind, target.kind) == ("token", "logits"):
            path = _detour(start, end, width - _RIGHT / 2)
        else:
            passed = y.get(_passed(target.place[0])[0]) if target.kind == "v" else None
            path = _path(start, end, end[1] if passed is None else passed - 0.2)
        axes.add_patch(_patch(path, edge, largest))
    for node, box in boxes.items():
        box.draw(axes, *at[node])
    if pairs:
        _legend(axes, largest, bool(attention))
    return figure


class _Box:
    """A node as it is drawn.

    Attributes:
        thing: what gives it its x.
        place: its row.
        group: things of one group stay together in their row: the head, or the thing itself.
        width: of the box.
        height: of the box.
    """

    def __init__(self, circuit: Circuit, node: Node, named: bool) -> None:
        site, channel = node
        self.kind = site.rpartition(".")[2]
        self.place = _place(circuit, node)
        stream = self.kind in ("in", "out", "embed", "positions")
        offset = circuit.model.config["d_model"] if site == "positions" else 0
        self.thing: Thing = ("stream", channel + offset) if stream else node
        self.group: tuple[str, int] = self.thing
        self.width = self.height = 0.09
        self.text, self.caption = "", ""
        if self.kind in ("q", "k", "v", "pattern"):
            head = channel if self.kind == "pattern" else head_of(circuit, channel)[0]
            self.group = site.rpartition(".")[0], head
        if named and self.kind != "pattern":
            text, caption = node_label(circuit, node)
            self.text = "".join(c if c < "ɐ" else ascii(c)[1:-1] for c in text)  # what every font has
            self.text = f"{self.kind} {self.text}" if self.kind in ("q", "k") else self.text
            self.caption = "position" if self.kind == "position" else caption
            self.width = max(0.3, 0.16 + 0.078 * len(self.text), 0.14 + 0.056 * len(self.caption))
            self.height = 0.36 if self.caption else 0.24

    def draw(self, axes: Axes, x: float, y: float) -> None:
        """Draw it around ``x, y``."""
        if self.kind == "pattern":
            axes.add_line(Line2D([x], [y], marker="D", ms=4.5, mfc="white", mec=_LINE, zorder=4))
            return
        corner = x - self.width / 2, y - self.height / 2
        shape = f"round,pad=0,rounding_size={min(0.07, self.width / 2)}"
        fill = _FILLS.get(self.kind, "white")
        axes.add_patch(FancyBboxPatch(corner, self.width, self.height, shape, fc=fill, ec="#5a5a5a", lw=0.8, zorder=4))
        low = y - 0.085 if self.caption else y
        style: dict[str, Any] = {"size": 8.5}
        if self.kind in ("token", "logits"):  # a bare quotation mark is small and hangs high
            style = {"family": "monospace", "weight": "bold", "size": 13 if self.caption else 9.5}
            y -= 0.06 if self.caption else 0.0
        common: dict[str, Any] = {"ha": "center", "color": _INK, "zorder": 5, "parse_math": False}
        axes.text(x, y + (0.07 if self.caption else -0.005), self.text, va="center", **style, **common)
        axes.text(x, low, self.caption, va="center", size=6.5, **common)


def _place(circuit: Circuit, node: Node) -> Place:
    """The row of a node."""
    site = node[0]
    if site in _OUTER_ROWS:
        return _OUTER_ROWS[site]
    if site.startswith("layers."):
        _, layer, kind = site.split(".", 2)
        return int(layer), _LAYER_ROWS.index(_ROWS[kind])
    return circuit.model.config["n_layers"], int(site == "logits")


def _passed(layer: int) -> tuple[Place, Place]:
    """The rows through which edges to the values of a layer pass."""
    return (layer, _LAYER_ROWS.index("queries, keys")), (layer, _LAYER_ROWS.index("attention"))


def _heights(places: Sequence[Place], edges: int) -> dict[Place, float]:
    """The y of each row. Rows between which only the residual stream runs are closer than others."""
    y: dict[Place, float] = {}
    near = {_LAYER_ROWS.index(name) for name in ("attention reads", "MLP reads")}
    wide = 0.72 + min(0.6, 0.007 * edges)
    height = _BASE
    for before, place in zip([None, *sorted(set(places))], sorted(set(places)), strict=False):
        if before is not None:
            (_, above), (layer, row) = before, place
            attention = layer == before[0] >= 0 and _LAYER_ROWS.index("attention") in (above, row)
            reads = (row in near if before[0] >= 0 or above == 1 else False) or (row == 0 and layer > 0)
            height += 0.4 if attention else 0.55 if reads else wide
        y[place] = height
    return y


def _attention(circuit: Circuit, nodes: set[Node]) -> list[tuple[Node, Node]]:
    """Links from queries and keys to their head's pattern, and from there to its values."""
    below: list[tuple[Node, Node]] = []
    above: list[tuple[Node, Node]] = []
    for site, channel in sorted(nodes):
        if site.endswith((".attn.q", ".attn.k", ".attn.v")):
            pattern = f"{site[:-1]}pattern", head_of(circuit, channel)[0]
            (above if site.endswith("v") else below).append((pattern, (site, channel)))
    heads = {pattern for pattern, _ in below}
    return [(node, pattern) for pattern, node in below] + [link for link in above if link[0] in heads]


def _path(start: Point, end: Point, turn: float) -> Path:
    """A curve from the top of the source, standing upright from height ``turn`` on, to the bottom of the target."""
    (x0, y0), (x1, _) = start, end
    bend = 0.45 * (turn - y0)
    points = [start, (x0, y0 + bend), (x1, turn - bend), (x1, turn), end]
    return Path(points, [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO])


def _detour(start: Point, end: Point, side: float) -> Path:
    """From a token straight to a logit, round the layers."""
    (x0, y0), (x1, y1) = start, end
    points = [start, (x0, y0 + 0.5), (side, y0), (side, y0 + 0.5), (side, y1 - 0.5), (side, y1), (x1, y1 - 0.5), end]
    return Path(points, [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3])


def _patch(path: Path, edge: KeptEdge, largest: float) -> PathPatch:
    name, row, column, weight = edge
    color = POSITIVE if weight > 0 else NEGATIVE
    line_width = _line_width(weight, largest)
    return PathPatch(path, fc="none", ec=color, lw=line_width, alpha=0.9, zorder=3, gid=f"{name}[{row},{column}]")


def _line_width(weight: float, largest: float) -> float:
    return 0.6 + 3.4 * abs(weight) / largest


def _stream(axes: Axes, at: Points, boxes: Mapping[Node, _Box]) -> None:
    """Dotted lines: each residual channel from its first write to its last read."""
    spans: dict[Thing, tuple[list[Node], list[Node]]] = defaultdict(lambda: ([], []))
    for node, box in boxes.items():
        if box.thing[0] == "stream":
            spans[box.thing][box.kind == "in"].append(node)
    for writes, reads in spans.values():
        if writes and reads and at[writes[0]][1] < at[reads[-1]][1]:
            (x, low), (_, high) = at[writes[0]], at[reads[-1]]
            axes.add_line(Line2D([x, x], [low, high], color=_LINE, lw=1.3, ls=(0, (1, 1.6)), zorder=2))


def _name_rows(axes: Axes, circuit: Circuit, y: Mapping[Place, float], width: float) -> None:
    """Shade each layer, and name layers and rows at the left."""
    last = circuit.model.config["n_layers"]
    for layer in sorted({layer for layer, _ in y if 0 <= layer < last}):
        heights = [height for (other, _), height in y.items() if other == layer]
        low, high = min(heights) - 0.26, max(heights) + 0.26
        axes.add_patch(Rectangle((0.15, low), width - 0.3, high - low, fc=_SHADE, ec="none", zorder=0))
        axes.text(
            0.34, (low + high) / 2, f"layer {layer}", rotation=90, ha="center", va="center", size=9, weight="bold",
            color=_GREY,
        )  # fmt: skip
    for (layer, row), height in y.items():
        outer = ("tokens, positions", "embedding") if layer < 0 else ("final read", "logits")
        name = _LAYER_ROWS[row] if 0 <= layer < last else outer[row]
        axes.text(0.52, height, name, va="center", size=8, color=_GREY)


def _title(circuit: Circuit, columns: int) -> list[str]:
    size, held = circuit.size, circuit.evidence.held_out
    lines = [f"{circuit.task.name}: {size.edges:,} edges, {size.nodes:,} nodes, {size.free:,} free"]
    bounds = [f"{row} (it is {row.value:.3g})" for row in circuit.criterion]
    kind, *details = str(circuit.ablation).split(", ")
    lines += textwrap.wrap(", ".join([f"{kind} ablation", *details, *bounds]), columns)
    low, high = (100 * end for end in held.accuracy_interval)
    share = f"accuracy {100 * held.accuracy:.2f} % (95 % interval {low:.2f} – {high:.2f} %)"
    lines += textwrap.wrap(f"report split: {share}, n = {held.n:,}", columns)
    if not circuit.edges:
        lines.append("there are no edges to draw")
    if len(circuit.edges) > LABELLED:
        lines.append(f"the labels are left out: there are more than {LABELLED} edges")
    return lines


def _legend(axes: Axes, largest: float, attention: bool) -> None:
    x, y = 0.3, 0.25
    entries: list[tuple[str, dict[str, Any]]] = [
        ("positive weight", {"color": POSITIVE, "lw": 2.4}),
        ("negative", {"color": NEGATIVE, "lw": 2.4}),
        *((f"{share * largest:.2g}", {"color": _GREY, "lw": _line_width(share, 1.0)}) for share in (0.1, 0.5, 1.0)),
        ("residual stream", {"color": _LINE, "lw": 1.3, "ls": (0, (1, 1.6))}),
    ]
    if attention:
        entries.append(("attention", {"color": _LINE, "lw": 1, "ls": (0, (3, 2))}))
    for text, style in entries:
        axes.add_line(Line2D([x, x + 0.32], [y, y], **style))
        axes.text(x + 0.39, y, text, va="center", size=8, color=_INK)
        x += 0.39 + 0.068 * len(text) + 0.26
