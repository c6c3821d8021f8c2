"""The table of sites says of every model what the model itself says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from sparselit.errors import SparselitError
from sparselit.model.site_table import Shape, site
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import biases, matrices
from tests.circuits.models import configs, randomised


@settings(max_examples=80, deadline=None)
@given(config=configs)
def test_widths_order_tensors_and_their_sizes_are_those_of_the_model(config: dict[str, Any]) -> None:
    model = randomised(**config)
    shape = Shape.of(model.config)
    assert sorted(model.sites, key=lambda name: site(name).order) == list(model.sites)
    for name, one in model.sites.items():
        assert shape.width(name) == one.width
        assert shape.has(name) == (one.width > 0)
    bundles = matrices(shape) | biases(shape)
    tensors = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    assert {n: bundle.size(shape)[: len(tensors[n])] for n, bundle in bundles.items()} == {
        name: size for name, size in tensors.items() if "norm" not in name and "sink" not in name
    }
    assert bundles == matrices(model) | biases(model)


def test_a_row_says_layer_block_kind_axis_and_role() -> None:
    row = site("layers.12.attn.z")
    assert (row.layer, row.block, row.kind, row.axis, row.role) == (12, "attn", "z", "head", "")
    assert (row.node, row.prefix, row.beside("pattern")) == (
        "layers.12.attn.v",
        "layers.12.attn",
        "layers.12.attn.pattern",
    )
    streams = ["embed", "layers.0.attn.in", "layers.0.mlp.out", "unembed.in"]
    assert [site(name).role for name in streams] == ["writes", "reads", "writes", "reads"]
    depths = ["token", "embed", "layers.0.attn.in", "layers.0.mlp.act", "layers.1.attn.q", "logits"]
    assert [site(name).depth for name in depths] == [0, 0, 0, 1, 2, site("unembed.in").depth]


@pytest.mark.parametrize(
    "name", ["", "layers", "layers.0.attn", "layers.0.attn.w", "layers.00.attn.q", "layers.-1.attn.q", "logits.in",
             "layers.0.mlp.q", "layers.٣.attn.q", "layers.9999999999.attn.q", "layers.0.attn.q.weight"],
)  # fmt: skip
def test_no_other_name_is_a_site(name: str) -> None:
    with pytest.raises(SparselitError, match="no site is called"):
        site(name)
    assert not Shape.of({"vocab_size": 3, "max_length": 3}).has(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layers": -1}, "n_layers"), ({"n_layers": 10**6}, "n_layers"), ({"d_model": True}, "d_model"),
        ({"n_heads": 2.0}, "n_heads"), ({"vocab_size": None}, "vocab_size"), ({"bias": "yes"}, "bias"),
        ({"positions": 3}, "positions"), ({"layers": 2}, "model.layers is no argument"),
    ],
)  # fmt: skip
def test_an_impossible_configuration_is_refused_by_its_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SparselitError, match=said):
        Shape.of({"vocab_size": 3, "max_length": 3, **change})


def test_defaults_are_those_of_the_model() -> None:
    shape, model = Shape.of({"vocab_size": 3, "max_length": 4}), Transformer(3, 4)
    assert (shape.n_layers, shape.d_model, shape.n_heads) == (len(model.layers), model.d_model, model.n_heads)
    assert (shape.d_head, shape.d_mlp, shape.max_length) == (model.d_head, model.d_mlp, model.max_length)
