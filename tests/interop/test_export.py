"""Circuits in the formats of other tools: each is read back by its library, its schema or its published rules."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import networkx
import pytest
import torch
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from safetensors import safe_open
from safetensors.torch import load_file

from sparselit.circuits import Bound, discover, load, write_circuit
from sparselit.circuits.circuit import Circuit
from sparselit.circuits.use.graph import graph_of
from sparselit.errors import SparselitError
from sparselit.interop.export import FORMATS, export
from sparselit.interop.export.eap_ig import edges_of, nodes_of
from sparselit.model.site_table import Shape
from sparselit.model.transformer import Transformer
from tests.circuits.models import randomised, some_behaviour

SCHEMA = json.loads((Path(__file__).parent / "attribution_graph.schema.json").read_text())


@pytest.fixture(scope="module", params=["zero", "mean"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Circuit]:
    model = randomised(density=0.4)
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, [Bound("kl", at_most=1e-3)], margin=0.2, ablation=request.param)
    path = tmp_path_factory.mktemp("circuit") / "step=7.json"
    return path, write_circuit(path, circuit, model, behaviour)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_bytes_twice(name: str, found: tuple[Path, Circuit], tmp_path: Path) -> None:
    first = export(found[0], name)
    assert first.name in (f"step=7.{name}{FORMATS[name].suffix}", f"step=7{FORMATS[name].suffix}")
    assert first.name not in ("step=7.json", "step=7.safetensors")
    assert export(found[0], name, tmp_path / "again").read_bytes() == first.read_bytes()


def test_a_table_has_every_edge_and_bias_in_full(found: tuple[Path, Circuit], tmp_path: Path) -> None:
    path, circuit = found
    rows = list(csv.DictReader(io.StringIO(export(path, "csv", tmp_path / "a.csv").read_text())))
    read = {(row["parameter"], int(row["row"]), int(row["column"])): float(row["weight"]) for row in rows}
    assert read == circuit.weights


def weights_in(network: Any) -> dict[tuple[str, int, int], float]:
    return {
        (row["parameter"], int(row["row"]), int(row["column"])): float(row["weight"])
        for *_, row in network.edges(data=True)
        if row["kind"] == "weight"
    }


def test_networks_hold_the_edges_what_they_share_and_the_biases(found: tuple[Path, Circuit], tmp_path: Path) -> None:
    path, circuit = found
    edges = {edge[:3]: edge.weight for edge in circuit.edges}
    graphml = networkx.read_graphml(export(path, "graphml", tmp_path / "a"), force_multigraph=True)
    gexf = networkx.read_gexf(export(path, "gexf", tmp_path / "b"))
    content = json.loads(export(path, "cytoscape", tmp_path / "c").read_text())
    cytoscape = networkx.cytoscape_graph(content)
    for network in (graphml, gexf, cytoscape):
        assert weights_in(network) == edges
    assert all({"x", "y"} == set(node["position"]) for node in content["elements"]["nodes"])
    assert len({edge["data"]["id"] for edge in content["elements"]["edges"]}) == len(content["elements"]["edges"])
    biases = [data["bias"] for _, data in graphml.nodes(data=True) if "bias" in data]
    assert sorted(biases) == sorted(bias.value for bias in circuit.biases)
    for source, target, row in graphml.edges(data=True):
        if row["kind"] == "residual":
            assert source.partition(":")[2] == target.partition(":")[2]
    text = export(path, "dot", tmp_path / "d.dot").read_text()
    assert text.count(" -> ") == graphml.number_of_edges()


def test_a_head_graph_is_complete_and_follows_the_paths_of_the_circuit(
    found: tuple[Path, Circuit], tmp_path: Path
) -> None:
    path, circuit = found
    content = json.loads(export(path, "eap-ig", tmp_path / "a.json").read_text())
    shape = Shape.of(circuit.model.config)
    layers, heads = shape.n_layers, shape.n_heads
    assert list(content["nodes"]) == nodes_of(shape)
    # input and everything before it, into three inputs of each head, an MLP a layer, and the logits
    before = [1 + layer * (heads + 1) for layer in range(layers + 1)]
    expected = sum(3 * heads * before[layer] + before[layer] + heads for layer in range(layers)) + before[layers]
    assert len(content["edges"]) == len(list(edges_of(shape))) == expected
    graph = graph_of(circuit)
    wrote = {node.channel for node in graph.nodes if node.site == "embed"}
    read = {node.channel for node in graph.nodes if node.site == "unembed.in"}
    assert content["edges"]["input->logits"]["in_graph"] == bool(wrote & read)
    alive = {edge for edge, row in content["edges"].items() if row["in_graph"]}
    assert alive
    assert all(content["nodes"][end.partition("<")[0]]["in_graph"] for edge in alive for end in edge.split("->"))


def test_an_attribution_graph_obeys_the_schema_and_the_rules_of_its_page(
    found: tuple[Path, Circuit], tmp_path: Path
) -> None:
    path, _ = found
    file = export(path, "neuronpedia", tmp_path / "a.json")
    content = json.loads(file.read_text(), parse_constant=lambda text: pytest.fail(text))
    jsonschema.validate(content, SCHEMA)
    assert file.stat().st_size >= 1024
    ids = [node["node_id"] for node in content["nodes"]]
    assert len(set(ids)) == len(ids)
    assert all(link["source"] in ids and link["target"] in ids for link in content["links"])
    numbers = [int(node["layer"]) for node in content["nodes"] if node["layer"] != "E"]
    assert min(numbers) >= 1
    for node in content["nodes"]:
        assert node["node_id"] == f"{node['layer']}_{node['feature']}_{node['ctx_idx']}"
        assert node["feature_type"] != "logit" or "(p=" in node["clerp"]
    with pytest.raises(SparselitError, match="no prompt of the report split reads 'nothing'"):
        export(path, "neuronpedia", tmp_path / "b.json", prompt="nothing")


def test_contributions_to_a_logit_add_up_to_it(tmp_path: Path) -> None:
    """Without norms and residual activations, what reaches a logit from the last place that is read is the logit."""
    model = randomised(density=0.7, norm="none", unembed_bias=False)
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, [Bound("kl", at_most=1e-3)], margin=0.2, ablation="zero")
    path = tmp_path / "step=1.json"
    write_circuit(path, circuit, model, behaviour)
    content = json.loads(export(path, "neuronpedia").read_text())
    report, last = behaviour.splits["report"], len(content["metadata"]["prompt_tokens"]) - 1
    logits = load(path).naive.run(report.tokens[:1])[0, last]
    reached: dict[str, float] = {}
    for link in content["links"]:
        reached[link["target"]] = reached.get(link["target"], 0.0) + link["weight"]
    for node in content["nodes"]:
        if node["feature_type"] == "logit":
            assert reached[node["node_id"]] == pytest.approx(float(logits[node["feature"]]), abs=2e-2)


def test_tensors_compute_the_circuit_under_zero_ablation(found: tuple[Path, Circuit], tmp_path: Path) -> None:
    path, circuit = found
    file = export(path, "safetensors", tmp_path / "a.safetensors")
    with safe_open(file, "pt") as content:
        notes = json.loads(content.metadata()["sparselit"])
    assert notes["ablation"]["kind"] == circuit.ablation.kind
    model = Transformer(**notes["config"]).eval()
    model.load_state_dict(load_file(file))
    loaded = load(path)
    tokens = loaded.behaviour.splits["report"].tokens
    if circuit.ablation.kind == "zero":
        torch.testing.assert_close(model(tokens), loaded.naive.run(tokens), rtol=0, atol=1e-5)


def test_cards_hold_the_figures_of_the_report_split(found: tuple[Path, Circuit], tmp_path: Path) -> None:
    path, circuit = found
    text = export(path, "model-card", tmp_path / "card.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    metrics = head["model-index"][0]["results"][0]["metrics"]
    assert {"type": "edges", "value": circuit.size.edges, "name": "size of the circuit"} in metrics
    assert any(row["type"] == "accuracy" and row["value"] == circuit.evidence.held_out.accuracy for row in metrics)
    bill = export(path, "cyclonedx", tmp_path / "bill.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None


def test_what_cannot_be_exported_is_refused(found: tuple[Path, Circuit], tmp_path: Path) -> None:
    with pytest.raises(SparselitError, match="--to must be one of csv, graphml"):
        export(found[0], "gefx")
    with pytest.raises(SparselitError, match="is the circuit's own file"):
        export(found[0], "csv", found[0].with_suffix(".safetensors"))
    with pytest.raises(SparselitError, match="holds no prompt"):
        export(found[0], "csv", prompt="a")
    model = randomised(bigram=True)
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, [Bound("accuracy", at_least=0.5)], margin=0.2, ablation="zero")
    write_circuit(tmp_path / "step=1.json", circuit, model, behaviour)
    with pytest.raises(SparselitError, match="no name for a bigram table"):
        export(tmp_path / "step=1.json", "eap-ig")
