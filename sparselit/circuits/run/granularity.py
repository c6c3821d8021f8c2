"""Granularity: what is removed and certified as one, as sets of edges; views of one and the same mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from sparselit.model.site_table import site as site_row
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import BIAS, Edges, place_name

Granularity = Literal["weight", "channel", "head", "layer", "token"]
#: Edges (index,) of each unit by name, in the order of the forward pass.
RemovalUnits = Mapping[str, Tensor]


def removal_units(model: Transformer, edges: Edges, kept: Tensor, granularity: Granularity) -> RemovalUnits:
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
        flags = edges.is_bias[chosen].tolist()
        names = map(place_name, edges.places(kept), flags)
        return dict(zip(names, chosen[:, None], strict=True))
    members: dict[str, list[Tensor]] = {}
    for matrix, here in edges.by_matrix(kept):
        rules = [(_rule(site, granularity, model.d_head), channels) for site, channels in edges.ends(matrix, here)]
        if rules[0][0] == rules[1][0]:
            del rules[1]  # both ends in one unit
        groups = [
            (2 * first + which, name, here[inside])
            for which, (rule, channels) in enumerate(rules)
            if rule is not None
            for first, name, inside in _grouped(*rule, channels)
        ]
        for _, name, numbers in sorted(groups, key=lambda group: group[0]):  # as the edges come, sources first
            members.setdefault(name, []).append(numbers)
    return {name: torch.cat(numbers) for name, numbers in members.items()}


def _rule(site: str, granularity: Granularity, d_head: int) -> tuple[str, int] | None:
    """What the units of a site's channels are called, and how many channels each has (0: all); None for no unit."""
    block, inner = site, False
    if site != BIAS and site_row(site).layer is not None:
        block, inner = site_row(site).prefix, True
    if granularity == "channel" and site not in (BIAS, "token", "position", "logits"):
        return site, 1
    if granularity == "token" and site == "token":
        return site, 1
    if granularity == "layer" and inner:
        return block, 0
    if granularity == "head" and site[-2:] in (".q", ".k", ".v"):
        return block, d_head
    if granularity == "head" and site.endswith(".mlp.act"):
        return block, 0
    return None


def _grouped(prefix: str, width: int, channels: Tensor) -> Iterator[tuple[int, str, Tensor]]:
    """The units that some edges' ends, ``channels`` (edge,), fall into: first index, name, and indices of each unit."""
    units = channels // width if width else torch.zeros_like(channels)
    order = units.argsort(stable=True)
    found, counts = units[order].unique_consecutive(return_counts=True)
    for unit, numbers in zip(found.tolist(), order.split(counts.tolist()), strict=True):
        yield int(numbers[0]), f"{prefix}[{unit}]" if width else prefix, numbers
