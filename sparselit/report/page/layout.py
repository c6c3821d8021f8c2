"""Where the nodes of a page's graph stand: sites give the rows, barycentres the order within them.

Unlike the static picture's layout, which tries many orders, this one takes a fixed number of sweeps that are linear in
edges, so that thousands of them cost a fraction of a second. Lengths are pixels of the page at zoom 1, y downwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sparselit.circuits.use.graph import Node, NodeKey
from sparselit.model.site_table import site

SWEEPS = 12
_GAP, _HEAD_GAP, _HEIGHT = 10.0, 18.0, 24.0  # between boxes; more around a head; of a box
_ROW_LEAST, _ROW_MOST, _ASPECT = 70.0, 400.0, 1.4  # distance of rows; width to height that is aimed at
_MARGIN = 40.0
#: Rows of a layer from the bottom up, by block and kind of site, and what they are called.
_LAYER_ROWS = (
    (("attn.in",), "attention reads"),
    (("attn.q", "attn.k", "attn.v"), "heads"),
    (("attn.out",), "attention writes"),
    (("mlp.in",), "MLP reads"),
    (("mlp.act",), "neurons"),
    (("mlp.out",), "MLP writes"),
)
_ROW_OF = {kind: number for number, (kinds, _) in enumerate(_LAYER_ROWS) for kind in kinds}
_TOP = 1 << 30  # a layer above all others
_OUTER = {
    "token": (-1, 0, "tokens, positions"),
    "position": (-1, 0, "tokens, positions"),
    "embed": (-1, 1, "embedding"),
    "positions": (-1, 1, "embedding"),
    "unembed.in": (_TOP, 0, "final read"),
    "logits": (_TOP, 1, "logits"),
}
_ORDER_IN_HEAD = {"q": 0, "k": 1, "v": 2}


class RowKey(NamedTuple):
    """A row: its layer, and its number within, from the bottom up."""

    layer: int
    number: int


@dataclass(frozen=True)
class PlacedRow:
    """A row of nodes.

    Attributes:
        name: what stands at its left.
        layer: None outside of the layers.
        y: its middle.
    """

    name: str
    layer: int | None
    y: float


@dataclass(frozen=True)
class Track:
    """A channel of the residual stream, from the first node that writes it to the last that reads it.

    Attributes:
        channel: its number.
        x: where it runs.
        bottom: y of the first write.
        top: y of the last read.
    """

    channel: int
    x: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Layout:
    """Where everything stands.

    Attributes:
        x: of each node's middle.
        y: of each node's middle.
        widths: of each node's box.
        rows: from the bottom up.
        row: of each node, an index into ``rows``.
        tracks: of the residual stream.
        width: of all.
        height: of all.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    widths: tuple[float, ...]
    rows: tuple[PlacedRow, ...]
    row: tuple[int, ...]
    tracks: tuple[Track, ...]
    width: float
    height: float


def layout(nodes: Sequence[Node], links: Iterable[tuple[NodeKey, NodeKey]], d_model: int) -> Layout:
    """Where nodes stand.

    Args:
        nodes: in the order of the forward pass.
        links: the edges, source first.
        d_model: channels of the residual stream; those of concatenated positions are counted after them.
    """
    keys = [_row_key(node) for node in nodes]
    order = sorted(set(keys))
    row = [order.index(key) for key in keys]
    columns = _Columns(nodes, row, links, d_model)
    x = columns.solve()
    span = max((at + width / 2 for at, width in zip(x, columns.widths, strict=True)), default=0.0) + _MARGIN
    gap = min(_ROW_MOST, max(_ROW_LEAST, span / _ASPECT / max(1, len(order))))
    height = gap * max(0, len(order) - 1) + 2 * _MARGIN
    heights = [height - _MARGIN - gap * i for i in range(len(order))]
    rows = tuple(_placed(key, y) for key, y in zip(order, heights, strict=True))
    y = [heights[number] for number in row]
    tracks = tuple(_tracks(nodes, x, y, d_model))
    return Layout(tuple(x), tuple(y), tuple(columns.widths), rows, tuple(row), tracks, span, height)


def _row_key(node: Node) -> RowKey:
    if node.layer is None:
        return RowKey(*_OUTER[node.site][:2])
    return RowKey(node.layer, _ROW_OF[f"{node.block}.{node.kind}"])


def _placed(key: RowKey, y: float) -> PlacedRow:
    if 0 <= key.layer < _TOP:
        return PlacedRow(_LAYER_ROWS[key.number][1], key.layer, y)
    name = next(name for layer, number, name in _OUTER.values() if (layer, number) == key)
    return PlacedRow(name, None, y)


def box_width(node: Node) -> float:
    """Width of a node's box, which its text fits into."""
    text = f"{node.kind} {node.label}" if node.head is not None else node.label
    caption = "" if node.head is not None else node.caption
    return min(130.0, max(26.0, 12.0 + 6.7 * len(text), 8.0 + 4.9 * len(caption)))


def stream_channel(node: Node, d_model: int) -> int | None:
    """The channel of the residual stream, or of the concatenated positions after it, that a node is; None elsewhere."""
    row = site(node.site)
    if row.axis == "concatenated":
        return d_model + node.channel
    return node.channel if row.on_stream else None


