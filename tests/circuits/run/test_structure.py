"""Edges that cannot matter: leaving them out changes no logit."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.run.structure import useful
from sparselit.model.wiring import Edges
from tests.circuits.models import configs, random_subset, randomised, seeds, some_examples


@settings(max_examples=100, deadline=None)
@given(configs, st.sampled_from([1.0, 0.3]), st.sampled_from([0.6, 0.3, 0.1]), seeds)
def test_useless_edges_change_no_logit(config: dict[str, Any], density: float, share: float, seed: int) -> None:
    model, examples = randomised(seed, density, **config).double(), some_examples(seed=seed)
    edges = Edges.of(model)
    kept = random_subset(torch.ones(len(edges), dtype=torch.bool), share, seed)
    left = useful(model, edges, kept)
    assert not (left & ~kept).any()
    with torch.no_grad():
        one, other = (NaiveEngine.of(model).logits(chosen, examples) for chosen in (kept, left))
    assert (one - other).abs().max() < 1e-9
    assert torch.equal(useful(model, edges, left), left)


def test_what_nothing_flows_into_or_out_of_is_useless() -> None:
    model = randomised(norm="none", bias=False, positions="none")
    edges = Edges.of(model)
    path = [
        ("embed.token.weight", 0, 0),
        ("layers.0.mlp.up.weight", 1, 0),
        ("layers.0.mlp.down.weight", 2, 1),
        ("unembed.weight", 3, 2),
    ]
    dead = [
        ("embed.token.weight", 0, 4),  # nobody reads channel 4
        ("layers.0.mlp.up.weight", 2, 0),  # nobody reads neuron 2
        ("layers.0.mlp.down.weight", 2, 3),  # neuron 3 reads nothing
        ("layers.0.attn.q.weight", 0, 0),  # its head has no value
        ("unembed.weight", 3, 5),  # nobody writes channel 5
    ]
    assert torch.equal(useful(model, edges, edges.find(path + dead)), edges.find(path))
    assert not useful(model, edges, edges.find(path[1:] + dead)).any()


def test_what_changes_the_scale_of_a_norm_is_not_useless() -> None:
    model = randomised(norm="rms", bias=False, positions="none")
    edges = Edges.of(model)
    kept = edges.find([("embed.token.weight", 0, 0), ("embed.token.weight", 1, 4), ("unembed.weight", 3, 0)])
    assert torch.equal(useful(model, edges, kept), kept)
