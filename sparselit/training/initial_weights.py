"""Weights of another model as the start of a new one: tensor by tensor, as far as the shapes agree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Axes that count tokens, by the end of a tensor's name: their rows are matched by token, not by number.
TOKEN_AXES = {"embed.token.weight": (0,), "unembed.weight": (0,), "unembed.bias": (0,), "bigram.weight": (0, 1)}
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
#: What ``torch.compile`` puts before the names of a module that it wraps.
_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class Taken:
    """What became of each tensor.

    Attributes:
        whole: names of those that were taken whole.
        part: shape of the part that was taken, shape here, and shape there, by name.
        new: names of the model's tensors that stay as they were initialised.
        unused: names of the others' tensors that were not taken.
    """

    whole: tuple[str, ...]
    part: dict[str, tuple[tuple[int, ...], ...]]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """What was taken in part, by the shapes; what is new; what is left. Whole modules are drawn together."""
        here, there = {*self.whole, *self.part, *self.new}, {*self.whole, *self.part, *self.unused}
        shapes: dict[tuple[tuple[int, ...], ...], list[str]] = {}
        for name, sizes in self.part.items():
            shapes.setdefault(sizes, []).append(name)
        for (size, own, other), names in shapes.items():
            yield f"{_size(size)} of {_size(own)} (there {_size(other)}): {', '.join(_by_kind(names))}"
        if self.new:
            yield f"new: {', '.join(_by_kind(_modules(self.new, here)))}"
        if self.unused:
            yield f"not used: {', '.join(_by_kind(_modules(self.unused, there)))}"


def plain_names(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The dense tensors of a state, without the prefixes of a compiled module.

    Args:
        state: by name; what is no tensor is left out.
    """
    found = {name.replace(_COMPILED, ""): value for name, value in state.items() if isinstance(value, Tensor)}
    return {name: value if value.layout == torch.strided else value.to_dense() for name, value in found.items()}


@torch.no_grad()
def take_weights(
    model: nn.Module, state: Mapping[str, Tensor], tokens: tuple[Sequence[str], Sequence[str]] | None = None
) -> Taken:
    """Copy tensors into a model, whole where the shapes agree and else the rows and columns that both have.

    Args:
        model: changed in place.
        state: tensors by name.
        tokens: vocabulary of the model, and that of the state; None to match tokens by number.

    Returns:
        What was taken, and what was not.
    """
    whole: list[str] = []
    part: dict[str, tuple[tuple[int, ...], ...]] = {}
    new: list[str] = []
    shared = None
    if tokens is not None and list(tokens[0]) != list(tokens[1]):
        there = {token: row for row, token in enumerate(tokens[1])}
        pairs = [(row, there[token]) for row, token in enumerate(tokens[0]) if token in there]
        shared = [torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1)]
    for name, own in model.state_dict().items():
        other = state.get(name)
        if other is None or other.ndim != own.ndim or other.is_floating_point() != own.is_floating_point():
            new.append(name)
            continue
        axes: tuple[int, ...] = ()
        if shared is not None:
            axes = next((axes for end, axes in TOKEN_AXES.items() if name.endswith(end)), ())
        if own.shape == other.shape and not axes:
            own.copy_(other)
            whole.append(name)
            continue
        rows = [shared if axis in axes and shared else _first(own, other, axis) for axis in range(own.ndim)]
        size = tuple(len(row[0]) for row in rows)
        if 0 in size:
            new.append(name)
            continue
        here, there_ = (torch.meshgrid(*(row[side] for row in rows), indexing="ij") for side in (0, 1))
        own[here] = other[there_].to(own)
        part[name] = size, tuple(own.shape), tuple(other.shape)
    used = {*whole, *part}
    return Taken(tuple(whole), part, tuple(new), tuple(name for name in state if name not in used))


def _first(own: Tensor, other: Tensor, axis: int) -> list[Tensor]:
    rows = torch.arange(min(own.shape[axis], other.shape[axis]))
    return [rows, rows]


def _modules(names: Sequence[str], universe: Set[str], prefix: str = "") -> Iterator[str]:
    """Names, with a star for all tensors of a module where all of them are among the names."""
    for part in dict.fromkeys(name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)):
        module = f"{prefix}{part}."
        inner = [name for name in names if name.startswith(module)]
        if not inner:
            yield prefix + part
        elif len(inner) > 1 and len(inner) == sum(name.startswith(module) for name in universe):
            yield f"{module}*"
        else:
            yield from _modules(names, universe, module)


def _by_kind(names: Iterable[str]) -> Iterator[str]:
    """Names with the numbers of all layers that have such a tensor."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        number = _LAYER.search(name)
        kinds.setdefault(_LAYER.sub("#", name, count=1), []).append(number[0] if number else "")
    for kind, numbers in kinds.items():
        yield kind.replace("#", numbers[0] if len(numbers) == 1 else "{" + ",".join(numbers) + "}")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
