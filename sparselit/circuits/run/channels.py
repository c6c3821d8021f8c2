"""Which channels a compacted model needs, so that every subset of some edges is computed exactly.

Those are the ends of the edges. An AbsTopK weighs a channel against all others: of those whose value is known
beforehand, the largest that it could keep join, and no other can ever be kept. Where values are known only once a
prompt is run, all channels stay; the result says where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparselit.circuits.run.closed import Closed
from sparselit.model.norm import Norm
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, live_channels


@dataclass
class Channels:
    """Channels of the full model in the places of the compacted one; -1 in a place that stays empty.

    Attributes:
        residual: (channel,) ascending.
        concatenated: (channel,) of the concatenated positions, ascending.
        heads: of each layer the heads, and the channels of each.
        neurons: of each layer (neuron,) ascending.
        whole: where all channels stay because AbsTopK weighs values that are not known beforehand.
    """

    residual: Tensor
    concatenated: Tensor
    heads: list[dict[int, Tensor]] = field(default_factory=list)
    neurons: list[Tensor] = field(default_factory=list)
    whole: tuple[str, ...] = ()


def channels_for(model: Transformer, edges: Edges, kept: Tensor, kind: str, closed: Closed | None) -> Channels:
    """The channels that the compacted model of a set of edges needs.

    Args:
        model: the full model.
        edges: its edges.
        kept: boolean (edge,).
        kind: of the ablation.
        closed: the reference; None where it depends on the prompt.
    """
    live, written = live_channels(edges, kept), _written(edges, kept)
    whole: list[str] = []
    residual, concatenated = _stream(model, live, written, closed, whole)
    found = Channels(residual.nonzero()[:, 0], concatenated.nonzero()[:, 0])
    for i in range(len(model.layers)):
        found.heads.append(_heads(model, f"layers.{i}.attn", live, written, kind, closed, whole))
        found.neurons.append(_neurons(model, f"layers.{i}.mlp.act", live, written, closed, whole).nonzero()[:, 0])
    found.whole = tuple(whole)
    return found


def _written(edges: Edges, kept: Tensor) -> dict[str, Tensor]:
    """By target site, the channels that a kept edge or bias ends at; sites without any are left out."""
    written: dict[str, Tensor] = {}
    for matrix, numbers in edges.by_matrix(kept):
        _, (site, ends) = edges.ends(matrix, numbers)
        bundle = edges.bundles[edges.names[matrix]]
        width = edges.shapes[bundle.name][bundle.target_axis]
        here = written.setdefault(site, torch.zeros(width, dtype=torch.bool))
        here[ends] = True
    return written


def _stream(
    model: Transformer, live: dict[str, Tensor], written: dict[str, Tensor], closed: Closed | None, whole: list[str]
) -> tuple[Tensor, Tensor]:
    """Channels of the residual stream, and of the concatenated positions."""
    blocks = [f"layers.{i}.{block}" for i in range(len(model.layers)) for block in ("attn", "mlp")]
    reading = [*(f"{block}.in" for block in blocks), "unembed.in"]
    writing = ["embed", *(f"{block}.out" for block in blocks)]
    none = torch.zeros(model.d_model, dtype=torch.bool)
    needed = torch.stack([none, *(live[site][: model.d_model] for site in [*reading, *writing])]).any(0)
    moving = torch.stack([none, *(written.get(site, none) for site in writing)]).any(0)  # not known beforehand
    places = torch.zeros(model.d_concatenated, dtype=torch.bool)
    for site in [f"{block}.in" for block in blocks] if model.d_concatenated else []:
        places |= live[site][model.d_model :]
    places |= written.get("positions", torch.zeros_like(places))
    weighing = [site for site in model.sites.values() if site.keep is not None]
    if model.d_concatenated and any(site.name == "positions" or site.name.endswith(".in") for site in weighing):
        whole.append("positions")
        places[:] = True
    names = [site.name for site in weighing if site.width == model.d_model and site.name in _residual_sites(blocks)]
    names += [f"{block}.in" for block in blocks if model.d_concatenated and model.sites[f"{block}.in"].keep is not None]
    unknown = closed is None or not closed.streams
    centred = model.norm_kind == "layer" and any(name.endswith(".in") for name in names)
    if (names and (unknown or centred)) or (closed is not None and unknown) or "positions" in whole:
        whole.append("residual")
        return torch.ones_like(needed), places
    if closed is None:
        return needed, places
    norms = {**{block: model.get_submodule(block).norm for block in blocks}, "unembed": model.norm}
    for name in (site for site in _residual_sites(blocks) if site in names):  # in the order of the forward pass
        keep = model.sites[name].keep or 0
        if name.endswith(".in"):
            gain = norms[name.removesuffix(".in")]
            assert isinstance(gain, Norm)
            table = closed.streams[name.removesuffix(".in")].table
            needed |= _largest(table if gain.weight is None else table * gain.weight.detach(), keep, moving)
            continue
        constant = closed.arriving[name].table if name.endswith(".out") else closed.streams[name].table
        fixed = written.get(name, none) if name.endswith(".out") else moving
        more = _largest(_activated(model, name)(constant), keep, fixed)
        needed, moving = needed | more, moving | more  # which of these are kept depends on the others
    return needed, places


def _residual_sites(blocks: list[str]) -> list[str]:
    """The sites as wide as the residual stream, in the order of the forward pass."""
    return ["embed", *(f"{block}.{kind}" for block in blocks for kind in ("in", "out", "residual")), "unembed.in"]


def _activated(model: Transformer, site: str) -> Callable[[Tensor], Tensor]:
    return model.sites[site].activation or (lambda x: x)


def _largest(constant: Tensor, keep: int, moving: Tensor) -> Tensor:
    """Which channels that do not move an AbsTopK could keep, boolean (channel,), by any row of their known values."""
    size = constant.detach().abs().cpu().masked_fill(moving, 0.0)
    top = size.topk(min(keep, size.shape[-1]), dim=-1)
    found = torch.zeros(size.shape[-1], dtype=torch.bool)
    found[top.indices[top.values > 0]] = True
    return found


def _neurons(
    model: Transformer,
    site: str,
    live: dict[str, Tensor],
    written: dict[str, Tensor],
    closed: Closed | None,
    whole: list[str],
) -> Tensor:
    """Neurons of one layer, boolean."""
    needed, keep = live[site], model.sites[site].keep
    if keep is None or not needed.any():
        return needed
    if closed is None:
        whole.append(site)
        return torch.ones_like(needed)
    constant = _activated(model, site)(closed.arriving[site].table)
    return needed | _largest(constant, keep, written.get(site, torch.zeros_like(needed)))


def _heads(
    model: Transformer,
    block: str,
    live: dict[str, Tensor],
    written: dict[str, Tensor],
    kind: str,
    closed: Closed | None,
    whole: list[str],
) -> dict[int, Tensor]:
    """Channels, query, key and value together, of each head of one layer that has any."""
    needed = live[f"{block}.q"] | live[f"{block}.v"]
    if not needed.any():
        return {}
    if kind != "zero":  # what no edge reaches is zero there
        keeps = {letter: model.sites[f"{block}.{letter}"].keep for letter in "qkvz"}
        if keeps["z"] is not None or (closed is None and any(keep is not None for keep in keeps.values())):
            whole.append(block)
            needed = torch.ones_like(needed)
        elif closed is not None:
            for letter in "qkv":
                keep, site = keeps[letter], f"{block}.{letter}"
                if keep is not None:
                    fixed = written.get(site, torch.zeros_like(needed))
                    needed = needed | _largest(closed.arriving[site].table, keep, fixed)
        constant = closed is not None and all(rows.per == "all" for rows in closed.arriving.values())
        if model.has_sink or not constant:
            # Of a head that is read, query and key channels without edges too: what they score is no common constant.
            read = live[f"{block}.z"].unflatten(0, (model.n_heads, -1)).any(1)
            needed = needed | read.repeat_interleave(model.d_head)
    heads = needed.unflatten(0, (model.n_heads, -1))
    width = heads.shape[1]
    return {h: heads[h].nonzero()[:, 0] + h * width for h in range(model.n_heads) if heads[h].any()}
