"""Exact projection of a tensor onto its k largest entries (Gao et al. 2025, §2), with a floor per neuron inside k."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparselit.errors import SparselitError

#: What a floor counts: a ``row`` is dim 0 (output neuron), a ``column`` is dim 1 (input channel), ``both`` are both.
Per = Literal["row", "column", "both"]


def top_k_mask(weight: Tensor, k: int, *, floor: int = 0, per: Per = "row") -> Tensor:
    """The ``k`` entries of largest magnitude, ties to the lowest flat index.

    Zeros count as the smallest magnitudes, so that at least ``k`` non-zero entries give exactly ``k`` non-zero ones.

    Args:
        weight: tensor of any shape and floating dtype.
        k: number of entries to keep, in [0, numel].
        floor: entries that each row or column keeps at least, counted inside ``k``. The floor goes to non-zero
            entries only: a row with fewer of them keeps those.
        per: what the floor counts: ``row`` is an index of dim 0, ``column`` one of dim 1, over all other dimensions.

    Returns:
        Boolean tensor of the weight's shape with exactly ``k`` entries set.

    Raises:
        SparselitError: an entry is not finite, k is out of range, or the floor does not fit.
    """
    magnitude = weight.detach().abs()
    if not bool(torch.isfinite(magnitude.max() if magnitude.numel() else magnitude.sum())):  # max carries NaN along
        raise SparselitError("a weight to be sparsified is not finite (NaN or infinity)")
    return select(magnitude, k, floor=floor, per=per)


def project_(weight: Tensor, k: int, *, floor: int = 0, per: Per = "row") -> None:
    """Set all but the ``k`` largest entries to exactly +0.0, in place; the others stay as they are.

    Args:
        weight: tensor of any shape and floating dtype.
        k: number of entries to keep, in [0, numel].
        floor: entries that each row or column keeps at least, counted inside ``k``.
        per: what the floor counts, see :func:`top_k_mask`.

    Raises:
        SparselitError: an entry is not finite, k is out of range, or the floor does not fit.

    Examples:
        >>> weight = torch.tensor([[3.0, -1.0], [0.5, -2.0]])
        >>> project_(weight, k=2)
        >>> weight
        tensor([[ 3.,  0.],
                [ 0., -2.]])
    """
    with torch.no_grad():
        weight.masked_fill_(~top_k_mask(weight, k, floor=floor, per=per), 0.0)


def select(scores: Tensor, k: int, *, floor: int = 0, per: Per = "row", eligible: Tensor | None = None) -> Tensor:
    """The ``k`` highest of any scores under a floor; the core of every mask in this package.

    Args:
        scores: finite tensor of any shape and floating dtype.
        k: number of entries to select, in [0, numel].
        floor: entries that each row or column gets at least, counted inside ``k``.
        per: what the floor counts, see :func:`top_k_mask`.
        eligible: entries that the floor may be filled with; by default those with a score above zero.

    Returns:
        Boolean tensor of the scores' shape with exactly ``k`` entries set, ties to the lowest flat index.
    """
    if not 0 <= k <= scores.numel():
        raise SparselitError(f"k must lie in [0, {scores.numel()}], got {k}")
    scores = scores.detach()
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()  # exact; half precision lacks fast selection kernels
    if floor > 0 and k < scores.numel():
        need = floor_need(scores.shape, floor, per)
        if k < need:
            raise SparselitError(
                f"a floor of {floor} per {line_name(per)} of shape {tuple(scores.shape)} needs k >= {need}, got {k}"
            )
        may = scores > 0 if eligible is None else eligible
        for line in ("row", "column") if per == "both" else (per,):  # the columns count what the rows have taken
            scores = scores.masked_fill(_best_of_lines(scores, may, floor, line), torch.inf)
    return _highest(scores.flatten(), k).reshape(scores.shape)


def floor_need(shape: torch.Size | tuple[int, ...], floor: int, per: Per) -> int:
    """The smallest k under which every row or column of ``shape`` can keep ``floor`` entries.

    Args:
        shape: shape of the tensor.
        floor: entries per row or column.
        per: ``row`` (dim 0), ``column`` (dim 1) or ``both``.

    Returns:
        The number of entries; for ``both`` the number that always suffices, floors of rows plus floors of columns.

    Raises:
        SparselitError: a row or column has fewer than ``floor`` entries, so that no k fits.
    """
    if floor == 0:
        return 0
    if per != "row" and len(shape) < 2:
        raise SparselitError(f"a floor per column needs two dimensions, got shape {tuple(shape)}")
    if per == "both":
        return min(torch.Size(shape).numel(), floor_need(shape, floor, "row") + floor_need(shape, floor, "column"))
    count = shape[0 if per == "row" else 1]
    length = torch.Size(shape).numel() // max(count, 1)
    if floor > length:
        raise SparselitError(
            f"a floor of {floor} per {per} of shape {tuple(shape)} fits at no density: a {per} has {length}"
        )
    return count * floor


def line_name(per: Per) -> str:
    """What a floor counts, in words."""
    return "row and column" if per == "both" else per


def _best_of_lines(scores: Tensor, eligible: Tensor, floor: int, per: str) -> Tensor:
    """The ``floor`` highest eligible entries of each row or column."""
    lines = _lines(scores, per)
    first = torch.zeros_like(lines, dtype=torch.bool)
    first.scatter_(1, lines.sort(dim=1, descending=True, stable=True).indices[:, :floor], True)
    first &= _lines(eligible, per)
    if per == "column":
        first = first.reshape(scores.movedim(1, 0).shape).movedim(0, 1)
    return first.reshape(scores.shape)


def _lines(tensor: Tensor, per: str) -> Tensor:
    """The tensor as (row or column, its entries in flat order)."""
    return (tensor if per == "row" else tensor.movedim(1, 0)).reshape(tensor.shape[0 if per == "row" else 1], -1)


def _highest(scores: Tensor, k: int) -> Tensor:
    """The k highest of a vector, ties to the lowest index, without a device synchronisation."""
    if k == 0 or k == scores.numel():
        return torch.full_like(scores, k > 0, dtype=torch.bool)
    if 2 * k <= scores.numel():  # topk and not kthvalue, which CUDA refuses in deterministic mode
        threshold = scores.topk(k, sorted=False).values.min()
    else:
        threshold = scores.topk(scores.numel() - k + 1, largest=False, sorted=False).values.max()
    if scores.device.type == "cpu" and int((kept := scores >= threshold).sum()) == k:
        return kept  # no ties, the usual case; elsewhere asking would wait for the device
    above, tied = scores > threshold, scores == threshold
    return above | (tied & (tied.cumsum(0) <= k - above.sum()))
