"""The picture of a circuit."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from sparselit.circuits.circuit import Circuit, ModelRecord, Size, TaskRecord
from sparselit.circuits.use.graph import graph_of
from sparselit.report.geometry import LABELLED
from sparselit.report.picture import NEGATIVE, POSITIVE, draw
from tests.circuits.records import CONFIG, some_circuit

VOCABULARY = ["a", "'", '"', " ", "\n", "$", "\\", "字"]
#: A head that attends by a query and a key, a neuron, and a table straight to the logits.
EDGES: list[list[Any]] = [
    ["embed.token.weight", 2, 3, 1.5],
    ["embed.token.weight", 1, 3, -1.5],
    ["embed.position.weight", 4, 5, 0.5],
    ["layers.0.attn.q.weight", 6, 5, 0.25],
    ["layers.0.attn.k.weight", 6, 3, -0.75],
    ["layers.0.attn.v.weight", 5, 3, 1.0],
    ["layers.0.attn.o.weight", 7, 5, -3.0],
    ["layers.1.mlp.up.weight", 12, 7, 2.0],
    ["layers.1.mlp.down.weight", 0, 12, 0.125],
    ["unembed.weight", 2, 0, 1.0],
    ["unembed.weight", 5, 7, 1.0],
    ["bigram.weight", 3, 4, -0.5],
]


def circuit(edges: list[list[Any]], **config: Any) -> Circuit:
    task = TaskRecord(class_path="sparselit.tasks.Quotes", init_args={}, vocabulary=tuple(VOCABULARY), strata=("all",))
    model = ModelRecord(weights="w.safetensors", hash="", config={**CONFIG, **config})
    made = some_circuit(edges, model=model, task=task)
    nodes: dict[str, set[int]] = {}
    for node in (node for link in graph_of(made).edges for node in graph_of(made).ends(link)):
        nodes.setdefault(node.site, set()).add(node.channel)
    size = Size(nodes=sum(map(len, nodes.values())), edges=len(edges), free=3)
    return replace(made, nodes={site: tuple(sorted(channels)) for site, channels in nodes.items()}, size=size)


def many_edges(count: int) -> list[list[Any]]:
    rng = random.Random(0)
    shapes = {"embed.token": (8, 8), "layers.0.attn.q": (8, 8), "layers.0.attn.v": (8, 8), "layers.0.attn.o": (8, 8),
              "layers.1.mlp.up": (16, 8), "layers.1.mlp.down": (8, 16), "unembed": (8, 8)}  # fmt: skip
    every = [(f"{name}.weight", i, j) for name, (n, m) in shapes.items() for i in range(n) for j in range(m)]
    return [[*place, rng.uniform(-2, 2)] for place in sorted(rng.sample(every, count))]


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("count", [0, 1, 8, 60, 200])
def test_every_edge_is_drawn_exactly_once(count):
    edges = many_edges(count)
    drawn = Counter(patch.get_gid() for patch in draw(circuit(edges)).axes[0].patches if patch.get_gid())
    assert drawn == Counter(f"{name}[{row},{column}]" for name, row, column, _ in edges)


def test_colour_is_sign_and_width_is_size():
    from matplotlib.colors import to_hex

    patches = {patch.get_gid(): patch for patch in draw(circuit(EDGES, bigram=True)).axes[0].patches}
    for name, row, column, weight in EDGES:
        patch = patches[f"{name}[{row},{column}]"]
        assert to_hex(patch.get_edgecolor()) == (POSITIVE if weight > 0 else NEGATIVE)
    by_weight = sorted(EDGES, key=lambda edge: abs(edge[3]))
    widths = [patches[f"{name}[{row},{column}]"].get_linewidth() for name, row, column, _ in by_weight]
    assert widths == sorted(widths)
    assert widths[-1] > 3 * widths[0]


def test_an_edge_joins_the_boxes_of_its_two_nodes():
    figure = draw(circuit(EDGES, bigram=True))
    named = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    path = next(p for p in figure.axes[0].patches if p.get_gid() == "layers.1.mlp.up.weight[12,7]").get_path()
    assert path.vertices[-1][0] == pytest.approx(named["12"])
    assert path.vertices[0][0] == pytest.approx(named["7"])  # one column for every read and write of channel 7
    assert path.vertices[0][1] < path.vertices[-1][1]  # upwards


def test_nodes_are_named_by_what_they_are():
    shown = texts(draw(circuit(EDGES, bigram=True)))
    for text in ('"', "double quote", "single quote", "'\\n'", "' '", "'$'", "position", "head 1", "q ch 2", "k ch 2",
                 "ch 1", "12", "layer 0", "layer 1", "queries, keys", "neurons", "logits", "attention"):  # fmt: skip
        assert text in shown, text
    assert any("12 edges, " in text and "3 free" in text for text in shown)
    assert any("task_loss ≤ 0.15" in text and "zero ablation" in text for text in shown)
    assert any("99.90 %" in text and "n = 10,000" in text for text in shown)


def test_boxes_of_one_row_do_not_overlap_and_stay_inside():
    from matplotlib.patches import FancyBboxPatch

    for edges in (EDGES, many_edges(60), many_edges(LABELLED + 50)):
        figure = draw(circuit(edges, bigram=True))
        boxes = [p.get_bbox() for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
        width, height = figure.get_size_inches()
        assert all(min(b.x0, b.y0) > 0 and b.x1 < width and b.y1 < height for b in boxes)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a.x1 < b.x0 or b.x1 < a.x0 or a.y1 < b.y0 or b.y1 < a.y0


def test_a_node_without_edges_stands_beside_the_others():
    linked = [edge for edge in EDGES if edge[0] != "bigram.weight"]
    one = circuit(linked)
    nodes = {**one.nodes, "logits": tuple(sorted([*one.nodes["logits"], 1]))}  # it has a bias only
    with_one_more = replace(one, nodes=nodes)
    assert draw(with_one_more).get_figwidth() < draw(circuit(linked)).get_figwidth() + 1


def test_labels_are_left_out_of_a_crowd_and_the_title_says_so():
    shown = texts(draw(circuit(many_edges(LABELLED + 1))))
    assert any("labels are left out" in text for text in shown)
    assert "head 1" not in shown
    assert not any("left out" in text for text in texts(draw(circuit(many_edges(LABELLED)))))


def test_concatenated_positions_meet_the_channel_that_reads_them():
    edges = [["positions.weight", 2, 1, 1.0], ["layers.0.attn.v.weight", 0, 9, 1.0]]
    figure = draw(circuit(edges, positions="learned_concatenated"))
    paths = {p.get_gid(): p.get_path().vertices for p in figure.axes[0].patches if p.get_gid()}
    into, out = paths["positions.weight[2,1]"], paths["layers.0.attn.v.weight[0,9]"]
    assert into[-1][0] == pytest.approx(out[0][0])


@pytest.mark.filterwarnings("error")
def test_a_token_that_no_font_has_still_renders():
    figure = draw(circuit([*EDGES, ["embed.token.weight", 7, 3, 1.0]], bigram=True))
    assert "'\\u5b57'" in texts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert len(buffer.getvalue()) > 10_000


def test_the_same_circuit_gives_the_same_layout_and_leaves_the_random_state_alone():
    made = circuit(many_edges(40))
    before = torch.get_rng_state()
    first, second = ([p.get_path().vertices.tolist() for p in draw(made).axes[0].patches] for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_global_of_matplotlib_is_used():
    code = "import sys, sparselit.report.picture; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, sparselit.cli, sparselit.cli.commands.show; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
