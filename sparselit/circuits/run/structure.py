"""Structure: edges that cannot matter, whatever the examples are, because nothing flows into them or out of them.

Removing such an edge changes no logit under zero ablation, so that a search need not try it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

Channels = dict[str, Tensor]


def useful(model: Transformer, edges: Edges, kept: Tensor) -> Tensor:
    """The edges of ``kept`` (edge,) that can change a logit under zero ablation, boolean (edge,).

    Forwards, an edge whose source is zero on every prompt writes nothing; backwards, one whose target nobody reads is
    lost. Whatever writes to the residual stream counts as read where a norm follows, since it changes the scale, and
    whatever competes in an AbsTopK counts as read.

    Args:
        model: the full model.
        edges: its edges.
        kept: boolean (edge,).
    """
    if model.norm_kind == "layer":
        return kept.clone()  # centring makes every channel non-zero
    while True:
        masks = edges.masks(kept)
        flow = _Flow(model, masks)
        alive, read = flow.forward(), flow.backward()
        left = kept.clone()
        for name, all_here in zip(edges.names, edges.members, strict=True):
            here = all_here[kept[all_here]]
            bundle = edges.bundles[name]
            first, second = edges.row[here], edges.column[here]
            target, source = (first, second) if bundle.target_axis == 0 else (second, first)
            good = read[bundle.target][target]
            if not bundle.is_bias and bundle.source in alive:
                good = good & alive[bundle.source][source]
            left[here] = good
        if torch.equal(left, kept):
            return left
        kept = left


class _Flow:
    """Which channels are ever non-zero, and which are read by something that reaches a logit."""

    def __init__(self, model: Transformer, masks: Channels) -> None:
        self.model, self.masks = model, masks

    def _any(self, name: str, axis: int) -> Tensor | None:
        return self.masks[name].any(axis) if name in self.masks else None

    def _fed(self, site: str, source: Tensor) -> Tensor:
        """Channels of ``site`` that a kept edge from a non-zero source, or a bias, reaches."""
        fed = (self.masks[f"{site}.weight"] & source).any(1)
        bias = self.masks.get(f"{site}.bias")
        return fed if bias is None else fed | bias

    def forward(self) -> Channels:
        """Channels that may be non-zero, by source site."""
        model = self.model
        x = self.masks["embed.token.weight"].any(0)
        position = self._any("embed.position.weight", 0)
        x = x if position is None else x | position
        if model.embed.sinusoid is not None:
            x = torch.ones_like(x)
        positions = self._any("positions.weight", 0)
        if positions is None:
            positions = torch.ones(model.d_concatenated, dtype=torch.bool)
        alive: Channels = {"positions": positions}
        for i in range(len(model.layers)):
            layer = f"layers.{i}"
            read = torch.cat([x, positions]) if model.d_concatenated else x
            alive[f"{layer}.attn.in"] = read
            for letter in "qkv":
                alive[f"{layer}.attn.{letter}"] = self._fed(f"{layer}.attn.{letter}", read)
            alive[f"{layer}.attn.z"] = alive[f"{layer}.attn.v"]
            x = x | self._fed(f"{layer}.attn.o", alive[f"{layer}.attn.z"])
            read = torch.cat([x, positions]) if model.d_concatenated else x
            alive[f"{layer}.mlp.in"] = read
            alive[f"{layer}.mlp.act"] = self._fed(f"{layer}.mlp.up", read)
            x = x | self._fed(f"{layer}.mlp.down", alive[f"{layer}.mlp.act"])
        alive["unembed.in"] = x
        self.alive = alive
        return alive

    def backward(self) -> Channels:
        """Channels whose value can reach a logit, by target site; call :meth:`forward` first."""
        model, alive = self.model, self.alive
        read: Channels = {"logits": torch.ones(model.unembed.out_features, dtype=torch.bool)}
        stream = self._stream("unembed.in", self.masks["unembed.weight"] & alive["unembed.in"])
        for i in reversed(range(len(model.layers))):
            layer = f"layers.{i}"
            read[f"{layer}.mlp.out"] = self._competing(f"{layer}.mlp.out", stream)
            act = (self.masks[f"{layer}.mlp.down.weight"] & read[f"{layer}.mlp.out"][:, None]).any(0)
            read[f"{layer}.mlp.act"] = self._competing(f"{layer}.mlp.act", act)
            into = self.masks[f"{layer}.mlp.up.weight"] & read[f"{layer}.mlp.act"][:, None]
            stream = stream | self._stream(f"{layer}.mlp.in", into & alive[f"{layer}.mlp.in"])
            read[f"{layer}.attn.out"] = self._competing(f"{layer}.attn.out", stream)
            z = (self.masks[f"{layer}.attn.o.weight"] & read[f"{layer}.attn.out"][:, None]).any(0)
            v = z & alive[f"{layer}.attn.v"]
            heads = v.unflatten(0, (model.n_heads, -1)).any(1).repeat_interleave(model.d_head)
            reads = {"q": heads & alive[f"{layer}.attn.k"], "k": heads & alive[f"{layer}.attn.q"], "v": z}
            for letter, channels in reads.items():
                site = f"{layer}.attn.{letter}"
                read[site] = self._competing(site, channels)
                into = self.masks[f"{site}.weight"] & read[site][:, None]
                stream = stream | self._stream(f"{layer}.attn.in", into & alive[f"{layer}.attn.in"])
        read["embed"], read["positions"] = stream, torch.ones_like(alive["positions"])
        return read

    def _stream(self, site: str, into: Tensor) -> Tensor:
        """Residual channels that a block reads; all of them where a norm or an AbsTopK makes each count."""
        channels = into.any(0)[: self.model.d_model]
        every = self.model.norm_kind != "none" or self.model.sites[site].keep is not None
        return torch.ones_like(channels) if every and bool(into.any()) else channels

    def _competing(self, site: str, channels: Tensor) -> Tensor:
        every = self.model.sites[site].keep is not None and bool(channels.any())
        return torch.ones_like(channels) if every else channels
