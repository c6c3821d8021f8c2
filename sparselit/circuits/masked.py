"""The masked forward pass: the model with a set of edges kept and all others ablated.

There is no second forward: the model's own runs, with masked tensors in place of its parameters and, under mean
ablation, a constant added where each matrix arrives at its site. All edges kept gives the model's logits bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from sparselit.circuits.wiring import matrices
from sparselit.examples import Examples
from sparselit.sites import Edit
from sparselit.transformer import Transformer

AblationKind = Literal["zero", "mean"]


@dataclass(frozen=True)
class Ablation:
    """What a removed edge contributes.

    Attributes:
        kind: ``zero``: nothing; ``mean``: its weight times its source's mean, a constant, so that biases, which are
            their own mean, stay.
        means: mean activation of every source, by site, under ``mean``; see :func:`source_means`.
    """

    kind: AblationKind = "zero"
    means: Mapping[str, Tensor] = field(default_factory=dict)


def masked_logits(
    model: Transformer, masks: Mapping[str, Tensor], ablation: Ablation, tokens: Tensor, at: Tensor | None = None
) -> Tensor:
    """Logits of ``model`` with the edges outside ``masks`` ablated; shapes as in :meth:`Transformer.forward`.

    Args:
        model: the full model; it is not changed.
        masks: one tensor per matrix and bias, as :meth:`Edges.masks` gives them; floats in [0, 1] interpolate.
        ablation: what a removed edge contributes.
        tokens: (batch, position).
        at: (batch,) answer positions, or None.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    replaced = {name: parameters[name] * mask for name, mask in masks.items()}
    offsets: dict[str, Tensor] = {}
    if ablation.kind == "mean":
        bundles = matrices(model)
        for name, mask in masks.items():
            removed, bundle = parameters[name] * (1 - mask.to(parameters[name].dtype)), bundles[name]
            mean = ablation.means[bundle.source]
            offset = removed @ mean if bundle.target_axis == 0 else mean @ removed
            offsets[bundle.target] = offsets[bundle.target] + offset if bundle.target in offsets else offset
    with model.sites.edited(before={site: _adding(offset) for site, offset in offsets.items()}):
        return functional_call(model, replaced, (tokens, at), tie_weights=False)


def _adding(offset: Tensor) -> Edit:
    return lambda x: x + offset


@torch.no_grad()
def source_means(model: Transformer, examples: Examples) -> dict[str, Tensor]:
    """Mean activation of every edge source over the prompts' positions (padding excluded), by site.

    What only the answer needs (the last layer's heads' output and MLP, and the unembedding) is averaged over the answer
    positions, because that is where the forward pass for an answer evaluates it. The mean of ``token`` and ``position``
    is the frequency of each.
    """
    real = torch.arange(examples.tokens.shape[1], device=examples.tokens.device) < examples.length[:, None]
    sources = {bundle.source for bundle in matrices(model).values()}
    with model.sites.recorded(sources & set(model.sites)) as records:
        model(examples.tokens, examples.length - 1)
    means = {}
    for site, x in records.items():
        means[site] = x[real].mean(0) if x.shape[1] == real.shape[1] else x.mean((0, 1))
    share = real.sum().to(model.embed.token.weight.dtype).reciprocal()
    vocabulary, longest = model.unembed.out_features, model.max_length
    means["token"] = torch.bincount(examples.tokens[real], minlength=vocabulary) * share
    means["position"] = torch.nn.functional.pad(real.sum(0) * share, (0, longest - real.shape[1]))
    return means
