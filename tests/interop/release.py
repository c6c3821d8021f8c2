"""What the release computes, written from its description: float64, one sequence, one position, one head at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]
DATA = Path(__file__).parent / "data"
PLACES = (
    *("attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "resid_post_attn"),
    *("mlp_in", "mlp_neuron", "mlp_out", "resid_post_mlp"),
)
DEFAULTS: dict[str, Any] = {
    "d_head": None,
    "d_mlp": None,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True,
    "enable_bigram_table": False,
    "d_pos_emb": None,
    "sink": False,
}


class Release:
    """A checkpoint of the release, run slowly.

    Args:
        config: content of ``beeg_config.json``.
        state: the tensors, by the release's names.
    """

    def __init__(self, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        self.c = {**DEFAULTS, **config}
        self.p: dict[str, Array] = {name: tensor.double().numpy() for name, tensor in state.items()}
        self.d_head = self.c["d_head"] or self.c["d_model"] // self.c["n_head"]

    def top_k(self, x: Array, place: str) -> Array:
        if self.c["afrac"] is None or place not in self.c["afrac_loctypes"].split(","):
            return x
        order = sorted(range(len(x)), key=lambda i: -abs(x[i]))
        kept = set(order[: int(self.c["afrac"] * len(x))])
        return np.array([value if i in kept else 0.0 for i, value in enumerate(x)])

    def norm(self, x: Array, name: str) -> Array:
        if self.c["rms_norm"]:
            y = x / math.sqrt(sum(v * v for v in x) / len(x) + 2.0**-23)
        else:
            centred = x - sum(x) / len(x)
            y = centred / math.sqrt(sum(v * v for v in centred) / len(x) + 1e-5)
        y = y * self.p[f"{name}.weight"]
        return y + self.p[f"{name}.bias"] if self.c["ln_bias"] and not self.c["rms_norm"] else y

    def linear(self, x: Array, name: str) -> Array:
        y = self.p[f"{name}.weight"] @ x
        return y + self.p[f"{name}.bias"] if self.c["bias"] else y

    def neuron(self, x: Array) -> Array:
        if self.c["activation_type"] == "relu":
            return np.maximum(x, 0)
        return np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x])

    def read(self, x: Array, position: int, layer: str, number: int) -> Array:
        y = self.norm(x, f"{layer}.ln_{number}")
        if self.c["d_pos_emb"] is not None:
            y = np.concatenate([y, self.norm(self.p["transformer.wpe.weight"][position], f"{layer}.ln_p{number}")])
        return self.top_k(y, "attn_in" if number == 1 else "mlp_in")

    def attention(self, stream: list[Array], layer: str) -> list[Array]:
        width = self.d_head * self.c["n_head"]
        qkv = [self.linear(self.read(x, t, layer, 1), f"{layer}.attn.c_attn") for t, x in enumerate(stream)]
        q, k, v = (
            [self.top_k(row[part * width : (part + 1) * width], f"attn_{letter}") for row in qkv]
            for part, letter in enumerate("qkv")
        )
        written = []
        for t in range(len(stream)):
            heads = []
            for head in range(self.c["n_head"]):
                own = slice(head * self.d_head, (head + 1) * self.d_head)
                scores = [math.exp(float(q[t][own] @ k[s][own]) / math.sqrt(self.d_head)) for s in range(t + 1)]
                total = sum(scores)
                if self.c["sink"]:
                    total += math.exp(self.p[f"{layer}.attn.attn_imp.sink_logit"][head])
                heads.append(sum(score / total * v[s][own] for s, score in enumerate(scores)))
            written.append(self.top_k(self.linear(np.concatenate(heads), f"{layer}.attn.c_proj"), "attn_out"))
        return written

    def residual(self, x: Array, place: str) -> Array:
        return self.top_k(np.maximum(x, 0) if self.c["residual_activation_type"] == "relu" else x, place)

    def __call__(self, tokens: list[int]) -> Array:
        stream = [self.p["transformer.wte.weight"][token] for token in tokens]
        if self.c["d_pos_emb"] is None:
            stream = [x + self.p["transformer.wpe.weight"][t] for t, x in enumerate(stream)]
        for i in range(self.c["n_layer"]):
            layer = f"transformer.h.{i}"
            added = self.attention(stream, layer)
            stream = [self.residual(x + y, "resid_post_attn") for x, y in zip(stream, added, strict=True)]
            for t, x in enumerate(stream):
                hidden = self.top_k(
                    self.neuron(self.linear(self.read(x, t, layer, 2), f"{layer}.mlp.c_fc")), "mlp_neuron"
                )
                written = self.top_k(self.linear(hidden, f"{layer}.mlp.c_proj"), "mlp_out")
                stream[t] = self.residual(x + written, "resid_post_mlp")
        logits = [self.p["lm_head.weight"] @ self.norm(x, "transformer.ln_f") for x in stream]
        if "final_logits_bias" in self.p:
            logits = [y + self.p["final_logits_bias"] for y in logits]
        if self.c["enable_bigram_table"]:
            logits = [y + self.p["bigram_table"][token] for y, token in zip(logits, tokens, strict=True)]
        return np.stack(logits)


def random_state(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors for a configuration, by the release's names."""
    c = {**DEFAULTS, **config}
    generator = torch.Generator().manual_seed(seed)
    d_model, vocabulary = c["d_model"], c["vocab_size"]
    d_in = d_model + (c["d_pos_emb"] or 0)
    d_heads = (c["d_head"] or d_model // c["n_head"]) * c["n_head"]
    d_mlp = c.get("n_mlp") or c["d_mlp"] or 4 * d_model
    norms = {"weight"} if c["rms_norm"] or not c["ln_bias"] else {"weight", "bias"}
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocabulary, d_model),
        "transformer.wpe.weight": (c["block_size"], c["d_pos_emb"] or d_model),
        "lm_head.weight": (vocabulary, d_model),
        "final_logits_bias": (vocabulary,),
    }
    for kind in norms:
        shapes[f"transformer.ln_f.{kind}"] = (d_model,)
    for i in range(c["n_layer"]):
        layer = f"transformer.h.{i}"
        for kind in norms:
            for number in (1, 2):
                shapes[f"{layer}.ln_{number}.{kind}"] = (d_model,)
                if c["d_pos_emb"] is not None:
                    shapes[f"{layer}.ln_p{number}.{kind}"] = (c["d_pos_emb"],)
        for name, rows, columns in (
            ("attn.c_attn", 3 * d_heads, d_in),
            ("attn.c_proj", d_model, d_heads),
            ("mlp.c_fc", d_mlp, d_in),
            ("mlp.c_proj", d_model, d_mlp),
        ):
            shapes[f"{layer}.{name}.weight"] = (rows, columns)
            if c["bias"]:
                shapes[f"{layer}.{name}.bias"] = (rows,)
        if c["sink"]:
            shapes[f"{layer}.attn.attn_imp.sink_logit"] = (c["n_head"],)
    if c["enable_bigram_table"]:
        shapes["bigram_table"] = (vocabulary, vocabulary)
    state = {name: torch.randn(shape, generator=generator) * 0.6 for name, shape in shapes.items()}
    if c["tied_unembed"]:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def write(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint of the release's format and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "beeg_config.json").write_text(json.dumps(config))
    torch.save(dict(state), folder / "final_model.pt")
    return folder


#: Every option of the release that changes the forward pass, and some that do not.
configs = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([5, 3]),
        "vocab_size": st.sampled_from([5, 7]),
        "n_layer": st.sampled_from([1, 2, 0]),
        "n_head": st.sampled_from([2, 1, 3]),
        "d_model": st.sampled_from([6, 12]),
        "d_head": st.sampled_from([None, 3, 5]),
        "bias": st.booleans(),
        "ln_bias": st.booleans(),
        "rms_norm": st.booleans(),
        "residual_activation_type": st.sampled_from(["identity", "relu"]),
        "activation_type": st.sampled_from(["gelu", "relu"]),
        "afrac": st.sampled_from([None, 0.5, 0.34, 1.0]),
        "afrac_loctypes": st.sets(st.sampled_from(PLACES)).map(lambda places: ",".join(sorted(places))),
        "tied_unembed": st.booleans(),
        "enable_bigram_table": st.booleans(),
        "learnable_bigram_table": st.booleans(),
        "d_pos_emb": st.sampled_from([None, None, 3, 4]),
        "sinusoidal_cat_pos_emb": st.booleans(),
        "sink": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.1]),
        "tokenizer_name": st.just("tinypython_2k"),
    },
    optional={"d_mlp": st.sampled_from([None, 7]), "n_mlp": st.sampled_from([9])},
)
