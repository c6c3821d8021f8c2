"""A sparse model as a small file: safetensors whose sparse tensors are stored in compressed rows (CSR)."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from sparselit.errors import SparselitError

#: Key of the metadata that names the format and holds the shapes.
FORMAT = "sparselit.csr"
_PARTS = ("row_begin", "column", "value")
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Some tensors as the content of a safetensors file.

    A tensor with at least two dimensions that becomes smaller is stored as ``<name>/row_begin`` (number of the first
    entry of each row of dim 0, and their total), ``<name>/column`` (index in the row, all other dimensions flattened)
    and ``<name>/value``; its shape stands in the metadata. Everything else is stored as it is. Bits are kept exactly,
    also those of negative zeros, which count as entries.

    Args:
        tensors: tensors by name, a state dict for example.
    """
    parts: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        found = _compressed(tensor) if tensor.ndim >= 2 and tensor.is_floating_point() else None
        if found is None:
            parts[name] = tensor.clone()
        else:
            shapes[name] = list(tensor.shape)
            parts.update({f"{name}/{part}": value for part, value in zip(_PARTS, found, strict=True)})
    return save(parts, metadata={FORMAT: json.dumps(shapes, sort_keys=True)})


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The tensors of :func:`to_bytes`, bit for bit.

    Args:
        content: what the file holds.

    Raises:
        SparselitError: this is no such file.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        shapes = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FORMAT])
        parts = load(content)
        stored = {f"{name}/{part}" for name in shapes for part in _PARTS}
        tensors = {name: tensor for name, tensor in parts.items() if name not in stored}
        for name, shape in shapes.items():
            tensors[name] = _whole(shape, *(parts[f"{name}/{part}"] for part in _PARTS))
    except Exception as error:
        raise SparselitError(f"this is no sparse export of sparselit: {' '.join(str(error).split())[:100]}") from error
    return dict(sorted(tensors.items()))


def _compressed(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Row beginnings, columns and values; None where that is not smaller."""
    rows = tensor.reshape(tensor.shape[0], -1)
    row, column = (rows.view(_INTEGERS[rows.element_size()]) != 0).nonzero(as_tuple=True)
    size = rows.element_size()
    index = torch.int16 if rows.shape[1] <= 2**15 else torch.int32
    if 4 * (len(rows) + 1) + (index.itemsize + size) * len(row) >= size * rows.numel():
        return None
    begin = torch.zeros(len(rows) + 1, dtype=torch.int64)
    begin[1:] = torch.bincount(row, minlength=len(rows)).cumsum(0)
    return begin.to(torch.int32), column.to(index), rows[row, column]


def _whole(shape: list[int], begin: Tensor, column: Tensor, value: Tensor) -> Tensor:
    rows = torch.zeros(shape[0], torch.Size(shape[1:]).numel(), dtype=value.dtype)
    row = torch.repeat_interleave(torch.arange(shape[0]), begin.diff().long())
    rows[row, column.long()] = value
    return rows.reshape(shape)
