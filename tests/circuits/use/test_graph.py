"""The graph of a circuit equals the wiring of the model that it belongs to, and says what its nodes are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits.circuit import EdgeSet, KeptBias, ModelRecord
from sparselit.circuits.use.graph import Link, NodeKey, graph_of, node_of
from sparselit.model import transformer
from sparselit.model.wiring import BIAS, Edges
from tests.circuits.models import configs, random_subset, randomised, seeds
from tests.circuits.records import some_circuit


def record_of(model: transformer.Transformer, edges: Edges, kept: torch.Tensor) -> EdgeSet:
    listed = [edges.describe(index) for index in kept.nonzero()[:, 0].tolist()]
    is_bias = [edges.bundles[name].is_bias for name, _, _ in listed]
    numbered = list(enumerate(zip(listed, is_bias, strict=True)))
    return some_circuit(
        [[*place, float(i + 1)] for i, (place, bias) in numbered if not bias],
        biases=tuple(KeptBias(*place[:2], float(i + 1)) for i, (place, bias) in numbered if bias),
        model=ModelRecord(hash="", config=model.config),
    )


@settings(max_examples=60, deadline=None)
@given(config=configs, seed=seeds, share=st.sampled_from([0.0, 0.2, 1.0]))
def test_links_join_what_the_models_own_edges_join(config: dict[str, Any], seed: int, share: float) -> None:
    model = randomised(seed, 0.6, **config)
    edges = Edges.of(model)
    kept = random_subset(torch.ones(len(edges), dtype=torch.bool), share, seed)
    graph = graph_of(record_of(model, edges, kept))
    numbers = kept.nonzero()[:, 0].tolist()
    assert len(graph.links) == len(numbers)
    for i, (number, link) in enumerate(zip(numbers, graph.links, strict=True)):
        source, target = edges.endpoints(number)
        assert link.place == edges.describe(number)
        assert link.weight == i + 1
        assert link.is_bias == (source[0] == BIAS)
        assert link.source == (None if link.is_bias else source)
        assert link.target == target
    ends = {end for number in numbers for end in edges.endpoints(number) if end[0] != BIAS}
    assert set(graph.by_key) == ends
    sites = ["token", "position", *model.sites]
    places = [(sites.index(node.site), node.channel) for node in graph.nodes]
    assert places == sorted(places)


def test_no_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = some_circuit([["embed.token.weight", 2, 3, 1.5]])

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(transformer.Transformer, "__init__", never)
    assert [link.target for link in graph_of(circuit).edges] == [NodeKey("embed", 3)]


def test_nodes_are_called_what_they_are() -> None:
    vocabulary = ("a", "'", "\n", "b", "c", "d", "e", "f")
    circuit = some_circuit()
    circuit = replace(circuit, task=replace(circuit.task, vocabulary=vocabulary))
    found = {
        (site, channel): node_of(circuit, site, channel).text
        for site, channel in [
            ("token", 0), ("token", 1), ("logits", 2), ("token", 9), ("position", 4), ("embed", 3),
            ("layers.1.attn.k", 5), ("layers.0.mlp.act", 5),
        ]
    }  # fmt: skip
    assert list(found.values()) == ["'a'", "' single quote", "'\\n'", "#9", "4", "3", "head 1 · ch 1", "5"]
    head = node_of(circuit, "layers.1.attn.k", 5)
    assert (head.layer, head.block, head.kind, head.head, head.within) == (1, "attn", "k", 1, 1)


def test_attention_joins_queries_and_keys_to_the_values_of_their_head_only() -> None:
    edges = [[f"layers.0.attn.{letter}.weight", channel, 0, 1.0] for letter, channel in ("q0", "k1", "v2", "v5")
             for channel in [int(channel)]]  # fmt: skip
    graph = graph_of(some_circuit(edges, biases=()))
    pattern = NodeKey("layers.0.attn.pattern", 0)
    assert set(graph.attention) == {
        (NodeKey("layers.0.attn.q", 0), pattern),
        (NodeKey("layers.0.attn.k", 1), pattern),
        (pattern, NodeKey("layers.0.attn.v", 2)),
    }


def test_a_graph_is_plain_json(tmp_path: Path) -> None:
    graph = graph_of(some_circuit([["layers.0.attn.o.weight", 7, 5, -3.0]]))
    content = json.loads(json.dumps(graph.as_json()))
    assert content["links"][0]["source"] == ["layers.0.attn.v", 5]
    assert content["links"][1]["source"] is None
    assert [node["label"] for node in content["nodes"]] == ["ch 2", "ch 1", "7"]
    assert all(isinstance(link, Link) for link in graph.links)
    with pytest.raises(ValueError, match="starts nowhere"):
        graph.ends(graph.links[1])
