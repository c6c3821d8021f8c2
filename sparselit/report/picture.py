"""The picture of a circuit: :mod:`sparselit.report.geometry` drawn with matplotlib, nothing of which is global."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from sparselit.circuits.circuit import Circuit
from sparselit.report.geometry import geometry
from sparselit.report.shapes import Box, Geometry, Label, Line, Link

POSITIVE, NEGATIVE = "#2a6fbb", "#e07b12"  # distinct in every kind of colour vision
_INK, _GREY, _LINE, _SHADE, _FRAME = "#1c1c1c", "#6a6a6a", "#9a9a9a", "#f2f4f7", "#5a5a5a"
_FILLS = {"token": "#fff3c4", "logits": "#fff3c4", "act": "#dcf1e1", "q": "#e9e2f7", "k": "#e9e2f7", "v": "#e9e2f7"}
_IN_A_BOX: dict[str, Any] = {"ha": "center", "zorder": 5}
_WORD: dict[str, Any] = {**_IN_A_BOX, "family": "monospace", "weight": "bold"}
#: How each kind of label looks.
_TEXTS: dict[str, dict[str, Any]] = {
    "title": {"size": 12, "weight": "bold"},
    "subtitle": {"size": 9},
    "layer": {"size": 9, "weight": "bold", "color": _GREY, "rotation": 90, "ha": "center"},
    "row": {"size": 8, "color": _GREY},
    "legend": {"size": 8},
    "node": {**_IN_A_BOX, "size": 8.5},
    "caption": {**_IN_A_BOX, "size": 6.5},
    "token": {**_WORD, "size": 9.5},
    "glyph": {**_WORD, "size": 13},
}
#: How each kind of line looks.
_LINES: dict[str, dict[str, Any]] = {
    "stream": {"color": _LINE, "ls": (0, (1, 1.6))},
    "attention": {"color": _LINE, "ls": (0, (3, 2))},
    "positive": {"color": POSITIVE},
    "negative": {"color": NEGATIVE},
    "scale": {"color": _GREY},
}


def draw(circuit: Circuit) -> Figure:
    """The circuit as a figure; its ``savefig`` writes it.

    Args:
        circuit: what is drawn. Above 150 edges the labels are left out, and the title says so.
    """
    return render(geometry(circuit))


def render(drawn: Geometry) -> Figure:
    """A figure with everything that a geometry holds."""
    figure = Figure(figsize=(drawn.width, drawn.height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, drawn.width), ylim=(0, drawn.height))
    axes.set_axis_off()
    for band in drawn.bands:
        axes.add_patch(Rectangle((band.x, band.y), band.width, band.height, fc=_SHADE, ec="none", zorder=0))
    for label in drawn.labels:
        _text(axes, label)
    for line in drawn.lines:
        _line(axes, line)
    for link in drawn.links:
        axes.add_patch(_link(link))
    for box in drawn.boxes:
        _box(axes, box)
    return figure


def _text(axes: Axes, label: Label) -> None:
    style = {"color": _INK, "va": "center", "parse_math": False, **_TEXTS[label.kind]}
    axes.text(label.x, label.y, label.text, **style)


def _line(axes: Axes, line: Line) -> None:
    (x0, y0), (x1, y1) = line.start, line.end
    axes.add_line(Line2D([x0, x1], [y0, y1], lw=line.thickness, **_LINES[line.kind]))


def _link(link: Link) -> PathPatch:
    points = [link.start, *(point for segment in link.segments for point in segment)]
    codes = [Path.MOVETO]
    for segment in link.segments:
        codes += [Path.CURVE4] * 3 if len(segment) == 3 else [Path.LINETO]
    color = POSITIVE if link.weight > 0 else NEGATIVE
    return PathPatch(Path(points, codes), fc="none", ec=color, lw=link.thickness, alpha=0.9, zorder=3, gid=link.name)


def _box(axes: Axes, box: Box) -> None:
    if box.kind == "pattern":
        axes.add_line(Line2D([box.x], [box.y], marker="D", ms=4.5, mfc="white", mec=_LINE, zorder=4))
        return
    corner = box.x - box.width / 2, box.y - box.height / 2
    shape = f"round,pad=0,rounding_size={min(0.07, box.width / 2)}"
    fill = _FILLS.get(box.kind, "white")
    axes.add_patch(FancyBboxPatch(corner, box.width, box.height, shape, fc=fill, ec=_FRAME, lw=0.8, zorder=4))
