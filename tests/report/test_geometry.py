"""The picture as data: every node and edge once, links that touch their boxes, and plain JSON without matplotlib."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sparselit.report.geometry import LABELLED, geometry
from tests.report.test_picture import EDGES, circuit, many_edges


@pytest.mark.parametrize("count", [0, 1, 60, LABELLED + 50])
def test_every_edge_is_a_link_from_the_top_of_one_box_to_the_bottom_of_another(count: int) -> None:
    edges = many_edges(count)
    drawn = geometry(circuit(edges))
    boxes = {(box.site, box.channel): box for box in drawn.boxes}
    assert sorted(link.name for link in drawn.links) == sorted(f"{name}[{r},{c}]" for name, r, c, _ in edges)
    assert [abs(link.weight) for link in drawn.links] == sorted((abs(e[3]) for e in edges), reverse=True)
    for link in drawn.links:
        source, target = boxes[link.source], boxes[link.target]
        assert link.start == (source.x, source.y + source.height / 2)
        assert link.segments[-1][-1] == (target.x, target.y - target.height / 2)
        assert {len(segment) for segment in link.segments} <= {1, 3}


def test_everything_stands_inside_of_the_picture() -> None:
    drawn = geometry(circuit(EDGES, bigram=True))
    points = [(box.x, box.y) for box in drawn.boxes] + [(label.x, label.y) for label in drawn.labels]
    points += [point for line in drawn.lines for point in (line.start, line.end)]
    points += [point for link in drawn.links for segment in link.segments for point in segment]
    assert all(0 < x < drawn.width and 0 < y < drawn.height for x, y in points)
    assert {label.kind for label in drawn.labels} >= {"title", "layer", "row", "node", "glyph", "caption", "legend"}


def test_it_is_plain_json() -> None:
    drawn = geometry(circuit(EDGES, bigram=True))
    content = json.loads(json.dumps(drawn.as_json()))
    assert list(content) == ["width", "height", "bands", "labels", "lines", "links", "boxes"]
    assert len(content["links"]) == len(EDGES)
    assert content["boxes"][0]["x"] == drawn.boxes[0].x


def test_matplotlib_is_not_needed() -> None:
    code = "import sys, sparselit.report.geometry; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
