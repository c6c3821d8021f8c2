"""Granularity: what is removed and certified as one, as sets of edges; views of one and the same mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from sparselit.model.transformer import Transformer
from sparselit.model.wiring import BIAS, Edges, place_name

Granularity = Literal["weight", "channel", "head", "layer", "token"]
#: Edges (index,) of each unit by name, in the order of the forward pass.
Units = Mapping[str, Tensor]


def units_of(model: Transformer, edges: Edges, kept: Tensor, granularity: Granularity) -> Units:
    """The units that ``kept`` is made of.

    A removed unit takes all its edges with it, so that under mean ablation a channel that is removed has its mean, as
    in node ablation. Edges that belong to no unit of the granularity stay.

    Args:
        model: the transformer.
        edges: its edges.
        kept: boolean (edge,).
        granularity: ``weight``: every edge and bias; ``channel``: every node (site, channel); ``head``: an attention
            head, or the whole of an MLP; ``layer``: one attention or MLP block; ``token``: a row of the embedding.

    Returns:
        Edge numbers by name, as in ``layers.0.attn.q[5]`` for channel 5; an edge between two nodes belongs to both.
    """
    chosen = kept.nonzero()[:, 0]
    if granularity == "weight":
        flags = edges.is_bias.tolist()
        places = edges.places()
        return {place_name(places[i], flags[i]): chosen[n, None] for n, i in enumerate(chosen.tolist())}
    members: dict[str, list[int]] = {}
    for i in chosen.tolist():
        for name in dict.fromkeys(_names(model, edges, i, granularity)):
            members.setdefault(name, []).append(i)
    return {name: torch.tensor(edge_numbers) for name, edge_numbers in members.items()}


def _names(model: Transformer, edges: Edges, index: int, granularity: Granularity) -> Iterator[str]:
    for site, channel in edges.endpoints(index):
        block = ".".join(site.split(".")[:3])  # as in layers.0.attn
        inner = site.startswith("layers.")
        if granularity == "channel" and site not in (BIAS, "token", "position", "logits"):
            yield f"{site}[{channel}]"
        elif granularity == "token" and site == "token":
            yield f"token[{channel}]"
        elif granularity == "layer" and inner:
            yield block
        elif granularity == "head" and site[-2:] in (".q", ".k", ".v"):
            yield f"{block}[{channel // model.d_head}]"
        elif granularity == "head" and site.endswith(".mlp.act"):
            yield block
