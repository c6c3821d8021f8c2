"""The connections of a transformer: which tensor joins which sites, and its edges as one flat list.

An edge is one non-zero entry of a matrix: ``(parameter, row, column)``. Embedding edges start at a token or a position,
unembedding edges end at a logit. Biases, gains and sinks are no edges; those that stay are counted as *free*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.transformer import Transformer


@dataclass(frozen=True)
class Matrix:
    """One weight matrix as a bundle of edges.

    Attributes:
        name: parameter name, as in ``layers.0.attn.q.weight``.
        source: where its edges start: a site, or ``token`` / ``position``.
        target: the site at which its edges end.
        target_axis: axis of the tensor that counts targets: 0 for linear maps, 1 for embedding tables.
        bias: name of the bias that is added at the target; None without one.
    """

    name: str
    source: str
    target: str
    target_axis: int = 0
    bias: str | None = None

    def endpoints(self, row: int, column: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """The two nodes ``(site, channel)`` that the entry at ``row, column`` joins, source first."""
        source, target = (column, row) if self.target_axis == 0 else (row, column)
        return (self.source, source), (self.target, target)


def matrices(model: Transformer) -> dict[str, Matrix]:
    """Every weight matrix of ``model`` in forward order, by parameter name."""
    bundles = [Matrix("embed.token.weight", "token", "embed", target_axis=1)]
    if model.embed.position is not None:
        bundles.append(Matrix("embed.position.weight", "position", "embed", target_axis=1))
    if model.positions is not None:
        bundles.append(Matrix("positions.weight", "position", "positions", target_axis=1))
    for i in range(len(model.layers)):
        layer = f"layers.{i}"
        for path, source, target in (
            ("attn.q", "attn.in", "attn.q"),
            ("attn.k", "attn.in", "attn.k"),
            ("attn.v", "attn.in", "attn.v"),
            ("attn.o", "attn.z", "attn.out"),
            ("mlp.up", "mlp.in", "mlp.act"),
            ("mlp.down", "mlp.act", "mlp.out"),
        ):
            bias = f"{layer}.{path}.bias" if model.bias else None
            bundles.append(Matrix(f"{layer}.{path}.weight", f"{layer}.{source}", f"{layer}.{target}", bias=bias))
    bias = "unembed.bias" if model.unembed.bias is not None else None
    bundles.append(Matrix("unembed.weight", "unembed.in", "logits", bias=bias))
    if model.bigram is not None:
        bundles.append(Matrix("bigram.weight", "token", "logits", target_axis=1))
    return {bundle.name: bundle for bundle in bundles}


@dataclass(frozen=True)
class Edges:
    """All edges of one model in a fixed order: by matrix in forward order, then row, then column.

    A set of edges is a boolean tensor (edge,) over this list.

    Attributes:
        bundles: the matrices, by parameter name.
        names: the parameter names in order.
        matrix: (edge,) index into ``names``.
        row: (edge,) row in the tensor.
        column: (edge,) column in the tensor.
        shapes: shape of each tensor, by name.
    """

    bundles: Mapping[str, Matrix]
    names: tuple[str, ...]
    matrix: Tensor
    row: Tensor
    column: Tensor
    shapes: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, model: Transformer) -> Edges:
        """The non-zero entries of all weight matrices of ``model``."""
        bundles = matrices(model)
        found = [model.get_parameter(name).detach().cpu().nonzero() for name in bundles]
        places = torch.cat(found)
        matrix = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(f) for f in found]))
        shapes = {name: (p.shape[0], p.shape[1]) for name, p in ((n, model.get_parameter(n)) for n in bundles)}
        return cls(bundles, tuple(bundles), matrix, places[:, 0], places[:, 1], shapes)

    def __len__(self) -> int:
        return len(self.matrix)

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """One tensor per matrix, in its shape, that holds ``kept`` (edge,) at the edges and zero elsewhere.

        Booleans give boolean masks; a float tensor gives differentiable ones.
        """
        masks = {}
        for i, name in enumerate(self.names):
            here = self.matrix == i
            empty = torch.zeros(self.shapes[name], dtype=kept.dtype, device=kept.device)
            masks[name] = empty.index_put((self.row[here], self.column[here]), kept[here])
        return masks

    def describe(self, index: int) -> tuple[str, int, int]:
        """Edge ``index`` as (parameter name, row, column)."""
        return self.names[int(self.matrix[index])], int(self.row[index]), int(self.column[index])

    def endpoints(self, index: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """The nodes that edge ``index`` joins, source first; a head's ``z`` channel counts as its value channel."""
        name, row, column = self.describe(index)
        (source, channel), target = self.bundles[name].endpoints(row, column)
        return (f"{source[:-1]}v" if source.endswith(".attn.z") else source, channel), target

    def find(self, places: list[tuple[str, int, int]]) -> Tensor:
        """Boolean (edge,) tensor of the named edges; a place that holds no non-zero weight raises ``KeyError``."""
        index = {self.describe(i): i for i in range(len(self))}
        kept = torch.zeros(len(self), dtype=torch.bool)
        kept[[index[place] for place in places]] = True
        return kept


def live_channels(bundles: Mapping[str, Matrix], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which channels of each site are nodes of the set of edges ``masks``: boolean vectors by site.

    A node is an end of an edge. Two channels that only act together are one node each as soon as one of them is: query
    and key channel of a head (their product), value channel and its attention-weighted mean ``z``.
    """
    live: dict[str, Tensor] = {}
    for name, mask in masks.items():
        bundle = bundles[name]
        source_axis = 1 - bundle.target_axis
        for site, channels in ((bundle.target, mask.any(source_axis)), (bundle.source, mask.any(bundle.target_axis))):
            live[site] = live[site] | channels if site in live else channels
    for site in [s for s in live if s.endswith(".attn.q")]:
        layer = site.removesuffix("q")
        live[site] = live[f"{layer}k"] = live[site] | live[f"{layer}k"]
        live[f"{layer}v"] = live[f"{layer}z"] = live[f"{layer}v"] | live[f"{layer}z"]
    return live
