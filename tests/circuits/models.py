"""Small transformers with no parameter at its initial value, and examples for them, for the tests of this folder."""

from __future__ import annotations

import random
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from sparselit.circuits import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

VOCABULARY, LENGTH = 5, 6
seeds = st.integers(0, 2**31)

#: Everything that changes the forward pass.
configs = st.fixed_dictionaries(
    {
        "n_layers": st.sampled_from([1, 2, 2, 1, 0]),
        "n_heads": st.sampled_from([2, 1, 3]),
        "d_head": st.sampled_from([3, 4, 2, 1]),
        "norm": st.sampled_from(["rms", "rms", "none", "layer"]),
        "bias": st.booleans(),
        "unembed_bias": st.booleans(),
        "positions": st.sampled_from(["learned", "learned", "none", "sinusoidal", "learned_concatenated"]),
        "sink": st.booleans(),
        "bigram": st.booleans(),
        "activation": st.sampled_from(["gelu", "gelu_new", "relu"]),
        "residual_activation": st.sampled_from(["identity", "identity", "relu"]),
        "tied": st.booleans(),
        "d_mlp": st.sampled_from([5, 5, 5, 0]),
        "activation_density": st.sampled_from([None, None, 0.5, {"*.mlp.act": 0.4, "*.attn.out": 0.7}]),
    }
)
#: As above, only what compaction shrinks.
compactable = configs.map(
    lambda c: (
        c
        | {
            "norm": "none" if c["norm"] == "layer" else c["norm"],
            "positions": c["positions"] if c["positions"] == "none" else "learned",
        }
    )
).map(lambda c: c | {"activation_density": c["activation_density"] if c["n_layers"] else None})


def randomised(seed: int = 0, density: float = 1.0, **config: Any) -> Transformer:
    """A transformer with random parameters of which a share ``density`` of the matrices' entries is not zero."""
    g = torch.Generator().manual_seed(seed)
    if not config.get("n_layers", 1):
        config["activation_density"] = None
    size = {"n_layers": 1, "d_model": 6, "n_heads": 2, "d_head": 3, "d_mlp": 5}
    model = Transformer(VOCABULARY, LENGTH, **size | config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.7)
            if parameter.ndim >= 2:
                parameter.mul_(torch.rand(parameter.shape, generator=g) < density)
    return model.eval()


def some_examples(n: int = 16, seed: int = 0) -> Examples:
    """Different prompts of all lengths, padded with token 0."""
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (n, LENGTH), generator=g)
    length = torch.randint(1, LENGTH + 1, (n,), generator=g)
    tokens[torch.arange(LENGTH) >= length[:, None]] = 0
    answer = torch.randint(VOCABULARY, (n,), generator=g)
    corrupted = torch.randint(VOCABULARY, (n, LENGTH), generator=g) * (torch.arange(LENGTH) < length[:, None])
    seen: set[tuple[int, ...]] = set()
    for i in range(n):
        while (prompt := tuple(tokens[i, : length[i]].tolist())) in seen:
            tokens[i], length[i] = torch.randint(VOCABULARY, (LENGTH,), generator=g), LENGTH
        seen.add(prompt)
    return Examples(tokens, length, answer, (answer + 1) % VOCABULARY, corrupted, torch.zeros_like(length))


def some_behaviour(model: Transformer | None = None, n: int = 40) -> Behaviour:
    """Three disjoint draws; the answers are the model's own where one is given."""
    splits = {}
    for seed, split in enumerate(("discovery", "selection", "report")):
        examples = some_examples(n, seed)
        if model is not None:
            with torch.no_grad():
                answer = model(examples.tokens, examples.length - 1).argmax(-1)
            examples = examples._replace(answer=answer, wrong=(answer + 1) % VOCABULARY)
        splits[split] = examples
    return Behaviour(splits, list("abcde"), ("all",), {"class_path": "Mine", "init_args": {"seed": 3}})


def random_subset(of: Tensor, share: float, seed: int) -> Tensor:
    """A random share of the true entries of ``of``."""
    return of & (torch.rand(of.shape, generator=torch.Generator().manual_seed(seed)) < share)


def random_channels(edges: Edges, share: float, seed: int) -> Tensor:
    """The edges and biases between a random share of the channels, so that whole paths stay and whole heads go.

    A residual channel is one channel wherever it is read or written; tokens, positions and logits all stay.
    """
    rng = random.Random(seed)
    alive: dict[tuple[str, int], bool] = {}

    def lives(site: str, channel: int) -> bool:
        if site in ("token", "position", "logits", "bias"):
            return True
        if site.endswith((".in", ".out", "embed")):
            site = "residual"
        return alive.setdefault((site.replace(".attn.k", ".attn.q"), channel), rng.random() < share)

    ends = [edges.endpoints(i) for i in range(len(edges))]
    return torch.tensor([lives(*source) and lives(*target) for source, target in ends], dtype=torch.bool)
