"""The table of sites: of every named activation its layer, block and kind, its order, and what its channels count.

A name such as ``layers.0.attn.q`` is taken apart here and nowhere else. ``token`` and ``position`` are no sites of the
forward pass but the sources of the embedding tables; their channels count tokens and positions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer

Block = Literal["input", "embed", "attn", "mlp", "unembed", "output"]
#: What the channels of a site count; ``none``: one number for each position, or keys.
Axis = Literal["token", "position", "residual", "concatenated", "read", "head", "neuron", "none"]
Role = Literal["reads", "writes", ""]


class _Kind(NamedTuple):
    axis: Axis
    role: Role = ""


_ATTENTION: Mapping[str, _Kind] = {
    "scale": _Kind("none"),
    "position_scale": _Kind("none"),
    "in": _Kind("read", "reads"),
    "q": _Kind("head"),
    "k": _Kind("head"),
    "v": _Kind("head"),
    "pattern": _Kind("none"),
    "z": _Kind("head"),
    "out": _Kind("residual", "writes"),
    "residual": _Kind("residual"),
}
_MLP: Mapping[str, _Kind] = {
    "scale": _Kind("none"),
    "position_scale": _Kind("none"),
    "in": _Kind("read", "reads"),
    "act": _Kind("neuron"),
    "out": _Kind("residual", "writes"),
    "residual": _Kind("residual"),
}
_LAYER: Mapping[str, Mapping[str, _Kind]] = {"attn": _ATTENTION, "mlp": _MLP}
_BEFORE: Mapping[str, tuple[Block, _Kind]] = {
    "token": ("input", _Kind("token")),
    "position": ("input", _Kind("position")),
    "embed": ("embed", _Kind("residual", "writes")),
    "positions": ("embed", _Kind("concatenated")),
}
_AFTER: Mapping[str, tuple[Block, _Kind]] = {
    "unembed.scale": ("unembed", _Kind("none")),
    "unembed.in": ("unembed", _Kind("residual", "reads")),
    "logits": ("output", _Kind("token")),
}
_BLOCKS: Mapping[str, Block] = {"attn": "attn", "mlp": "mlp"}
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_LAST = 1 << 30  # a layer above all others


@dataclass(frozen=True)
class SiteRow:
    """One row of the table.

    Attributes:
        name: as in ``layers.0.attn.q``.
        layer: its layer; None outside of the layers.
        block: the part of the model that it belongs to.
        kind: the last word of its name.
        order: sorts sites as the forward pass meets them.
        axis: what its channels count.
        role: whether its channels are read from the residual stream, or written to it.
    """

    name: str
    layer: int | None
    block: Block
    kind: str
    order: tuple[int, int, int]
    axis: Axis
    role: Role

    @property
    def on_stream(self) -> bool:
        """Whether its channels are those of the residual stream, read or written."""
        return self.role != ""

    @property
    def prefix(self) -> str:
        """The block with its layer, as in ``layers.0.attn``."""
        return self.block if self.layer is None else f"layers.{self.layer}.{self.block}"

    @property
    def depth(self) -> int:
        """How many blocks (attention and MLP count one each) are computed before it; many, above all layers."""
        if self.layer is None:
            return 0 if self.name in _BEFORE else _LAST
        return 2 * self.layer + (self.block == "mlp")

    @property
    def node(self) -> str:
        """The site that its channels count for as nodes: a head mixes positions, so its ``z`` is its value."""
        return self.beside("v") if self.kind == "z" else self.name

    def beside(self, kind: str) -> str:
        """The name of another site of the same block."""
        return f"{self.prefix}.{kind}"


@cache
def site(name: str) -> SiteRow:
    """The row of a site.

    Raises:
        SparselitError: there is no such site in any model.
    """
    for table, first in ((_BEFORE, -1), (_AFTER, _LAST)):
        if name in table:
            block, kind = table[name]
            return SiteRow(name, None, block, name.split(".")[-1], (first, 0, list(table).index(name)), *kind)
    words = name.split(".")
    if (
        len(words) == 4
        and words[0] == "layers"
        and _NUMBER.fullmatch(words[1])
        and words[3] in _LAYER.get(words[2], ())
    ):
        layer, inner = int(words[1]), _BLOCKS[words[2]]
        order = (layer, int(inner == "mlp"), list(_LAYER[inner]).index(words[3]))
        return SiteRow(name, layer, inner, words[3], order, *_LAYER[inner][words[3]])
    raise SparselitError(f"no site is called {name!r}")


def kinds(block: Block) -> Iterator[str]:
    """The kinds of site of a block, in the order of the forward pass."""
    yield from _LAYER[block]


# -- sizes -------------------------------------------------------------------------------------------------------------

# Of the sizes in a configuration, which may come from a stranger.
_LARGEST, _MOST_LAYERS = 1 << 24, 10_000


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer, from its configuration alone: no model is built.

    Attributes:
        vocab_size: tokens.
        max_length: positions.
        n_layers: layers.
        d_model: channels of the residual stream.
        n_heads: heads of a layer.
        d_head: channels of a head.
        d_mlp: neurons of a layer.
        d_concatenated: channels of the positions that each block reads beside the stream; 0 without.
        positions: how positions come in.
        bias: whether the linear maps of the layers have biases.
        unembed_bias: whether the logits have.
        bigram: whether there is a table from token to logit.
    """

    vocab_size: int
    max_length: int
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_concatenated: int
    positions: str
    bias: bool
    unembed_bias: bool
    bigram: bool

    @staticmethod
    def of(config: Mapping[str, Any]) -> Shape:
        """The shape that these arguments of :class:`Transformer` make.

        Raises:
            SparselitError: an argument is missing, unknown or of another type.
        """
        defaults = _defaults()
        unknown = [key for key in config if key not in defaults]
        if unknown:
            raise SparselitError(f"model.{unknown[0]} is no argument of a model")
        values = {**defaults, **config}

        def size(key: str, default: int | None = None, least: int = 1, most: int = _LARGEST) -> int:
            value = default if values[key] is None else values[key]
            if type(value) is not int or not least <= value <= most:
                raise SparselitError(f"model.{key} must be a whole number from {least} to {most:,}, got {value!r}")
            return value

        def truth(key: str, default: bool = False) -> bool:
            value = default if values[key] is None else values[key]
            if type(value) is not bool:
                raise SparselitError(f"model.{key} must be true or false, got {value!r}")
            return value

        positions = values["positions"]
        if not isinstance(positions, str):
            raise SparselitError(f"model.positions must be a text, got {positions!r}")
        d_model, n_heads, bias = size("d_model"), size("n_heads"), truth("bias")
        return Shape(
            vocab_size=size("vocab_size"),
            max_length=size("max_length"),
            n_layers=size("n_layers", least=0, most=_MOST_LAYERS),
            d_model=d_model,
            n_heads=n_heads,
            d_head=size("d_head", max(1, d_model // n_heads)),
            d_mlp=size("d_mlp", 4 * d_model, least=0),
            d_concatenated=size("d_position", d_model) if positions.endswith("concatenated") else 0,
            positions=positions,
            bias=bias,
            unembed_bias=truth("unembed_bias", bias),
            bigram=truth("bigram"),
        )

    def width(self, name: str) -> int:
        """Number of channels of a site; 0 for attention patterns, whose last axis counts keys."""
        row = site(name)
        widths = {
            "token": self.vocab_size,
            "position": self.max_length,
            "residual": self.d_model,
            "concatenated": self.d_concatenated,
            "read": self.d_model + self.d_concatenated,
            "head": self.n_heads * self.d_head,
            "neuron": self.d_mlp,
            "none": int(row.kind != "pattern"),
        }
        return widths[row.axis]

    def has(self, name: str) -> bool:
        """Whether a model of this shape has channels at a site."""
        try:
            row = site(name)
        except SparselitError:
            return False
        return (row.layer is None or row.layer < self.n_layers) and self.width(name) > 0


@cache
def _defaults() -> Mapping[str, Any]:
    arguments = inspect.signature(Transformer).parameters.values()
    return {argument.name: None if argument.default is argument.empty else argument.default for argument in arguments}
