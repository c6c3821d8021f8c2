"""Wired by hand, in the style of ``cases``: heads that carry what they found, and heads that build on other heads."""

from __future__ import annotations

from itertools import product

from .cases import Case, Weights, criterion, domain_of, loud, wire, with_one_quote


def inhibiting_quotes(seed: int = 0, quiet: int = 4) -> Case:
    """The answer is the quote that stands somewhere before; each quote's unembedding is not independent.

    Tokens: two letters, then the two quotes. One channel says that there is a quote, which speaks for the first;
    another that it is the second, which speaks for it and, twice as loud, against the first.
    """
    any_quote, second, carried_any, carried_second, spare = 0, 1, 2, 3, 4
    weights: Weights = {
        ("embed.token.weight", 2, any_quote): 1.0,
        ("embed.token.weight", 3, any_quote): 1.0,
        ("embed.token.weight", 3, second): 1.0,
        ("layers.0.attn.q.bias", 0, 0): 8.0,
        ("layers.0.attn.k.weight", 0, any_quote): 8.0,
        ("layers.0.attn.v.weight", 0, any_quote): 1.0,
        ("layers.0.attn.v.weight", 1, second): 1.0,
        ("layers.0.attn.o.weight", carried_any, 0): 1.0,
        ("layers.0.attn.o.weight", carried_second, 1): 1.0,
        ("unembed.weight", 2, carried_any): 8.0,
        ("unembed.weight", 2, carried_second): -16.0,
        ("unembed.weight", 3, carried_second): 8.0,
    }
    size = {"vocab_size": 4, "max_length": 4, "d_model": 6, "n_heads": 2, "d_head": 2, "d_mlp": 4, "bias": True}
    model = wire(weights, loud(spare, value=3), quiet, seed, **size)
    return Case(model, domain_of(with_one_quote(), max, 4), criterion(0.02), frozenset(weights))


def induction(seed: int = 0, quiet: int = 2, loss: float = 0.0085) -> Case:
    """The answer is what followed the last token where it stood before: a head of each of two layers.

    The first layer's head writes each position's previous token, found by position; the second's looks for the position
    whose previous token is the last one and copies the token there. Token 3 opens every prompt.

    Barely above the model's own loss every weight counts. With more room, the average that a position writes where its
    query is missing holds enough of its previous token, for some of the positions and not for all at once.
    """
    vocabulary, beginning = 3, 3
    token, position, previous, out, spare = 0, 3, 8, 11, 14  # first channel of each group
    weights: Weights = {}
    for t in range(vocabulary):
        weights[("embed.token.weight", t, token + t)] = 1.0
        weights[("layers.0.attn.v.weight", t, token + t)] = 1.0
        weights[("layers.0.attn.o.weight", previous + t, t)] = 1.0
        weights[("layers.1.attn.q.weight", t, token + t)] = 4.0
        weights[("layers.1.attn.k.weight", t, previous + t)] = 4.0
        weights[("layers.1.attn.v.weight", t, token + t)] = 1.0
        weights[("layers.1.attn.o.weight", out + t, t)] = 1.0
        weights[("unembed.weight", t, out + t)] = 6.0
    for p in (1, 2, 3, 4):  # at position 1 only the beginning and the token itself can be looked at
        weights[("embed.position.weight", p, position + p)] = 1.0
    for channel, p in enumerate((2, 3, 4)):
        weights[("layers.0.attn.q.weight", channel, position + p)] = 8.0
        weights[("layers.0.attn.k.weight", channel, position + p - 1)] = 8.0
    size = {"vocab_size": 4, "max_length": 5, "d_model": 16, "n_heads": 2, "d_head": 3, "d_mlp": 4, "n_layers": 2}
    model = wire(weights, loud(spare, value=5), quiet, seed, **size)
    tails = [tail for n in (3, 4) for tail in product(range(vocabulary), repeat=n)]
    prompts = [[beginning, *tail] for tail in tails if tail[:-1].count(tail[-1]) == 1]
    return Case(model, domain_of(prompts, lambda p: p[p.index(p[-1]) + 1], 4), criterion(loss), frozenset(weights))


def bracket_depth(seed: int = 0, quiet: int = 2) -> Case:
    """How deep four tokens end: the head averages over opening and closing brackets, a neuron marks depth 2 and more.

    Tokens: "(", ")", a letter, "))". The answer is the letter at depth 0, ")" at depth 1, "))" where it is deeper.
    """
    opening, closing, letter, double, length = 0, 1, 2, 3, 4
    weights: Weights = {
        ("embed.token.weight", opening, 0): float(length),
        ("embed.token.weight", closing, 0): -float(length),
        ("layers.0.attn.v.weight", 0, 0): 1.0,
        ("layers.0.attn.o.weight", 1, 0): 1.0,
        ("layers.0.mlp.up.weight", 0, 1): 1.0,
        ("layers.0.mlp.up.bias", 0, 0): -1.0,
        ("layers.0.mlp.down.weight", 2, 0): 1.0,
        ("unembed.weight", closing, 1): 20.0,
        ("unembed.weight", double, 2): 60.0,
        ("unembed.bias", letter, 0): 10.0,
    }
    distractors: Weights = {
        ("embed.token.weight", opening, 3): 3.0,
        ("embed.position.weight", 0, 3): 2.0,
        ("layers.0.attn.v.weight", 1, 3): 3.0,
        ("layers.0.attn.o.weight", 3, 1): 3.0,
        ("layers.0.mlp.up.weight", 1, 3): 3.0,
        ("layers.0.mlp.up.weight", 2, 0): 3.0,
        ("layers.0.mlp.down.weight", 3, 1): 3.0,
        ("layers.0.mlp.down.weight", 3, 2): 3.0,
    }
    size = {"vocab_size": 4, "max_length": length, "d_model": 4, "n_heads": 1, "d_head": 2, "d_mlp": 3, "bias": True}
    model = wire(weights, distractors, quiet, seed, **size)

    def depths(prompt: tuple[int, ...]) -> list[int]:
        steps = [{opening: 1, closing: -1}.get(t, 0) for t in prompt]
        return [sum(steps[: n + 1]) for n in range(length)]

    prompts = [p for p in product((opening, closing, letter), repeat=length) if min(depths(p)) >= 0]
    answers = {p: (letter, closing, double)[min(2, depths(p)[-1])] for p in prompts}
    return Case(model, domain_of(prompts, lambda p: answers[tuple(p)], 4), criterion(0.05), frozenset(weights))
