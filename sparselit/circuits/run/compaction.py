"""Compaction: the same function on only the channels, heads and neurons that a set of edges uses.

A compacted model is an ordinary, smaller :class:`Transformer`. Channels that are left out carry, whatever subset of the
edges is kept, what the reference says: nothing under zero ablation, else what is known beforehand. They are unread, and
a norm is told their sum and their sum of squares. So the logits are those of the masked forward of the full model, up
to the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sparselit.circuits.run.ablation import Replacement
from sparselit.circuits.run.channels import Channels, channels_for
from sparselit.circuits.run.closed import Closed
from sparselit.circuits.run.patch import Patch
from sparselit.circuits.run.rows import Rows
from sparselit.model.norm import Norm
from sparselit.model.site_table import site as site_row
from sparselit.model.sites import Site
from sparselit.model.transformer import Attention, Transformer
from sparselit.model.wiring import Edges


@dataclass(frozen=True)
class Compacted:
    """A smaller model, the kept edges in its coordinates, and where each of them stands in the full list.

    Attributes:
        model: the small transformer.
        edges: its edge list.
        origin: (small edge,) index of each in the full model's :class:`Edges`.
        full: the full model.
        replacement: the ablation, in the full model.
        channels: what was kept of the full model.
        closed: the full model's reference; None where it depends on the prompt.
    """

    model: Transformer
    edges: Edges
    origin: Tensor
    full: Transformer
    replacement: Replacement
    channels: Channels
    closed: Closed | None

    @cached_property
    def places(self) -> dict[str, Tensor]:
        """By kind of axis, the full model's channel in each of the small one's places; -1 where it is empty."""
        return _places(self.full, self.model, self.channels)

    def at_site(self, site: str) -> Tensor:
        """The full model's channel in each place of a target or source site; -1 where it is empty."""
        kind = _site_kind(site)
        return torch.arange(self.full.sites[site].width) if kind is None else self.places[kind]

    def patch(self, site: str, patch: Patch) -> Patch:
        """A patch of a site of the full model, whose channels are all in the small one."""
        place = {channel: i for i, channel in enumerate(self.at_site(site).tolist()) if channel >= 0}
        return Patch([place[channel] for channel in patch.channels], patch.values)

    @cached_property
    def norms(self) -> dict[str, Norm]:
        """The norms of the blocks that are run, and of the unembedding, by what they belong to."""
        found = {name: m for name, m in self.model.named_modules() if isinstance(m, Norm) and m.kind != "none"}
        return {"unembed" if name == "norm" else name.removesuffix(".norm"): norm for name, norm in found.items()}

    @cached_property
    def simple(self) -> bool:
        """Whether everything that is removed is exactly zero, so that the small model needs to be told nothing."""
        zero = self.replacement.ablation.kind == "zero"
        return zero and self.full.embed.sinusoid is None and not self.full.d_concatenated

    @cached_property
    def rests(self) -> dict[str, Rows]:
        """Sum and sum of squares (…, 2) of what each norm does not see, where that is known without a prompt."""
        rests: dict[str, Rows] = {}
        if self.closed is None:
            return rests
        for name in self.norms:
            positions = name.endswith("position_norm")
            rows = self.closed.positions if positions else self.closed.streams.get(name)
            left = left_out(self.full.d_concatenated if positions else self.full.d_model, self.seen(name))
            if rows is not None and len(left):
                rests[name] = Rows(rows.per, sums(rows.table.detach(), left))
        return rests

    def seen(self, norm: str) -> Tensor:
        """The full model's channels that a norm of the small model sees."""
        return self.channels.concatenated if norm.endswith("position_norm") else self.channels.residual

    @cached_property
    def arriving(self) -> dict[str, Rows]:
        """What arrives at each target site when every edge is removed, where that is known without a prompt."""
        if self.closed is None:
            return {}
        return {site: rows.channels(self.at_site(site)) for site, rows in self.closed.arriving.items()}

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """The means of the sources (group, source channel), under mean ablation, by matrix with kept edges."""
        found = {}
        for name in self.edges.names:
            if name in self.replacement.means:
                source, table = self.edges.bundles[name].source, self.replacement.means[name]
                whole = source in ("token", "position")
                found[name] = table if whole else Rows("all", table).channels(self.at_site(source)).table
        return found

    @cached_property
    def values(self) -> Tensor:
        """The weights (small edge,), on the model's device."""
        parameters = [self.model.get_parameter(name).detach().reshape(-1) for name in self.edges.names]
        if not parameters:
            return next(self.model.parameters()).new_zeros(0)
        return torch.cat(parameters)[self.edges.places_when_flat.to(parameters[0].device)]

    @cached_property
    def silent(self) -> list[str]:
        """The blocks without edges, which write the same whatever they read."""
        return [name for name, module in self.model.named_modules() if isinstance(module, _Silent)]


