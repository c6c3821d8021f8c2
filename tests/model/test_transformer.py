"""The one forward pass against a slow, independent reference; causality, answer positions, refused values."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer

VOCABULARY, LENGTH = 5, 6
Array = np.ndarray[Any, np.dtype[np.float64]]


def randomised(**config: Any) -> Transformer:
    """A transformer none of whose parameters is at its initial value."""
    generator = torch.Generator().manual_seed(0)
    model = Transformer(VOCABULARY, LENGTH, **{"n_layers": 2, "d_model": 6, "n_heads": 2, "d_mlp": 5, **config})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * (0.7 if model.norm_kind == "rms" else 0.4)
            )
    return model.eval()


def some_tokens(batch: int = 3, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


# -- the reference: float64, one sequence, one position, one head, one neuron at a time --------------------------------


class Reference:
    """The model of Gao et al. 2025, §2, written from its equations."""

    def __init__(self, model: Transformer) -> None:
        self.c = model.config
        state = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
        self.p: dict[str, Array] = state
        self.d_head = self.c["d_head"] or self.c["d_model"] // self.c["n_heads"]

    def top_k(self, x: Array) -> Array:
        share = self.c["activation_density"]
        if share is None:
            return x
        keep = max(1, math.floor(share * len(x)))
        kept = sorted(range(len(x)), key=lambda i: -abs(x[i]))[:keep]
        return np.array([x[i] if i in kept else 0.0 for i in range(len(x))])

    def normalise(self, x: Array, name: str) -> Array:
        kind = self.c["norm"]
        if kind == "none":
            return x
        if kind == "layer":
            x = x - sum(x) / len(x)
        root = math.sqrt(sum(v * v for v in x) / len(x) + self.c["norm_eps"])
        y = np.array([v / root for v in x]) * self.p[f"{name}.weight"]
        return y + self.p[f"{name}.bias"] if f"{name}.bias" in self.p else y

    def linear(self, x: Array, name: str) -> Array:
        weight = self.p[f"{name}.weight"]
        y = np.array([sum(weight[i, j] * x[j] for j in range(len(x))) for i in range(len(weight))])
        return y + self.p[f"{name}.bias"] if f"{name}.bias" in self.p else y

    def activate(self, x: Array, kind: str) -> Array:
        if kind == "relu":
            return np.array([max(0.0, v) for v in x])
        if kind == "gelu_new":
            return np.array([v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2 for v in x])
        if kind == "gelu":
            return np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
        return x

    def sinusoid(self, position: int, width: int) -> Array:
        half = (width + 1) // 2
        angles = [position / 10_000 ** (i / half) for i in range(half)]
        return np.array([*map(math.sin, angles), *map(math.cos, angles)])[:width]

    def read(self, x: Array, position: int, block: str) -> Array:
        y = self.normalise(x, f"{block}.norm")
        if self.c["positions"].endswith("concatenated"):
            width = self.c["d_position"] or self.c["d_model"]
            learned = self.c["positions"].startswith("learned")
            extra = self.p["positions.weight"][position] if learned else self.sinusoid(position, width)
            y = np.concatenate([y, self.normalise(extra, f"{block}.position_norm")])
        return self.top_k(y)

    def attention(self, stream: list[Array], block: str) -> list[Array]:
        reads = [self.read(x, t, block) for t, x in enumerate(stream)]
        q, k, v = ([self.top_k(self.linear(r, f"{block}.{letter}")) for r in reads] for letter in "qkv")
        written = []
        for t in range(len(stream)):
            mixed = []
            for head in range(self.c["n_heads"]):
                own = slice(head * self.d_head, (head + 1) * self.d_head)
                scores = [float(q[t][own] @ k[s][own]) / math.sqrt(self.d_head) for s in range(t + 1)]
                total = sum(math.exp(score) for score in scores)
                if self.c["sink"]:
                    total += math.exp(self.p[f"{block}.sink"][head])
                mixed.append(sum(math.exp(score) / total * v[s][own] for s, score in enumerate(scores)))
            written.append(self.top_k(self.linear(np.concatenate(mixed), f"{block}.o")))
        return written

    def __call__(self, tokens: list[int]) -> Array:
        stream = []
        for t, token in enumerate(tokens):
            x = self.p["embed.token.weight"][token]
            if self.c["positions"] == "learned":
                x = x + self.p["embed.position.weight"][t]
            elif self.c["positions"] == "sinusoidal":
                x = x + self.sinusoid(t, self.c["d_model"])
            stream.append(x)
        residual = self.c["residual_activation"]
        for i in range(self.c["n_layers"]):
            added = self.attention(stream, f"layers.{i}.attn")
            stream = [self.activate(x + y, residual) for x, y in zip(stream, added, strict=True)]
            mlp = f"layers.{i}.mlp"
            for t, x in enumerate(stream):
                hidden = self.activate(self.linear(self.read(x, t, mlp), f"{mlp}.up"), self.c["activation"])
                stream[t] = self.activate(x + self.top_k(self.linear(self.top_k(hidden), f"{mlp}.down")), residual)
        logits = [self.linear(self.normalise(x, "norm"), "unembed") for x in stream]
        if self.c["bigram"]:
            logits = [y + self.p["bigram.weight"][token] for y, token in zip(logits, tokens, strict=True)]
        return np.stack(logits)


CONFIGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "layer norm": {"norm": "layer"},
    "layer norm without bias": {"norm": "layer", "norm_bias": False},
    "no norm": {"norm": "none", "bias": False},
    "no biases": {"bias": False},
    "unembedding bias only": {"bias": False, "unembed_bias": True},
    "no unembedding bias": {"unembed_bias": False},
    "sinusoidal": {"positions": "sinusoidal"},
    "learned, concatenated": {"positions": "learned_concatenated", "d_position": 3},
    "sinusoidal, concatenated": {"positions": "sinusoidal_concatenated", "norm": "layer"},
    "concatenated without norm": {"positions": "learned_concatenated", "norm": "none"},
    "no positions": {"positions": "none"},
    "sink": {"sink": True},
    "bigram": {"bigram": True},
    "relu": {"activation": "relu"},
    "GELU of GPT-2": {"activation": "gelu_new"},
    "attention only": {"d_mlp": 0},
    "attention only, AbsTopK": {"d_mlp": 0, "activation_density": 0.34},
    "residual activation": {"residual_activation": "relu"},
    "tied": {"tied": True},
    "wide heads": {"d_head": 5, "d_mlp": 9},
    "one narrow head": {"n_heads": 1, "d_head": 1},
    "AbsTopK": {"activation_density": 0.34},
    "no layers": {"n_layers": 0},
    "everything": {
        "sink": True,
        "bigram": True,
        "positions": "learned_concatenated",
        "d_position": 4,
        "norm": "layer",
        "residual_activation": "gelu",
        "activation_density": 0.5,
        "d_head": 2,
        "n_heads": 3,
    },
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_equal_the_slow_reference(config: dict[str, Any]) -> None:
    model = randomised(**config).double()
    tokens = some_tokens()
    expected = np.stack([Reference(model)(row) for row in tokens.tolist()])
    tolerance = 1e-6 if "sinusoidal" in model.config["positions"] else 1e-10  # the table is single precision
    assert np.abs(model(tokens).detach().numpy() - expected).max() < tolerance


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_at_one_position_equal_those_gathered_from_all(config: dict[str, Any]) -> None:
    model, tokens = randomised(**config), some_tokens(batch=8)
    at = torch.tensor([0, 1, 2, 3, 4, 5, 5, 0])
    assert torch.allclose(model(tokens, at), model(tokens)[torch.arange(8), at], atol=2e-6)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_fused_attention_equals_the_explicit_one(config: dict[str, Any]) -> None:
    model, tokens = randomised(**config), some_tokens()
    fused = model(tokens)
    patterns = [name for name in model.sites if name.endswith("pattern")]
    with model.sites.recorded(patterns) as records:
        assert torch.allclose(model(tokens), fused, atol=2e-6)
    for pattern in records.values():
        assert pattern.shape == (3, model.n_heads, LENGTH, LENGTH)
        share = pattern.sum(-1)
        assert (share < 1).all() if model.has_sink else torch.allclose(share, torch.ones(()))
        assert not pattern.triu(1).any()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(CONFIGS)), st.integers(0, LENGTH - 2), st.integers(0, 1000))
def test_future_tokens_cannot_change_a_logit(name: str, position: int, seed: int) -> None:
    model, tokens = randomised(**CONFIGS[name]), some_tokens(seed=seed)
    changed = tokens.clone()
    changed[:, position + 1 :] = some_tokens(length=LENGTH - position - 1, seed=seed + 1)
    difference = model(tokens)[:, : position + 1] - model(changed)[:, : position + 1]
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_amount_of_padding_cannot_matter(config: dict[str, Any]) -> None:
    model, prompt = randomised(**config), some_tokens(length=3)
    at = torch.full((3,), 2)
    padded = torch.cat([prompt, torch.zeros(3, 3, dtype=torch.long)], dim=1)
    assert torch.allclose(model(prompt, at), model(padded, at), atol=1e-6)


def test_an_earlier_token_can_change_a_logit() -> None:
    model, tokens = randomised(), some_tokens()
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCABULARY
    assert ((model(tokens) - model(changed))[:, -1].abs().amax(-1) > 1e-4).all()


def test_an_edited_attention_pattern_is_what_mixes_the_values() -> None:
    model, tokens = randomised(n_layers=1, n_heads=1, bias=False), some_tokens()

    def look_at_the_first(pattern: Tensor) -> Tensor:
        return torch.zeros_like(pattern).index_fill(-1, torch.tensor(0), 1.0)

    names = ["layers.0.attn.v", "layers.0.attn.z"]
    with model.sites.edited(after={"layers.0.attn.pattern": look_at_the_first}), model.sites.recorded(names) as seen:
        model(tokens)
    assert torch.allclose(seen["layers.0.attn.z"], seen["layers.0.attn.v"][:, :1].expand(-1, LENGTH, -1))


def test_top_k_on_the_attention_pattern_is_refused_because_keys_are_no_channels() -> None:
    with pytest.raises(SparselitError, match=r"'\*\.pattern'.*layers\.0\.attn\.pattern"):
        randomised(activation_density={"*.pattern": 0.5})


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 1.0))
def test_activation_density_keeps_the_floor_of_its_share_and_at_least_one(share: float) -> None:
    model = randomised(activation_density=share, d_mlp=13)
    eight = ["attn.in", "attn.q", "attn.k", "attn.v", "attn.out", "mlp.in", "mlp.act", "mlp.out"]
    kept = {name: site.keep for name, site in model.sites.items() if site.keep is not None}
    assert set(kept) == {f"layers.{i}.{place}" for i in range(2) for place in eight}
    with model.sites.recorded(kept) as records:
        model(some_tokens())
    for name, keep in kept.items():
        assert keep == max(1, math.floor(share * model.sites[name].width))
        alive = (records[name] != 0).sum(-1)
        assert int(alive.max()) <= keep
        if not name.endswith(("out", "act", ".in")):
            assert (alive == keep).all()


def test_one_glob_sparsifies_the_sites_it_matches_and_no_other() -> None:
    model = randomised(activation_density={"*.mlp.act": 0.4})
    assert [name for name, site in model.sites.items() if site.keep] == ["layers.0.mlp.act", "layers.1.mlp.act"]
    with pytest.raises(SparselitError, match="nonsense"):
        randomised(activation_density={"nonsense": 0.4})


def test_a_tied_model_has_one_embedding_tensor_also_as_a_copy() -> None:
    twin = copy.deepcopy(randomised(tied=True))
    assert twin.unembed.weight is twin.embed.token.weight
    assert sum(p.numel() for p in twin.parameters()) < sum(p.numel() for p in randomised().parameters())


def test_a_state_dict_loads_into_a_model_of_the_same_config() -> None:
    for config in CONFIGS.values():
        model = randomised(**config)
        again = Transformer(**model.config)
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(some_tokens()), model(some_tokens()))
        assert set(model.config) == Transformer.config_keys()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"n_layers": -1}, "n_layers must be at least 0, got -1"),
        ({"d_model": 6, "n_heads": 4}, "6 is not a multiple of n_heads 4"),
        ({"d_head": 0}, "d_head must be at least 1, got 0"),
        ({"d_mlp": -2}, "d_mlp must be at least 0, got -2"),
        ({"activation_density": 0.0}, r"activation_density must lie in \(0, 1\], got 0"),
        ({"activation_density": {"*.q": 1.5}}, r"activation_density must lie in \(0, 1\], got 1.5"),
        ({"norm": "rmsnorm"}, r"model\.norm must be one of rms, layer, none, got 'rmsnorm'"),
        ({"positions": "rotary"}, r"model\.positions must be one of learned.*got 'rotary'"),
        ({"activation": "tanh"}, r"model\.activation must be one of gelu, gelu_new, relu, got 'tanh'"),
        ({"residual_activation": "tanh"}, r"model\.residual_activation must be one of identity.*got 'tanh'"),
    ],
)
def test_an_impossible_value_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SparselitError, match=message):
        Transformer(**{"vocab_size": 4, "max_length": 4, **config})


def test_a_sequence_that_is_too_long_is_refused() -> None:
    with pytest.raises(SparselitError, match=r"7 tokens is longer than model\.max_length 6"):
        randomised()(some_tokens(length=7))
