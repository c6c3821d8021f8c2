"""What a picture of a circuit consists of, as data for any renderer: bands, boxes, links, lines and labels.

Lengths are inches from the lower left corner, thicknesses are points.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Point = tuple[float, float]
Node = tuple[str, int]  # site and channel


@dataclass(frozen=True)
class Band:
    """The background of one layer.

    Attributes:
        layer: its number.
        x: left end.
        y: lower end.
        width: from left to right.
        height: from bottom to top.
    """

    layer: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Box:
    """A node.

    Attributes:
        site: where its activation is, as ``layers.0.mlp.act``.
        channel: its number there.
        kind: the last word of the site, or ``pattern`` for a head's attention.
        x: centre.
        y: centre.
        width: from left to right.
        height: from bottom to top.
    """

    site: str
    channel: int
    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Link:
    """An edge.

    Attributes:
        name: its parameter, row and column, as ``layers.0.mlp.up.weight[12,7]``.
        weight: blue where positive, orange where negative, by convention.
        source: the node it begins at.
        target: the node it ends at.
        thickness: of the stroke, by the weight's magnitude.
        start: where the stroke begins.
        segments: a line to one point, or a cubic curve by two control points and its end.
    """

    name: str
    weight: float
    source: Node
    target: Node
    thickness: float
    start: Point
    segments: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True)
class Line:
    """A straight line that is no edge.

    Attributes:
        kind: ``stream`` (a residual channel), ``attention`` (queries and keys to a pattern, that to the values), and
            in the legend also ``positive``, ``negative`` and ``scale``.
        start: one end.
        end: the other end.
        thickness: of the stroke.
    """

    kind: str
    start: Point
    end: Point
    thickness: float


@dataclass(frozen=True)
class Label:
    """A text.

    Attributes:
        kind: ``title``, ``subtitle``, ``layer`` (upright at the left), ``row``, ``legend``; in a box ``node``,
            ``token``, ``glyph`` (a token that has a name) and ``caption``.
        text: what it says.
        x: the left end, or the centre of ``layer`` and of what stands in a box.
        y: the middle.
    """

    kind: str
    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Geometry:
    """A picture: everything that is drawn, each kind in the order of drawing.

    Attributes:
        width: of the picture.
        height: of the picture.
        bands: behind everything.
        labels: texts.
        lines: residual stream, attention, legend.
        links: edges, the thickest first.
        boxes: nodes, in front.
    """

    width: float
    height: float
    bands: tuple[Band, ...]
    labels: tuple[Label, ...]
    lines: tuple[Line, ...]
    links: tuple[Link, ...]
    boxes: tuple[Box, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain lists and mappings of the same names."""
        return asdict(self)