def left_out(width: int, seen: Tensor) -> Tensor:
    """The channels of a site that are not ``seen``."""
    missing = torch.ones(width, dtype=torch.bool)
    missing[seen] = False
    return missing.nonzero()[:, 0]


def sums(x: Tensor, channels: Tensor) -> Tensor:
    """Sum and sum of squares (…, 2) of some channels of ``x`` (…, channel)."""
    taken = x[..., channels.to(x.device)]
    return torch.stack([taken.sum(-1), taken.square().sum(-1)], dim=-1)


def compact(
    model: Transformer, edges: Edges, kept: Tensor, replacement: Replacement, closed: Closed | None
) -> Compacted:
    """The smallest transformer that computes every subset of ``kept`` as the full model does.

    Args:
        model: the full model; it is not changed.
        edges: its edges.
        kept: boolean (edge,).
        replacement: what a removed edge contributes.
        closed: the reference; None under resample ablation, where it depends on the prompt.
    """
    kind = replacement.ablation.kind
    channels = channels_for(model, edges, kept, kind, closed)
    heads, neurons = channels.heads, channels.neurons
    config = dict(model.config)
    config.update(
        d_model=max(1, len(channels.residual)),
        n_heads=max([1, *(len(h) for h in heads)]),
        d_head=max([1, *(len(c) for h in heads for c in h.values())]),
        d_mlp=max([min(1, model.d_mlp), *(len(n) for n in neurons)]),
        d_position=max(1, len(channels.concatenated)),
        tied=False,
        activation_density=None,
    )
    if kind != "zero":  # constants that stand for removed edges are added as biases
        config.update(bias=True, unembed_bias=True)
    first = next(model.parameters())
    with torch.device("meta"):
        small = Transformer(**config)
    small = small.to_empty(device=first.device).to(first.dtype)
    return _fill(Compacted(small, edges, kept.nonzero()[:, 0], model, replacement, channels, closed), edges, kept)


class _Silent(nn.Module):
    """Stands for an attention or an MLP without edges, which writes nothing, or what is added at its site."""

    def __init__(self, out: Site | None) -> None:
        super().__init__()
        self._out = out

    def forward(self, x: Tensor, positions: Tensor | None, at: Tensor | None = None) -> Tensor | float:
        """What is added to the residual stream."""
        return 0.0 if self._out is None else self._out(x.new_zeros(1, x.shape[1] if at is None else 1, x.shape[2]))


def _places(model: Transformer, small: Transformer, channels: Channels) -> dict[str, Tensor]:
    """Which channel stands in each place, by the words of :func:`_axes`."""
    places = {
        "residual": _padded(channels.residual, small.d_model),
        "concatenated": _padded(channels.concatenated, small.d_concatenated),
    }
    beside = torch.where(places["concatenated"] >= 0, places["concatenated"] + model.d_model, -1)
    places["read"] = torch.cat([places["residual"], beside])
    for i, (heads, neurons) in enumerate(zip(channels.heads, channels.neurons, strict=True)):
        slots = torch.full((small.n_heads, small.d_head), -1)
        for slot, kept in enumerate(heads.values()):
            slots[slot, : len(kept)] = kept
        places[f"layers.{i}.attn"] = slots.flatten()
        places[f"layers.{i}.sink"] = _padded(torch.tensor(list(heads), dtype=torch.long), small.n_heads)
        places[f"layers.{i}.mlp"] = _padded(neurons, small.d_mlp)
    return places


def _padded(index: Tensor, slots: int) -> Tensor:
    padded = torch.full((slots,), -1)
    padded[: len(index)] = index
    return padded


def _site_kind(site: str) -> str | None:
    """Which channels a site counts, in the words of :func:`_axes`."""
    row = site_row(site)
    if row.axis in ("head", "neuron"):
        return row.prefix
    return row.axis if row.axis in ("residual", "concatenated", "read") else None


