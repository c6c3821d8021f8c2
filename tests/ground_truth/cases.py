"""Transformers wired by hand, with distractor weights, and the whole input domain of each as its examples.

The wiring is what the author had in mind. Nothing here is taken for the answer: ``test_ground_truth`` computes it from
the domain by removing weights from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from sparselit.circuits import Bound
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import matrices

Place = tuple[str, int, int]
Weights = dict[Place, float]


@dataclass(frozen=True)
class Case:
    """A model, its whole domain, and the places that were wired on purpose."""

    model: Transformer
    domain: Examples
    criterion: Sequence[Bound]
    wired: frozenset[Place]


def domain_of(prompts: Iterable[Sequence[int]], answer: Callable[[Sequence[int]], int], vocabulary: int) -> Examples:
    """All prompts with their answers, padded on the right; the wrong answer is the next token of the vocabulary."""
    listed = [list(prompt) for prompt in prompts]
    width = max(map(len, listed))
    tokens = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in listed])
    right = torch.tensor([answer(prompt) for prompt in listed])
    length = torch.tensor([len(prompt) for prompt in listed])
    return Examples(tokens, length, right, (right + 1) % vocabulary, tokens, torch.zeros_like(length))


def wire(weights: Weights, distractors: Weights, quiet: int, seed: int, **config: Any) -> Transformer:
    """A transformer with the given weights and nothing else, but for ``quiet`` small random ones in every matrix.

    Args:
        weights: the wiring; a bias stands at column 0.
        distractors: loud weights, on channels that the wiring does not read.
        quiet: random weights of magnitude up to 0.1 in each matrix, on used channels too, but not behind loud ones.
        seed: of their places and values.
        config: the transformer's arguments.
    """
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(**{"norm": "none", "bias": False, "activation": "relu", "n_layers": 1, **config})
    bundles = matrices(model)
    loud_channels = {bundles[name].endpoints(row, column)[1] for name, row, column in distractors}
    residual = {channel for site, channel in loud_channels if site.endswith((".out", "embed"))}

    def is_behind_loud(name: str, row: int, column: int) -> bool:
        (site, channel), _ = bundles[name].endpoints(row, column)
        return (site.replace(".z", ".v"), channel) in loud_channels or (site.endswith(".in") and channel in residual)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for (name, row, column), value in {**weights, **distractors}.items():
            parameter = model.get_parameter(name)
            assert float(parameter.view(len(parameter), -1)[row, column]) == 0
            parameter.view(len(parameter), -1)[row, column] = value
        for name in bundles:
            parameter = model.get_parameter(name)
            places = [place for place in (parameter == 0).nonzero().tolist() if not is_behind_loud(name, *place)]
            for choice in torch.randperm(len(places), generator=generator)[:quiet].tolist():
                row, column = places[choice]
                parameter[row, column] = torch.rand((), generator=generator) * 0.2 - 0.1
    return model.eval()


def copy_last(seed: int = 0, quiet: int = 6) -> Case:
    """The answer is the last token: the embedding and the unembedding, and no layer."""
    vocabulary, spare = 4, 4  # channel 4 and 5 are read by nothing that reaches a logit
    weights: Weights = {}
    for token in range(vocabulary):
        weights[("embed.token.weight", token, token)] = 1.0
        weights[("unembed.weight", token, token)] = 10.0
    model = wire(weights, loud(spare, value=3), quiet, seed, vocab_size=4, max_length=3, d_model=6, n_heads=2, d_mlp=4)
    prompts = [p for n in (1, 2, 3) for p in product(range(vocabulary), repeat=n)]
    return Case(model, domain_of(prompts, lambda p: p[-1], vocabulary), criterion(0.1), frozenset(weights))


def copy_offset(seed: int = 0, quiet: int = 6) -> Case:
    """The answer is the token two places back: one head whose queries and keys are positions."""
    vocabulary, length = 3, 4
    token, position, out, spare = 0, 3, 7, 10  # first channel of each group
    weights: Weights = {}
    for t in range(vocabulary):
        weights[("embed.token.weight", t, token + t)] = 1.0
        weights[("layers.0.attn.v.weight", t, token + t)] = 1.0
        weights[("layers.0.attn.o.weight", out + t, t)] = 1.0
        weights[("unembed.weight", t, out + t)] = 10.0
    for p in range(length):
        weights[("embed.position.weight", p, position + p)] = 1.0
    for channel, p in enumerate((2, 3)):
        weights[("layers.0.attn.q.weight", channel, position + p)] = 8.0
        weights[("layers.0.attn.k.weight", channel, position + p - 2)] = 8.0
    size = {"vocab_size": 3, "max_length": length, "d_model": 12, "n_heads": 2, "d_head": 3, "d_mlp": 4}
    model = wire(weights, loud(spare, value=5), quiet, seed, **size)
    prompts = [p for n in (3, 4) for p in product(range(vocabulary), repeat=n)]
    return Case(model, domain_of(prompts, lambda p: p[-3], vocabulary), criterion(0.1), frozenset(weights))


def match_quotes(seed: int = 0, quiet: int = 4) -> Case:
    """The answer is the quote that stands somewhere before: a head that looks for quotes and carries their type.

    Tokens: two letters, then the two quotes. The query is a bias: the head always looks for quotes.
    """
    detector, kind, carried, spare = 0, 1, 2, 4
    weights: Weights = {
        ("embed.token.weight", 2, detector): 1.0,
        ("embed.token.weight", 3, detector): 1.0,
        ("embed.token.weight", 2, kind): 1.0,
        ("embed.token.weight", 3, kind): -1.0,
        ("layers.0.attn.q.bias", 0, 0): 8.0,
        ("layers.0.attn.k.weight", 0, detector): 8.0,
        ("layers.0.attn.v.weight", 0, kind): 1.0,
        ("layers.0.attn.o.weight", carried, 0): 1.0,
        ("unembed.weight", 2, carried): 8.0,
        ("unembed.weight", 3, carried): -8.0,
    }
    size = {"vocab_size": 4, "max_length": 4, "d_model": 6, "n_heads": 2, "d_head": 2, "d_mlp": 4, "bias": True}
    model = wire(weights, loud(spare, value=3), quiet, seed, **size)
    return Case(model, domain_of(with_one_quote(), lambda p: max(p), 4), criterion(0.02), frozenset(weights))


def with_one_quote() -> list[list[int]]:
    """All texts of one to four tokens in which one is a quotation mark, 2 or 3, and the others are letters, 0 or 1."""
    return [
        [*letters[:place], quote, *letters[place:]]
        for n in range(1, 5)
        for letters in product((0, 1), repeat=n - 1)
        for place in range(n)
        for quote in (2, 3)
    ]


def conjunction(seed: int = 0, quiet: int = 2, paths: int = 1) -> Case:
    """The answer is whether both bits are 1: a head that averages, a neuron that is on only for the full sum.

    With two paths the neuron reaches the logit through two channels, each of which is enough.
    """
    weights: Weights = {
        ("embed.token.weight", 1, 0): 2.0,
        ("layers.0.attn.v.weight", 0, 0): 1.0,
        ("layers.0.attn.o.weight", 1, 0): 1.0,
        ("layers.0.mlp.up.weight", 0, 1): 1.0,
        ("layers.0.mlp.up.bias", 0, 0): -1.0,
        ("unembed.bias", 0, 0): 8.0,
    }
    for path in range(paths):
        weights[("layers.0.mlp.down.weight", 2 + path, 0)] = 1.0
        weights[("unembed.weight", 1, 2 + path)] = 20.0
    distractors: Weights = {("unembed.weight", 0, 1): 0.3, ("layers.0.mlp.up.weight", 2, 0): 1.0}
    if paths == 1:
        distractors |= {("embed.position.weight", 0, 0): 0.05, ("layers.0.attn.q.weight", 0, 0): 0.1}
    size = {"vocab_size": 2, "max_length": 2, "d_model": 4, "n_heads": 1, "d_head": 1, "d_mlp": 3, "bias": True}
    model = wire(weights, distractors, quiet, seed, **size)
    prompts = list(product((0, 1), repeat=2))
    return Case(model, domain_of(prompts, lambda p: p[0] & p[1], 2), criterion(0.05), frozenset(weights))


def identity_with_cancelling_pair(seed: int = 0, quiet: int = 2) -> Case:
    """Copying the last token, and two neurons that write the opposite of each other: one harms, the other mends it.

    Not monotone: while the harmful neuron is there the mending one is necessary, without it superfluous.
    """
    weights: Weights = {}
    for token in range(3):
        weights[("embed.token.weight", token, token)] = 1.0
        weights[("unembed.weight", token, token)] = 10.0
    distractors: Weights = {}
    for neuron, value in enumerate((2.0, -2.0)):
        distractors[("layers.0.mlp.up.weight", neuron, 0)] = 1.0
        distractors[("layers.0.mlp.down.weight", 0, neuron)] = value
    size = {"vocab_size": 3, "max_length": 2, "d_model": 4, "n_heads": 1, "d_head": 2, "d_mlp": 3}
    model = wire(weights, distractors, quiet, seed, **size)
    prompts = [p for n in (1, 2) for p in product(range(3), repeat=n)]
    return Case(model, domain_of(prompts, lambda p: p[-1], 3), criterion(0.1), frozenset(weights))


def loud(spare: int, value: int) -> Weights:
    """Strong weights from every part of the model through the channels ``spare`` and ``spare + 1``, to no logit.

    Args:
        spare: the first of two channels of the residual stream that the wiring does not use.
        value: a value channel of the second head.
    """
    return {
        ("embed.token.weight", 0, spare): 3.0,
        ("embed.token.weight", 1, spare): -2.0,
        ("embed.position.weight", 0, spare + 1): 2.0,
        ("layers.0.attn.q.weight", value, spare): 3.0,
        ("layers.0.attn.k.weight", value, spare + 1): 3.0,
        ("layers.0.attn.v.weight", value, spare): 3.0,
        ("layers.0.attn.o.weight", spare + 1, value): 3.0,
        ("layers.0.mlp.up.weight", 3, spare + 1): 3.0,
        ("layers.0.mlp.up.weight", 2, 0): 3.0,
        ("layers.0.mlp.down.weight", spare, 3): 3.0,
        ("layers.0.mlp.down.weight", spare + 1, 2): 3.0,
    }


def criterion(loss: float) -> list[Bound]:
    """Every prompt of the domain answered, and the mean loss (nats) at most this."""
    return [Bound("task_loss", at_most=loss), Bound("accuracy", at_least=1.0)]
