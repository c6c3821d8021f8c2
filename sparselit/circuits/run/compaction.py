"""Compaction: the same function on only the channels, heads and neurons that a set of edges uses.

A compacted model is an ordinary, smaller :class:`Transformer`. Channels that are left out are exactly zero or unread in
the masked forward of the full model, so both give the same logits up to the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparselit.circuits.run.ablation import Replacement
from sparselit.model.transformer import Attention, Norm, Transformer
from sparselit.model.wiring import Edges, live_channels


@dataclass(frozen=True)
class Compacted:
    """A smaller model, the kept edges in its coordinates, and where each of them stands in the full list.

    Attributes:
        model: the small transformer.
        edges: its edge list.
        origin: (small edge,) index of each in the full model's :class:`Edges`.
    """

    model: Transformer
    edges: Edges
    origin: Tensor


def compact(model: Transformer, edges: Edges, kept: Tensor, replacement: Replacement) -> Compacted | None:
    """The smallest transformer that computes every subset of ``kept`` as the full model does.

    Only zero ablation of models without LayerNorm and without concatenated positions leaves channels exactly zero; in
    the other cases None says that there is nothing to gain.
    """
    if (
        replacement.ablation.kind != "zero"
        or model.norm_kind == "layer"
        or model.d_concatenated
        or model.embed.sinusoid is not None
    ):
        return None
    live = live_channels(edges, kept)
    residual = _union(
        [channels for site, channels in live.items() if site.endswith((".in", ".out")) or site == "embed"]
    )
    heads = [_live_heads(model, live, i) for i in range(len(model.layers))]
    neurons = [live[f"layers.{i}.mlp.act"].nonzero()[:, 0] for i in range(len(model.layers))]
    config = dict(model.config)
    config.update(
        d_model=max(1, len(residual)),
        n_heads=max([1, *(len(h) for h in heads)]),
        d_head=max([1, *(len(c) for h in heads for c in h.values())]),
        d_mlp=max([1, *(len(n) for n in neurons)]),
        tied=False,
        activation_density=None,
    )
    with torch.random.fork_rng(devices=[]):
        small = Transformer(**config)
    small.to(next(model.parameters()))  # device and precision
    channels = {"residual": residual}
    for i, (head, neuron) in enumerate(zip(heads, neurons, strict=True)):
        slots = torch.full((config["n_heads"], config["d_head"]), -1)
        for slot, kept_channels in enumerate(head.values()):
            slots[slot, : len(kept_channels)] = kept_channels
        channels[f"layers.{i}.attn"] = slots.flatten()
        channels[f"layers.{i}.sink"] = torch.tensor([*head, *[-1] * (config["n_heads"] - len(head))])
        channels[f"layers.{i}.mlp"] = neuron
    return _fill(model, small, edges, kept, channels)


class _Silent(nn.Module):
    """Stands for an attention or an MLP without edges, which writes nothing."""

    def forward(self, *_: Tensor | None) -> float:
        """What is added to the residual stream."""
        return 0.0


def _union(masks: list[Tensor]) -> Tensor:
    return torch.stack(masks).any(0).nonzero()[:, 0]


def _live_heads(model: Transformer, live: dict[str, Tensor], layer: int) -> dict[int, Tensor]:
    """Live channels (query-key and value together) of each head that has any, by head."""
    name = f"layers.{layer}.attn"
    alive = (live[f"{name}.q"] | live[f"{name}.v"]).unflatten(0, (model.n_heads, -1))
    width = alive.shape[1]
    return {h: alive[h].nonzero()[:, 0] + h * width for h in range(model.n_heads) if alive[h].any()}


def _axes(name: str) -> tuple[str | None, ...]:
    """Which channels each axis of a parameter counts, in :func:`compact`'s words; None for an axis that stays whole."""
    layer = ".".join(name.split(".")[:2])
    if name.startswith("embed"):
        return (None, "residual")
    if name.startswith("unembed"):
        return (None, "residual") if name.endswith("weight") else (None,)
    if name.startswith("bigram"):
        return (None, None)
    if name.endswith("norm.weight"):
        return ("residual",)
    if name.endswith("sink"):
        return (f"{layer}.sink",)
    inner = f"{layer}.attn" if ".attn." in name else f"{layer}.mlp"
    target, source = ("residual", inner) if ".o." in name or ".down." in name else (inner, "residual")
    return (target, source) if name.endswith("weight") else (target,)


def _fill(
    model: Transformer,
    small: Transformer,
    edges: Edges,
    kept: Tensor,
    channels: dict[str, Tensor],
) -> Compacted:
    """Copy what is used into the small model and renumber the edges."""
    masks = edges.masks(kept)
    full = dict(model.named_parameters(remove_duplicate=False))
    renumber = {}  # per parameter and axis: old index to new
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            value = full[name] * masks[name] if name in masks else full[name]
            for axis, kind in enumerate(_axes(name)):
                if kind is None:
                    continue
                index = channels[kind]
                slots = parameter.shape[axis]
                padded = torch.full((slots,), -1)
                padded[: len(index)] = index
                taken = value.index_select(axis, padded.clamp(min=0).to(value.device))
                shape = [1] * value.ndim
                shape[axis] = slots
                value = torch.where(
                    (padded >= 0).view(shape).to(value.device), taken, torch.zeros((), dtype=value.dtype)
                )
                table = torch.full((full[name].shape[axis],), -1)
                table[padded[padded >= 0]] = (padded >= 0).nonzero()[:, 0]
                renumber[name, axis] = table
            parameter.copy_(value)
    for (_, module), (_, original) in zip(small.named_modules(), model.named_modules(), strict=True):
        if isinstance(module, Norm) and isinstance(original, Norm):
            module.width = original.width
        elif isinstance(module, Attention) and isinstance(original, Attention):
            module.d_head = original.d_head
    for name, site in model.sites.items():
        small.sites[name].keep = site.keep
    origin = kept.nonzero()[:, 0]
    row, column = edges.row[origin].clone(), edges.column[origin].clone()
    for i, name in enumerate(edges.names):
        here = edges.matrix[origin] == i
        for axis, places in ((0, row), (1, column)):
            if (name, axis) in renumber:
                places[here] = renumber[name, axis][places[here]]
    # A tensor without an edge is zero already: it is not listed, so that it is not masked time and again.
    present, matrix = torch.unique(edges.matrix[origin], return_inverse=True)
    names = tuple(edges.names[i] for i in present.tolist())
    shapes = {name: tuple(small.get_parameter(name).shape) for name in names}
    for i, layer in enumerate(small.layers):
        for block in ("attn", "mlp"):
            if not any(name.startswith(f"layers.{i}.{block}.") for name in names):
                setattr(layer, block, _Silent())
    listed = Edges(edges.bundles, names, matrix, row, column, shapes)
    return Compacted(small.eval(), listed, origin)