def _axes(name: str) -> tuple[str | None, ...]:
    """Which channels each axis of a parameter counts; None for an axis that stays whole."""
    layer = ".".join(name.split(".")[:2])
    if name.startswith("embed"):
        return (None, "residual")
    if name.startswith("positions"):
        return (None, "concatenated")
    if name.startswith("unembed"):
        return (None, "residual") if name.endswith("weight") else (None,)
    if name.startswith("bigram"):
        return (None, None)
    if "position_norm." in name:
        return ("concatenated",)
    if "norm." in name:
        return ("residual",)
    if name.endswith("sink"):
        return (f"{layer}.sink",)
    inner = f"{layer}.attn" if ".attn." in name else f"{layer}.mlp"
    target, source = ("residual", inner) if ".o." in name or ".down." in name else (inner, "read")
    return (target, source) if name.endswith("weight") else (target,)


@torch.no_grad()
def _fill(empty: Compacted, edges: Edges, kept: Tensor) -> Compacted:
    """Copy what is used into the small model and renumber the edges."""
    model, small, places, origin = empty.full, empty.model, empty.places, empty.origin
    renumber: dict[str, Tensor] = {}  # per kind of axis: old channel to new
    for kind, index in places.items():
        table = torch.full((int(index.max()) + 2 if len(index) else 1,), -1)
        table[index[index >= 0]] = (index >= 0).nonzero()[:, 0]
        renumber[kind] = table
    row, column = edges.row[origin].clone(), edges.column[origin].clone()
    for name, parameter in small.named_parameters():
        parameter.zero_()
        if (name not in edges.bundles and not name.endswith(".bias")) or "norm." in name:
            parameter.copy_(
                Rows("all", model.get_parameter(name).detach()).channels(places[_axes(name)[0] or ""]).table
            )
    first = 0
    names: list[str] = []
    matrix: list[Tensor] = []
    for number, here in edges.by_matrix(kept):
        name = edges.names[number]
        span = slice(first, first + len(here))
        weight, parameter = model.get_parameter(name).detach(), small.get_parameter(name)
        value = weight[tuple(axis[span].to(weight.device) for axis in (row, column)[: weight.ndim])]
        for axis, count in zip((row, column), _axes(name), strict=False):
            if count is not None:
                axis[span] = renumber[count][axis[span]]
        parameter[tuple(axis[span].to(weight.device) for axis in (row, column)[: weight.ndim])] = value
        matrix.append(torch.full((len(here),), len(names)))
        names.append(name)
        first += len(here)
    _settle(empty, set(names))
    # A tensor without an edge is zero already: it is not listed, so that it is not masked time and again.
    shapes = {name: tuple(small.get_parameter(name).shape) for name in names}
    numbers = torch.cat(matrix) if matrix else torch.zeros(0, dtype=torch.long)
    listed = Edges(edges.bundles, tuple(names), numbers, row, column, shapes)
    return Compacted(small.eval(), listed, origin, model, empty.replacement, empty.channels, empty.closed)


def _settle(empty: Compacted, present: set[str]) -> None:
    """Give the small model what is no parameter: widths, tables of positions, AbsTopK, and blocks that are silent."""
    model, small = empty.full, empty.model
    for (_, module), (_, original) in zip(small.named_modules(), model.named_modules(), strict=True):
        if isinstance(module, Norm) and isinstance(original, Norm):
            module.width = original.width
        elif isinstance(module, Attention) and isinstance(original, Attention):
            module.d_head = original.d_head
    if model.sinusoid is not None:
        small.sinusoid = Rows("position", model.sinusoid).channels(empty.places["concatenated"]).table
    if model.embed.sinusoid is not None:
        small.embed.sinusoid = Rows("position", model.embed.sinusoid).channels(empty.places["residual"]).table
    for name, site in model.sites.items():
        small.sites[name].keep = site.keep
    silent_site = empty.replacement.ablation.kind != "zero"
    for i, layer in enumerate(small.layers):
        for block in ("attn", "mlp"):
            if not any(name.startswith(f"layers.{i}.{block}.") for name in present):
                setattr(layer, block, _Silent(small.sites[f"layers.{i}.{block}.out"] if silent_site else None))