class _Columns:
    """The x of each node: stream channels share theirs in all rows, all else has its own.

    Args:
        nodes: what is placed.
        row: of each node.
        links: between them.
        d_model: channels of the residual stream.
    """

    def __init__(
        self, nodes: Sequence[Node], row: Sequence[int], links: Iterable[tuple[NodeKey, NodeKey]], d_model: int
    ) -> None:
        self.widths = [box_width(node) for node in nodes]
        number: dict[tuple[str, int], int] = {}
        channels: dict[int, int] = {}
        self.thing: list[int] = []
        self.stream: list[int] = []
        self.free: dict[int, list[int]] = defaultdict(list)  # things by row
        self.group: dict[int, tuple[int, int]] = {}
        self.half: list[float] = []
        for i, node in enumerate(nodes):
            channel = stream_channel(node, d_model)
            key = (node.site, node.channel) if channel is None else ("stream", channel)
            if key not in number:
                number[key] = len(number)
                self.half.append(0.0)
                (self.free[row[i]] if channel is None else self.stream).append(number[key])
                if node.head is not None:
                    self.group[number[key]] = node.head, _ORDER_IN_HEAD.get(node.kind, 0)
            thing = number[key]
            channels[thing] = key[1]
            self.half[thing] = max(self.half[thing], self.widths[i] / 2)
            self.thing.append(thing)
        self.stream.sort(key=lambda thing: channels[thing])
        place = {node.key: self.thing[i] for i, node in enumerate(nodes)}
        self.near: list[list[int]] = [[] for _ in number]
        for source, target in links:
            a, b = place[source], place[target]
            if (source.site, target.site) != ("token", "logits"):
                self.near[a].append(b)
                self.near[b].append(a)

    def solve(self) -> list[float]:
        """Left-aligned x of each node."""
        x = [0.0] * len(self.near)
        _spread(x, self.stream, [float(i) for i in range(len(self.stream))], self._room)
        for rows in self.free.values():
            _spread(x, rows, [0.0] * len(rows), self._room)
        for _ in range(SWEEPS):
            for _, things in sorted(self.free.items()):
                self._order_row(x, things)
            self._order(x, self.stream)
        for _, things in sorted(self.free.items()):
            self._order_row(x, things)
        left = min((x[t] - self.half[t] for t in range(len(x))), default=0.0) - _MARGIN
        return [x[thing] - left for thing in self.thing]

    def _wanted(self, x: Sequence[float], thing: int) -> float:
        near = self.near[thing]
        return sum(x[other] for other in near) / len(near) if near else x[thing]

    def _order(self, x: list[float], things: list[int]) -> None:
        wanted = {thing: self._wanted(x, thing) for thing in things}
        ordered = sorted(things, key=lambda thing: (round(wanted[thing], 3), thing))
        _spread(x, ordered, [wanted[thing] for thing in ordered], self._room)

    def _order_row(self, x: list[float], things: list[int]) -> None:
        """Heads stay together: first queries, then keys, then values."""
        wanted = {thing: self._wanted(x, thing) for thing in things}
        means: dict[int, list[float]] = defaultdict(list)
        for thing in things:
            if thing in self.group:
                means[self.group[thing][0]].append(wanted[thing])
        middle = {head: sum(values) / len(values) for head, values in means.items()}

        def key(thing: int) -> tuple[float, int, int, float, int]:
            if thing not in self.group:
                return round(wanted[thing], 3), -1, 0, 0.0, thing
            head, kind = self.group[thing]
            return round(middle[head], 3), head, kind, round(wanted[thing], 3), thing

        ordered = sorted(things, key=key)
        _spread(x, ordered, [wanted[thing] for thing in ordered], self._room)

    def _room(self, left: int, right: int) -> float:
        """Least distance of two neighbours."""
        heads = self.group.get(left, (-1, 0))[0], self.group.get(right, (-1, 0))[0]
        return self.half[left] + self.half[right] + (_GAP if heads[0] == heads[1] else _HEAD_GAP + _GAP)


def _spread(x: list[float], ordered: Sequence[int], wanted: Sequence[float], room: Callable[[int, int], float]) -> None:
    """Put things as near as possible to where they are wanted, in this order and apart (pool adjacent violators)."""
    offsets, at = [], 0.0
    for i, thing in enumerate(ordered):
        at += room(ordered[i - 1], thing) if i else 0.0
        offsets.append(at)
    pools: list[tuple[float, int]] = []  # mean, members
    for goal, offset in zip(wanted, offsets, strict=True):
        mean, count = goal - offset, 1
        while pools and pools[-1][0] >= mean:
            other, many = pools.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    for thing, mean, offset in zip(ordered, means, offsets, strict=True):
        x[thing] = mean + offset


def _tracks(nodes: Sequence[Node], x: Sequence[float], y: Sequence[float], d_model: int) -> Iterable[Track]:
    spans: Mapping[int, dict[str, list[int]]] = defaultdict(lambda: {"reads": [], "writes": []})
    for i, node in enumerate(nodes):
        channel = stream_channel(node, d_model)
        if channel is not None:
            spans[channel][site(node.site).role or "writes"].append(i)
    for channel, ends in sorted(spans.items()):
        if ends["reads"] and ends["writes"]:
            bottom, top = max(y[i] for i in ends["writes"]), min(y[i] for i in ends["reads"])
            if bottom > top:
                yield Track(channel, x[ends["writes"][0]], bottom, top)
