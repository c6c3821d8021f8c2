"""Edges, nodes and free parameters against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.size import free_parameters, nodes_of
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, matrices
from tests.circuits.models import configs, random_subset, randomised


@settings(max_examples=30, deadline=None)
@given(configs, st.sampled_from([1.0, 0.3]))
def test_edges_are_the_nonzero_entries_of_all_matrices_and_biases(config: dict[str, Any], density: float) -> None:
    model = randomised(density=density, **config)
    expected = {
        (name, *map(int, place), *([0] if p.ndim == 1 else []))
        for name, p in model.named_parameters(remove_duplicate=False)
        if "norm" not in name and not name.endswith("sink")
        for place in p.nonzero()
    }
    edges = Edges.of(model)
    described = [edges.describe(i) for i in range(len(edges))]
    assert set(described) == expected
    assert len(described) == len(expected)
    without = Edges.of(model, with_biases=False)
    assert [without.describe(i) for i in range(len(without))] == [
        place for place, bias in zip(described, edges.is_bias.tolist(), strict=True) if not bias
    ]


@settings(max_examples=30, deadline=None)
@given(configs, st.integers(0, 100))
def test_masks_hold_exactly_the_kept_edges(config: dict[str, Any], seed: int) -> None:
    model = randomised(density=0.5, **config)
    edges = Edges.of(model)
    kept = random_subset(torch.ones(len(edges), dtype=torch.bool), 0.5, seed)
    masks = edges.masks(kept)
    places = {(name, *map(int, place)) for name, mask in masks.items() for place in mask.nonzero()}
    listed = [edges.describe(int(i)) for i in kept.nonzero()]
    assert places == {place[: 1 + masks[place[0]].ndim] for place in listed}
    assert torch.equal(edges.find(listed), kept)


def test_a_place_without_a_weight_is_not_found() -> None:
    model = randomised()
    with torch.no_grad():
        model.unembed.weight[0, 0] = 0
    with pytest.raises(KeyError):
        Edges.of(model).find([("unembed.weight", 0, 0)])


@settings(max_examples=20, deadline=None)
@given(configs, st.integers(0, 100))
def test_the_number_of_a_place_is_its_rank_and_of_any_other_place_minus_one(config: dict[str, Any], seed: int) -> None:
    model = randomised(seed, 0.5, **config)
    edges = Edges.of(model)
    every = torch.ones(len(edges), dtype=torch.bool)
    order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(seed))
    places = edges.places(every)
    assert [edges.describe(i) for i in range(len(edges))] == places
    assert torch.equal(edges.numbers([places[i] for i in order.tolist()]), order)
    some = random_subset(every, 0.3, seed)
    assert edges.places(some) == [places[i] for i in some.nonzero()[:, 0].tolist()]
    assert edges.numbers([]).tolist() == []
    for name, (height, *width) in edges.shapes.items():
        columns = width[0] if width else 1
        outside = [(name, height, 0), (name, -1, 0), (name, 0, columns), (name, 0, -1), (f"{name}s", 0, 0)]
        assert edges.numbers(outside).tolist() == 5 * [-1]
        zeros = (model.get_parameter(name).detach().view(height, columns) == 0).nonzero().tolist()
        assert edges.numbers([(name, *zero) for zero in zeros]).tolist() == len(zeros) * [-1]


def test_every_source_and_target_is_a_site_of_the_model() -> None:
    for positions in ("learned", "learned_concatenated", "none"):
        model = randomised(n_layers=2, positions=positions, bigram=True)
        for bundle in matrices(model).values():
            assert {bundle.source, bundle.target} <= {*model.sites, "token", "position"}
            shape = model.get_parameter(bundle.name).shape
            if bundle.target in model.sites:
                assert shape[bundle.target_axis] == model.sites[bundle.target].width


def chain() -> Transformer:
    """One edge of every kind through one channel of every site, with biases; all else is zero."""
    config: dict[str, Any] = {"n_layers": 1, "d_model": 4, "n_heads": 2, "d_head": 2, "d_mlp": 3, "sink": True}
    model = Transformer(3, 3, **config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, row, column in EDGES:
            model.get_parameter(name)[row, column] = 2.0
        for name in ("layers.0.attn.q.bias", "layers.0.attn.o.bias", "layers.0.mlp.up.bias", "unembed.bias"):
            model.get_parameter(name).fill_(1.0)
        for name, gain in model.named_parameters():
            if "norm" in name:
                gain.fill_(1.0)
    return model.eval()


EDGES = [
    ("embed.token.weight", 2, 1),  # token 2 to residual channel 1
    ("embed.position.weight", 0, 3),
    ("layers.0.attn.q.weight", 2, 1),  # channel 1 to query channel 0 of head 1
    ("layers.0.attn.k.weight", 2, 3),
    ("layers.0.attn.v.weight", 3, 1),
    ("layers.0.attn.o.weight", 0, 3),
    ("layers.0.mlp.up.weight", 2, 0),
    ("layers.0.mlp.down.weight", 2, 2),
    ("unembed.weight", 1, 2),
]


def test_nodes_are_the_ends_of_the_edges_with_z_counted_as_the_value() -> None:
    model = chain()
    edges = Edges.of(model)
    assert nodes_of(edges, edges.find(EDGES)) == {
        "embed": (1, 3),
        "layers.0.attn.in": (1, 3),
        "layers.0.attn.k": (2,),
        "layers.0.attn.out": (0,),
        "layers.0.attn.q": (2,),
        "layers.0.attn.v": (3,),
        "layers.0.mlp.act": (2,),
        "layers.0.mlp.in": (0,),
        "layers.0.mlp.out": (2,),
        "logits": (1,),
        "position": (0,),
        "token": (2,),
        "unembed.in": (2,),
    }
    assert nodes_of(edges, torch.zeros(len(edges), dtype=torch.bool)) == {}


def test_a_bias_makes_its_channel_a_node() -> None:
    model = chain()
    edges = Edges.of(model)
    assert nodes_of(edges, edges.find([("layers.0.mlp.up.bias", 1, 0)])) == {"layers.0.mlp.act": (1,)}


def test_free_parameters_are_the_kept_biases_the_gains_that_are_read_and_the_sinks_of_live_heads() -> None:
    model = chain()
    edges = Edges.of(model)
    # Gains: channels 1, 3 before attention, 0 before the MLP, 2 before the unembedding. One head of two is live.
    assert free_parameters(model, edges, edges.find(EDGES), Ablation("zero")) == 4 + 1
    with_biases = [*EDGES, ("layers.0.attn.q.bias", 2, 0), ("layers.0.mlp.up.bias", 2, 0), ("unembed.bias", 1, 0)]
    assert free_parameters(model, edges, edges.find(with_biases), Ablation("zero")) == 4 + 1 + 3
    assert free_parameters(model, edges, torch.zeros(len(edges), dtype=torch.bool), Ablation("zero")) == 0


@pytest.mark.parametrize("letter", "qkv")
def test_a_head_of_which_anything_is_left_counts_its_sink(letter: str) -> None:
    model = randomised(n_layers=1, sink=True, norm="none", bias=False)
    edges = Edges.of(model)
    assert free_parameters(model, edges, edges.find([(f"layers.0.attn.{letter}.weight", 4, 0)]), Ablation("zero")) == 1
    both = edges.find([(f"layers.0.attn.{letter}.weight", row, 0) for row in (0, 4)])
    assert free_parameters(model, edges, both, Ablation("zero")) == 2


def test_under_mean_ablation_every_bias_stays_and_is_counted() -> None:
    model = chain()
    edges = Edges.of(model, with_biases=False)
    biases = 4 + 4 + 3 + 3  # queries, attention output, neurons, logits
    assert free_parameters(model, edges, edges.find(EDGES), Ablation("mean")) == 4 + 1 + biases


def test_gains_of_concatenated_positions_are_counted_apart() -> None:
    model = randomised(n_layers=1, positions="learned_concatenated", d_position=2, bias=False)
    edges = Edges.of(model)
    # Channel 2 of the residual stream and channel 1 of the positions, which is channel 7 of what attention reads.
    kept = edges.find([("layers.0.attn.v.weight", 0, 2), ("layers.0.attn.v.weight", 0, 7)])
    assert free_parameters(model, edges, kept, Ablation("zero")) == 2
