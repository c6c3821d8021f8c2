"""How many entries of which tensor are non-zero, and how that changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Row(NamedTuple):
    """One tensor of a density table.

    Attributes:
        name: name of the tensor.
        shape: its shape.
        numel: number of its entries.
        nonzero: number of its entries that are not zero.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    nonzero: int

    @property
    def density(self) -> float:
        """Share of non-zero entries in [0, 1]; 0 for an empty tensor."""
        return self.nonzero / self.numel if self.numel else 0.0


def density_table(tensors: Mapping[str, Tensor]) -> list[Row]:
    """Count the non-zero entries of floating tensors, a state dict for example.

    Tensors that share their memory (tied weights) are counted once, under the first name.

    Args:
        tensors: tensors by name; integer and boolean ones are left out.

    Returns:
        One row per tensor, in the given order.
    """
    seen: set[tuple[object, ...]] = set()
    rows = []
    for name, tensor in tensors.items():
        memory = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if not tensor.is_floating_point() or (tensor.numel() and memory in seen):
            continue
        seen.add(memory)
        rows.append(Row(name, tuple(tensor.shape), tensor.numel(), int(torch.count_nonzero(tensor.detach()))))
    return rows


def total(rows: Iterable[Row], name: str = "total") -> Row:
    """The sum of some rows as a row without a shape.

    Args:
        rows: rows of a density table.
        name: name of the sum.
    """
    rows = list(rows)
    return Row(name, (), sum(row.numel for row in rows), sum(row.nonzero for row in rows))


def dead_lines(tensor: Tensor) -> tuple[int, int]:
    """Number of rows (dim 0) and of columns (dim 1, over all other dimensions) without a non-zero entry.

    Args:
        tensor: tensor with at least two dimensions.
    """
    alive = tensor.detach().flatten(2).any(-1) if tensor.ndim > 2 else tensor.detach() != 0
    return int((~alive.any(1)).sum()), int((~alive.any(0)).sum())


class Turnover:
    """How the support of one tensor moves from one measurement to the next; supports are kept as one bit an entry."""

    def __init__(self) -> None:
        self._last: Any = None
        self._ever: Any = None
        self.numel = 0

    def observe(self, tensor: Tensor) -> float:
        """Take a measurement.

        Args:
            tensor: the tensor as it is now.

        Returns:
            Share of the living entries that were dead at the measurement before; 0 at the first one.
        """
        live = np.packbits(tensor.detach().reshape(-1).cpu().bool().numpy())
        self.numel = tensor.numel()
        before = live if self._last is None else self._last
        self._ever = live if self._ever is None else self._ever | live
        self._last = live
        return _bits(live & ~before) / max(1, _bits(live))

    @property
    def ever(self) -> float:
        """Share of entries that lived at any measurement, in [0, 1]."""
        return _bits(self._ever) / max(1, self.numel)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to remember."""
        return {"last": torch.from_numpy(self._last), "ever": torch.from_numpy(self._ever), "numel": self.numel}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Turnover:
        """Continue from a checkpoint's state."""
        turnover = cls()
        turnover._last, turnover._ever = state["last"].cpu().numpy(), state["ever"].cpu().numpy()
        turnover.numel = state["numel"]
        return turnover


_ONES = np.array([bin(byte).count("1") for byte in range(256)])


def _bits(packed: Any) -> int:
    return int(_ONES[packed].sum())
