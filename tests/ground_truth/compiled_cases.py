"""Transformers that a compiler made from RASP programs; see ``compiled/NOTICE.md`` for where the weights come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

from .cases import Case, criterion, domain_of

DATA = Path(__file__).parent / "compiled"
#: The compiler's names of a layer's linear maps, and ours.
LINEAR = {
    "attn/query": "attn.q",
    "attn/key": "attn.k",
    "attn/value": "attn.v",
    "attn/linear": "attn.o",
    "mlp/linear_1": "mlp.up",
    "mlp/linear_2": "mlp.down",
}
FRACTIONS = (0.0, 1 / 3, 1 / 2, 2 / 3, 1.0)


class Compiled:
    """A compiled program: its tensors, and what its channels and tokens mean."""

    def __init__(self, name: str) -> None:
        with safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        self.channels: list[str] = json.loads(metadata["labels"])
        self.tokens: dict[str, int] = json.loads(metadata["tokens"])
        self.heads, self.d_head = int(metadata["heads"]), int(metadata["d_head"])

    def model(self, vocabulary: int, unembed: dict[tuple[int, int], float], bias: dict[int, float]) -> Transformer:
        """The program's transformer with a readout.

        Args:
            vocabulary: tokens, those of the program first.
            unembed: weights from a residual channel to a logit, as (logit, channel).
            bias: of logits.
        """
        t = self.tensors
        layers = 1 + max(int(name.split("/")[0].removeprefix("layer_")) for name in t if name.startswith("layer_"))
        model = Transformer(
            vocabulary,
            max_length=len(t["pos_embed/embeddings"]),
            n_layers=layers,
            d_model=len(self.channels),
            n_heads=self.heads,
            d_head=self.d_head,
            d_mlp=len(t["layer_0/mlp/linear_1/b"]),
            norm="none",
            activation="relu",
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.embed.token.weight[: len(self.tokens)] = t["token_embed/embeddings"]
            model.get_parameter("embed.position.weight").copy_(t["pos_embed/embeddings"])
            for i in range(layers):
                for theirs, ours in LINEAR.items():
                    model.get_parameter(f"layers.{i}.{ours}.weight").copy_(t[f"layer_{i}/{theirs}/w"].T)
                    model.get_parameter(f"layers.{i}.{ours}.bias").copy_(t[f"layer_{i}/{theirs}/b"])
            for (logit, channel), value in unembed.items():
                model.unembed.weight[logit, channel] = value
            for logit, value in bias.items():
                model.unembed.bias[logit] = value
        return model.eval()

    def prompts(self, words: Sequence[str], lengths: Sequence[int]) -> list[list[int]]:
        """Every prompt of these words behind the opening token."""
        return [
            [self.tokens["BOS"], *(self.tokens[word] for word in listed)]
            for n in lengths
            for listed in product(words, repeat=n)
        ]


def _case(model: Transformer, prompts: list[list[int]], answer: dict[tuple[int, ...], int], vocabulary: int) -> Case:
    edges = Edges.of(model)
    every = frozenset(edges.describe(i) for i in range(len(edges)))
    return Case(model, domain_of(prompts, lambda p: answer[tuple(p)], vocabulary), criterion(0.05), every)


def compiled_reverse() -> Case:
    """The program that reverses a sequence, at its last position: the first token is the answer."""
    program = Compiled("reverse")
    prompts = program.prompts("ab", (1, 2, 3))
    outputs = {token: program.channels.index(f"reverse_1:{token}") for token in "ab"}
    unembed = {(program.tokens[token], channel): 10.0 for token, channel in outputs.items()}
    model = program.model(len(program.tokens), unembed, {})
    return _case(model, prompts, {tuple(p): p[1] for p in prompts}, len(program.tokens))


def compiled_frac_prevs() -> Case:
    """The program that gives the share of "x" so far; the answer is which of the five possible shares it is.

    The readout is exact: of ``2 f x - f²`` over the shares ``f``, the one nearest to the output ``x`` is the largest.
    """
    program = Compiled("frac_prevs")
    prompts, first, sharpness = program.prompts("xy", (1, 2, 3)), len(program.tokens), 300.0
    (channel,) = (i for i, label in enumerate(program.channels) if label.startswith("frac_prevs"))
    unembed = {(first + i, channel): 2 * sharpness * f for i, f in enumerate(FRACTIONS) if f}
    # The tokens of the program are no answers: their logits stay below.
    bias = {first + i: 10.0 - sharpness * f * f for i, f in enumerate(FRACTIONS)}
    vocabulary = first + len(FRACTIONS)
    share = {tuple(p): p.count(program.tokens["x"]) / (len(p) - 1) for p in prompts}
    nearest = {p: first + min(range(5), key=lambda i, f=f: abs(FRACTIONS[i] - f)) for p, f in share.items()}
    return _case(program.model(vocabulary, unembed, bias), prompts, nearest, vocabulary)
