"""Wired by hand, in the style of ``cases``: functions of two bits, and a criterion that is far from monotone."""

from __future__ import annotations

from itertools import product

from .cases import Case, Weights, criterion, domain_of, wire

BITS = {"vocab_size": 2, "max_length": 2, "d_model": 4, "n_heads": 1, "d_head": 1, "d_mlp": 3, "bias": True}


def exclusive_or(seed: int = 0, quiet: int = 2) -> Case:
    """Whether exactly one bit is 1: the head gives the sum, one neuron passes it on, the other takes 2 off twice it."""
    weights: Weights = {
        ("embed.token.weight", 1, 0): 2.0,
        ("layers.0.attn.v.weight", 0, 0): 1.0,
        ("layers.0.attn.o.weight", 1, 0): 1.0,
        ("layers.0.mlp.up.weight", 0, 1): 1.0,
        ("layers.0.mlp.up.weight", 1, 1): 1.0,
        ("layers.0.mlp.up.bias", 1, 0): -1.0,
        ("layers.0.mlp.down.weight", 2, 0): 1.0,
        ("layers.0.mlp.down.weight", 2, 1): -2.0,
        ("unembed.weight", 1, 2): 20.0,
        ("unembed.bias", 0, 0): 10.0,
    }
    distractors: Weights = {
        ("unembed.weight", 0, 1): 0.3,
        ("layers.0.mlp.up.weight", 2, 0): 1.0,
    }
    model = wire(weights, distractors, quiet, seed, **BITS)
    prompts = list(product((0, 1), repeat=2))
    return Case(model, domain_of(prompts, lambda p: p[0] ^ p[1], 2), criterion(0.05), frozenset(weights))


def neither(seed: int = 0, quiet: int = 2) -> Case:
    """Whether both bits are 0, twice: the head's average reaches the readout directly, and through a neuron.

    A bit is written as -1 or 1, so that either path alone is above the threshold where both are 0 and nowhere else.
    """
    weights: Weights = {
        ("embed.token.weight", 0, 0): -1.0,
        ("embed.token.weight", 1, 0): 1.0,
        ("layers.0.attn.v.weight", 0, 0): 1.0,
        ("layers.0.attn.o.weight", 1, 0): -1.0,
        ("layers.0.attn.o.weight", 2, 0): 1.0,
        ("layers.0.mlp.up.weight", 0, 2): -2.0,
        ("layers.0.mlp.down.weight", 1, 0): 1.0,
        ("unembed.weight", 1, 1): 20.0,
        ("unembed.bias", 0, 0): 10.0,
    }
    distractors: Weights = {("unembed.weight", 0, 2): 0.3, ("layers.0.mlp.up.weight", 2, 0): 1.0}
    model = wire(weights, distractors, quiet, seed, **BITS)
    prompts = list(product((0, 1), repeat=2))
    return Case(model, domain_of(prompts, lambda p: int(not any(p)), 2), criterion(0.05), frozenset(weights))


def identity_with_two_menders(seed: int = 0, quiet: int = 2) -> Case:
    """Copying the last token by five weights, a neuron that harms it, and two that mend only together what it harms.

    One pass that comes to the mending neurons first keeps nine weights; without the harmful neuron, five are enough.
    """
    weights: Weights = {("unembed.bias", 0, 0): 5.0}
    for token in (1, 2):
        weights[("embed.token.weight", token, token)] = 1.0
        weights[("unembed.weight", token, token)] = 10.0
    distractors: Weights = {}
    for neuron, value in enumerate((-2.0, 1.0, 1.0)):
        distractors[("layers.0.mlp.up.weight", neuron, 1)] = 1.0
        distractors[("layers.0.mlp.down.weight", 1, neuron)] = value
    size = {"vocab_size": 3, "max_length": 2, "d_model": 4, "n_heads": 1, "d_head": 2, "d_mlp": 4, "bias": True}
    model = wire(weights, distractors, quiet, seed, **size)
    prompts = [p for n in (1, 2) for p in product(range(3), repeat=n)]
    return Case(model, domain_of(prompts, lambda p: p[-1], 3), criterion(0.1), frozenset(weights))
