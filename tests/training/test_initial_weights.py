"""Weights of another model, tensor by tensor: whole, in part, by token, or not at all."""

from __future__ import annotations

import pytest
import torch

from sparselit.model.transformer import Transformer
from sparselit.training.initial_weights import plain_names, take_weights


def transformer(seed: int, **settings: object) -> Transformer:
    torch.manual_seed(seed)
    sizes: dict[str, object] = {"vocab_size": 5, "max_length": 6, "n_layers": 2, "d_model": 8, "n_heads": 2}
    return Transformer(**{**sizes, **settings})  # type: ignore[arg-type]


def test_a_model_of_the_same_shape_is_taken_whole() -> None:
    model, other = transformer(0), transformer(1)
    taken = take_weights(model, other.state_dict())
    assert not taken.part
    assert not taken.new
    assert not taken.unused
    assert not list(taken.lines())
    for name, tensor in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "settings",
    [
        {"d_model": 12},
        {"d_model": 4},
        {"n_layers": 3},
        {"n_layers": 1},
        {"d_mlp": 5},
        {"max_length": 9},
        {"sink": True},
    ],
)
def test_every_tensor_is_named_and_holds_what_is_said(settings: dict[str, object]) -> None:
    model, fresh, other = transformer(0, **settings), transformer(0, **settings), transformer(1)
    there = other.state_dict()
    taken = take_weights(model, there)
    now, before = model.state_dict(), fresh.state_dict()
    assert {*taken.whole, *taken.part, *taken.new} == now.keys()
    assert {*taken.whole, *taken.part, *taken.unused} == there.keys()
    for name in taken.new:
        assert torch.equal(now[name], before[name]), name
    for name in taken.whole:
        assert torch.equal(now[name], there[name]), name
    for name, (size, own, foreign) in taken.part.items():
        assert size == tuple(map(min, own, foreign))
        assert size != own or size != foreign
        common = tuple(slice(n) for n in size)
        assert torch.equal(now[name][common], there[name][common]), name
        rest = torch.ones(own, dtype=torch.bool)
        rest[common] = False
        assert torch.equal(now[name][rest], before[name][rest]), name


def test_rows_of_a_vocabulary_are_matched_by_token() -> None:
    model, fresh, other = transformer(0, bigram=True), transformer(0, bigram=True), transformer(1, bigram=True)
    torch.nn.init.normal_(other.get_parameter("bigram.weight"))
    taken = take_weights(model, other.state_dict(), (list("abcde"), list("xcabq")))
    assert set(taken.part) == {"embed.token.weight", "unembed.weight", "unembed.bias", "bigram.weight"}
    for name in ("embed.token.weight", "unembed.weight", "unembed.bias"):
        now, there, before = (each.get_parameter(name) for each in (model, other, fresh))
        assert torch.equal(now[[0, 1, 2]], there[[2, 3, 1]])
        assert torch.equal(now[[3, 4]], before[[3, 4]])
    assert model.bigram is not None
    assert other.bigram is not None
    assert model.bigram.weight[0, 2] == other.bigram.weight[2, 1]


def test_vocabularies_without_a_common_token_share_no_rows() -> None:
    taken = take_weights(transformer(0), transformer(1).state_dict(), (list("abcde"), list("vwxyz")))
    assert {"embed.token.weight", "unembed.weight", "unembed.bias"} == set(taken.new)


def test_names_of_layers_and_whole_modules_are_drawn_together() -> None:
    lines = list(take_weights(transformer(0, n_layers=4, d_mlp=5), transformer(1).state_dict()).lines())
    assert "5 x 8 of 5 x 8 (there 32 x 8): layers.{0,1}.mlp.up.weight" in lines
    assert lines[-1] == "new: layers.{2,3}.*"


def test_prefixes_of_a_compiled_module_are_no_part_of_a_name() -> None:
    state = {"_orig_mod.a.weight": torch.ones(2), "b._orig_mod.c": torch.zeros(1).to_sparse(), "step": 3}
    assert {name: tensor.tolist() for name, tensor in plain_names(state).items()} == {"a.weight": [1, 1], "b.c": [0]}
