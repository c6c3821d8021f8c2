"""Units of each granularity, edge by edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits.run.granularity import Granularity, removal_units
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import BIAS, Edges, place_name
from tests.circuits.models import configs, random_subset, randomised, seeds


def names(model: Transformer, edges: Edges, index: int, granularity: str) -> Iterator[str]:
    """What the units of one edge are called, its source's first."""
    for site, channel in edges.endpoints(index):
        block = ".".join(site.split(".")[:3])
        if granularity == "weight":
            yield place_name(edges.describe(index), bool(edges.is_bias[index]))
        elif granularity == "channel" and site not in (BIAS, "token", "position", "logits"):
            yield f"{site}[{channel}]"
        elif granularity == "token" and site == "token":
            yield f"token[{channel}]"
        elif granularity == "layer" and site.startswith("layers."):
            yield block
        elif granularity == "head" and site[-2:] in (".q", ".k", ".v"):
            yield f"{block}[{channel // model.d_head}]"
        elif granularity == "head" and site.endswith(".mlp.act"):
            yield block


@settings(max_examples=40, deadline=None)
@given(configs, st.sampled_from([1.0, 0.3, 0.05, 0.0]), st.booleans(), seeds)
def test_units_are_those_of_each_edge_in_the_order_of_the_edges(
    config: dict[str, Any], share: float, with_biases: bool, seed: int
) -> None:
    model = randomised(seed, 0.6, **config)
    edges = Edges.of(model, with_biases)
    kept = random_subset(torch.ones(len(edges), dtype=torch.bool), share, seed)
    for granularity in get_args(Granularity):
        expected: dict[str, list[int]] = {}
        for index in kept.nonzero()[:, 0].tolist():
            for name in dict.fromkeys(names(model, edges, index, granularity)):
                expected.setdefault(name, []).append(index)
        found = removal_units(model, edges, kept, granularity)
        assert [(name, unit.tolist()) for name, unit in found.items()] == list(expected.items())
