"""The connections of a transformer: which tensor joins which sites, and its edges as one flat list.

An edge is one non-zero entry of a matrix: ``(parameter, row, column)``. Embedding edges start at a token or a position,
unembedding edges end at a logit. A bias is listed like an edge from the constant 1 to its node, ``(parameter, channel,
0)``, so that it is removed and certified like one; in sizes it counts as *free*, with the gains and sinks that stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparselit.model.site_table import Shape
from sparselit.model.transformer import Transformer


@dataclass(frozen=True)
class Matrix:
    """One weight matrix, or one bias vector, as a bundle of edges.

    Attributes:
        name: parameter name, as in ``layers.0.attn.q.weight``.
        source: where its edges start: a site, ``token``, ``position``, or ``bias`` for a vector.
        target: the site at which its edges end.
        target_axis: axis of the tensor that counts targets: 0 for linear maps and vectors, 1 for embedding tables.
    """

    name: str
    source: str
    target: str
    target_axis: int = 0

    @property
    def is_bias(self) -> bool:
        """Whether this is a bias vector."""
        return self.source == BIAS

    def size(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns of the tensor in a model of this shape; a vector has one column."""
        target = shape.width(self.target)
        if self.is_bias:
            return target, 1
        source = shape.width(self.source)
        return (target, source) if self.target_axis == 0 else (source, target)

    def endpoints(self, row: int, column: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """The two nodes ``(site, channel)`` that the entry at ``row, column`` joins, source first.

        Args:
            row: index on the tensor's first axis.
            column: index on its second axis; 0 for a bias.
        """
        source, target = (column, row) if self.target_axis == 0 else (row, column)
        return (self.source, source), (self.target, target)


BIAS = "bias"
#: An edge or a bias: parameter name, row, column; the column of a bias is 0.
Place = tuple[str, int, int]


#: Of a layer: the parameter, the kind of site at which its edges start, and that at which they end.
_LAYER = {
    "attn": (("q", "in", "q"), ("k", "in", "k"), ("v", "in", "v"), ("o", "z", "out")),
    "mlp": (("up", "in", "act"), ("down", "act", "out")),
}


def matrices(model: Transformer | Shape) -> dict[str, Matrix]:
    """Every weight matrix of a model in forward order, by parameter name; of a shape, without building the model."""
    shape = model if isinstance(model, Shape) else Shape.of(model.config)
    bundles = [Matrix("embed.token.weight", "token", "embed", target_axis=1)]
    if shape.positions == "learned":
        bundles.append(Matrix("embed.position.weight", "position", "embed", target_axis=1))
    if shape.positions == "learned_concatenated":
        bundles.append(Matrix("positions.weight", "position", "positions", target_axis=1))
    for i in range(shape.n_layers):
        for block, maps in _LAYER.items():
            name = f"layers.{i}.{block}"
            bundles += [Matrix(f"{name}.{path}.weight", f"{name}.{one}", f"{name}.{end}") for path, one, end in maps]
    bundles.append(Matrix("unembed.weight", "unembed.in", "logits"))
    if shape.bigram:
        bundles.append(Matrix("bigram.weight", "token", "logits", target_axis=1))
    return {bundle.name: bundle for bundle in bundles}


def biases(model: Transformer | Shape) -> dict[str, Matrix]:
    """Every bias vector that is added to the output of a matrix, by parameter name."""
    shape = model if isinstance(model, Shape) else Shape.of(model.config)
    found = {}
    for bundle in matrices(shape).values():
        if shape.unembed_bias if bundle.source == "unembed.in" else shape.bias and bundle.target_axis == 0:
            name = bundle.name.removesuffix("weight") + "bias"
            found[name] = Matrix(name, BIAS, bundle.target)
    return found


@dataclass(frozen=True)
class Edges:
    """All edges of one model in a fixed order: by matrix in forward order, then row, then column; then the biases.

    A set of edges is a boolean tensor (edge,) over this list.

    Attributes:
        bundles: the matrices and bias vectors, by parameter name.
        names: the parameter names in order.
        matrix: (edge,) index into ``names``.
        row: (edge,) row in the tensor.
        column: (edge,) column in the tensor; 0 in a vector.
        shapes: shape of each tensor, by name.
    """

    bundles: Mapping[str, Matrix]
    names: tuple[str, ...]
    matrix: Tensor
    row: Tensor
    column: Tensor
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: Transformer, with_biases: bool = True) -> Edges:
        """The non-zero entries of all weight matrices of ``model``, and of its biases where they can be ablated.

        Args:
            model: the transformer.
            with_biases: false under ablations that leave biases alone, see :attr:`Ablation.removes_biases`.
        """
        bundles = matrices(model) | biases(model) if with_biases else matrices(model)
        tensors = {name: model.get_parameter(name).detach().cpu() for name in bundles}
        found = [(tensor if tensor.ndim == 2 else tensor[:, None]).nonzero() for tensor in tensors.values()]
        places = torch.cat(found)
        matrix = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(f) for f in found]))
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return cls(bundles, tuple(bundles), matrix, places[:, 0], places[:, 1], shapes)

    @cached_property
    def is_bias(self) -> Tensor:
        """Which of them are biases, boolean (edge,)."""
        return torch.tensor([self.bundles[name].is_bias for name in self.names])[self.matrix]

    def weights(self, kept: Tensor) -> int:
        """How many of ``kept`` (edge,) are weights and no biases: the size of a circuit in edges."""
        return int((kept & ~self.is_bias).sum())

    def __len__(self) -> int:
        return len(self.matrix)

    @cached_property
    def members(self) -> Sequence[Tensor]:
        """Numbers of the edges of each tensor, which stand one after the other."""
        return torch.arange(len(self)).split(torch.bincount(self.matrix, minlength=len(self.names)).tolist())

    def by_matrix(self, kept: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Of each tensor that has any of ``kept`` (edge,): its index in ``names``, and their numbers."""
        chosen = kept.nonzero()[:, 0]
        counts = torch.bincount(self.matrix[chosen], minlength=len(self.names)).tolist()
        return ((matrix, numbers) for matrix, numbers in enumerate(chosen.split(counts)) if len(numbers))

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """One tensor per matrix or vector, in its shape, that holds ``kept`` (edge,) at the edges and zero elsewhere.

        Booleans give boolean masks; a float tensor gives differentiable ones.
        """
        sizes = [math.prod(self.shapes[name]) for name in self.names]
        flat = torch.zeros(sum(sizes), dtype=kept.dtype, device=kept.device)  # one tensor: one step forth, one back
        parts = flat.index_put((self.places_when_flat.to(kept.device),), kept).split(sizes)
        return {name: part.view(self.shapes[name]) for name, part in zip(self.names, parts, strict=True)}

    @cached_property
    def _layout(self) -> Tensor:
        """Of each tensor (tensor, 3): where it begins when all are laid out flat, its rows and its columns."""
        shapes = [(self.shapes[name][0], math.prod(self.shapes[name][1:])) for name in self.names]
        rows, columns = torch.tensor(shapes, dtype=torch.long).view(-1, 2).T
        sizes = rows * columns
        return torch.stack([sizes.cumsum(0) - sizes, rows, columns], dim=1)

    @cached_property
    def places_when_flat(self) -> Tensor:
        """Where each edge stands, (edge,), when all tensors are laid out flat, one after the other; ascending."""
        begin, _, columns = self._layout[self.matrix].T
        return begin + self.row * columns + self.column

    def describe(self, index: int) -> Place:
        """Edge ``index`` as (parameter name, row, column)."""
        return self.names[int(self.matrix[index])], int(self.row[index]), int(self.column[index])

    def endpoints(self, index: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """The nodes that edge ``index`` joins, source first; a head's ``z`` channel counts as its value channel."""
        name, row, column = self.describe(index)
        (source, channel), target = self.bundles[name].endpoints(row, column)
        return (_as_value(source), channel), target

    def ends(self, matrix: int, numbers: Tensor) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        """Site and channels (edge,) at which some edges of one tensor start, and at which they end.

        A head's ``z`` channel counts as its value channel.

        Args:
            matrix: index into ``names``.
            numbers: (edge,) edges of that tensor.
        """
        bundle, channels = self.bundles[self.names[matrix]], (self.row[numbers], self.column[numbers])
        target, source = channels if bundle.target_axis == 0 else channels[::-1]
        return (_as_value(bundle.source), source), (bundle.target, target)

    def places(self, kept: Tensor) -> list[Place]:
        """The edges and biases of ``kept`` (edge,) as (parameter name, row, column), in order."""
        chosen = kept.nonzero()[:, 0]
        rows = (of[chosen].tolist() for of in (self.matrix, self.row, self.column))
        return [(self.names[i], row, column) for i, row, column in zip(*rows, strict=True)]

    def numbers(self, places: Sequence[Place]) -> Tensor:
        """The number (place,) of each named edge or bias, by binary search; -1 where the model has no weight."""
        order = {name: i for i, name in enumerate(self.names)}
        listed = [(order.get(name, -1), row, column) for name, row, column in places]
        matrix, row, column = torch.tensor(listed, dtype=torch.long).view(-1, 3).T
        begin, height, width = self._layout.T[:, matrix]
        inside = (matrix >= 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        flat = begin + row * width + column
        number = torch.searchsorted(self.places_when_flat, flat).clamp(max=max(0, len(self) - 1))
        inside &= self.places_when_flat[number] == flat if len(self) else False
        return torch.where(inside, number, -1)

    def find(self, places: Sequence[Place]) -> Tensor:
        """Boolean (edge,) tensor of the named edges; a place that holds no non-zero weight raises ``KeyError``."""
        numbers = self.numbers(places)
        if bool((numbers < 0).any()):
            raise KeyError(places[int((numbers < 0).nonzero()[0])])
        kept = torch.zeros(len(self), dtype=torch.bool)
        kept[numbers] = True
        return kept


def _as_value(site: str) -> str:
    """The value site in place of a head's ``z``."""
    return f"{site[:-1]}v" if site.endswith(".attn.z") else site


def place_name(place: Place, is_bias: bool) -> str:
    """A place as text: ``layers.0.attn.q.weight[5,2]``, of a bias ``layers.0.attn.q.bias[5]``.

    Args:
        place: parameter name, row and column.
        is_bias: whether it is a bias, which has no column.
    """
    parameter, row, column = place
    return f"{parameter}[{row}]" if is_bias else f"{parameter}[{row},{column}]"


def live_channels(edges: Edges, kept: Tensor) -> dict[str, Tensor]:
    """Which channels of each site a set of edges needs, as boolean vectors by site.

    Those are the ends of its edges and biases. Query and key channel of a head act as a product, and a value channel
    through its attention-weighted mean ``z``, so of such a pair both are needed as soon as one is.

    Args:
        edges: the model's edges.
        kept: boolean (edge,).
    """
    live: dict[str, Tensor] = {}
    for name in edges.names:
        bundle, shape = edges.bundles[name], edges.shapes[name]
        sites = [(bundle.target, bundle.target_axis), (bundle.source, 1 - bundle.target_axis)]
        for site, axis in sites[: len(shape)]:
            live.setdefault(site, torch.zeros(shape[axis], dtype=torch.bool))
    for matrix, numbers in edges.by_matrix(kept):
        bundle, places = edges.bundles[edges.names[matrix]], (edges.row[numbers], edges.column[numbers])
        live[bundle.target][places[bundle.target_axis]] = True
        if not bundle.is_bias:
            live[bundle.source][places[1 - bundle.target_axis]] = True
    for site in [s for s in live if s.endswith(".attn.q")]:
        layer = site.removesuffix("q")
        live[site] = live[f"{layer}k"] = live[site] | live[f"{layer}k"]
        live[f"{layer}v"] = live[f"{layer}z"] = live[f"{layer}v"] | live[f"{layer}z"]
    return live
