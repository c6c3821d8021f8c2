"""Exact top-k by magnitude, fast on a CPU because the threshold of the step before is nearly right.

One pass counts what lies clearly above the old threshold and finds the few entries near it; only these are looked at
one by one. The result is the exact top-k, ties to the lowest flat index, whatever the hint was: a bad one costs time,
never exactness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Below this many entries, torch's own selection is as fast.
SMALL = 4096
#: How far from the old threshold the new one is looked for: weights move little in one step.
SLACK = 1 / 32
_SAMPLE = 8192
_BLOCK = 2**18


def largest(weight: Tensor, k: int, hint: float | None = None) -> Tensor | None:
    """Flat indices of the ``k`` entries of largest magnitude, ties to the lowest index.

    Args:
        weight: finite contiguous tensor on the CPU, of any shape and floating dtype.
        k: number of entries, in [1, numel].
        hint: about the smallest magnitude that will be kept, or None.

    Returns:
        The indices in ascending order; None where fewer than ``k`` entries are not zero, so that zeros would have to
        be chosen.
    """
    found = _find(weight, k, hint)
    return None if found is None else torch.from_numpy(found.index[found.kept])


def keep_largest_(weight: Tensor, k: int, hint: float | None = None) -> float | None:
    """Set all but the ``k`` largest entries to exactly +0.0, in place; the others stay as they are.

    Args:
        weight: as in :func:`largest`, as is ``k``.
        k: number of entries that stay.
        hint: what this function returned for a similar tensor, or None.

    Returns:
        A limit: nothing that is kept is smaller, nothing that goes is larger. None where fewer than ``k`` entries are
        not zero, and then the tensor is unchanged.
    """
    flat = weight.detach().view(-1)
    exact = flat.dtype in (torch.float32, torch.float64)
    found = (_near(flat, k, hint) if exact and hint else None) or _find(weight, k, hint)
    if found is None:
        return None
    spared = found.index[found.kept & (found.values <= found.limit)]  # as large as some that go
    index = torch.from_numpy(spared if exact else found.index[found.kept])
    values = flat[index]
    if exact:
        for begin in range(0, flat.numel(), _BLOCK):
            block = flat[begin : begin + _BLOCK]
            torch.ops.aten.hardshrink.out(block, found.limit, out=block)
    else:
        flat.zero_()  # the limit may lie between two numbers of this precision
    flat.index_copy_(0, index, values)
    return found.limit


class _Found(NamedTuple):
    """Some entries: their indices and magnitudes, which of them stay, and a limit that all others keep to."""

    index: Any
    values: Any
    kept: Any
    limit: float


def _near(flat: Tensor, k: int, hint: float) -> _Found | None:
    """The entries near the hint; None where the k-th largest is not among them."""
    numbers = flat.numpy()
    with np.errstate(over="ignore"):
        low, high = (float(numbers.dtype.type(hint * factor)) for factor in (1 - SLACK, 1 + SLACK))
    size = min(_BLOCK, len(numbers))
    magnitude, above, beyond = np.empty(size, numbers.dtype), np.empty(size, bool), np.empty(size, bool)
    count, indices, values = 0, [], []
    for begin in range(0, len(numbers), _BLOCK):
        block = numbers[begin : begin + _BLOCK]
        out = np.abs(block, out=magnitude[: len(block)])
        far = np.greater(out, high, out=above[: len(block)])
        count += int(np.count_nonzero(far))
        near = np.flatnonzero(np.not_equal(np.greater(out, low, out=beyond[: len(block)]), far, out=far))
        indices.append(near + begin)
        values.append(out[near])
    index, found = np.concatenate(indices), np.concatenate(values)
    if not count <= k <= count + len(index):
        return None
    kept, limit = _without_smallest(found, count + len(index) - k, low)
    return _Found(index, found, kept, limit)


def _find(weight: Tensor, k: int, hint: float | None) -> _Found | None:
    """The k largest among the survivors of the first cut that leaves enough."""
    flat = weight.detach().reshape(-1)
    if flat.dtype in (torch.bfloat16, torch.float16):
        flat = flat.float()  # exact
    for cut in _cuts(flat, k, hint):
        index, values = _above(flat, cut)
        if len(index) >= k:
            kept, limit = _without_smallest(values, len(index) - k, cut)
            return _Found(index, values, kept, limit)
    return None


def _cuts(flat: Tensor, k: int, hint: float | None) -> Iterator[float]:
    """Where to cut, in the order of trial; the last one keeps all that is not zero."""
    if hint:
        yield hint * (1 - SLACK)
    sample = flat[:: max(1, flat.numel() // _SAMPLE)].abs().sort(descending=True).values
    for widths in (3, 8):  # of the sampling error of the rank
        share = k / flat.numel()
        rank = share * len(sample) + widths * math.sqrt(len(sample) * share * (1 - share)) + widths
        if rank < len(sample):
            yield float(np.nextafter(sample[int(rank)].item(), 0))
    yield 0.0


def _above(flat: Tensor, cut: float) -> tuple[Any, Any]:
    """Indices and magnitudes of the entries beyond ``cut``, block by block, so that each stays in the cache."""
    shrunk = torch.empty(min(_BLOCK, flat.numel()), dtype=flat.dtype)
    beyond = np.empty(len(shrunk), dtype=bool)
    indices, values = [], []
    for begin in range(0, flat.numel(), _BLOCK):
        block = flat[begin : begin + _BLOCK]
        out = shrunk[: len(block)]
        torch.ops.aten.hardshrink.out(block, cut, out=out)  # zero where |w| <= cut
        found = np.flatnonzero(np.not_equal(out.numpy(), 0, out=beyond[: len(block)]))
        indices.append(found + begin)
        values.append(np.abs(out.numpy()[found]))
    return np.concatenate(indices), np.concatenate(values)


def _without_smallest(values: Any, surplus: int, cut: float) -> tuple[Any, float]:
    """Which of some values stay when the ``surplus`` smallest go, of equal ones the last.

    Args:
        values: positive numbers above ``cut``.
        surplus: how many go.
        cut: values near it probably bound the ones that go, which saves a look at the others.

    Returns:
        A boolean array, and the largest value that goes, ``cut`` where none does.
    """
    if surplus == 0:
        return np.ones(len(values), dtype=bool), cut
    low = values[values <= cut * (1 + 2 * SLACK)]
    if len(low) < surplus:
        low = values
    limit = np.partition(low, surplus - 1)[surplus - 1]
    kept = values >= limit
    tied = np.flatnonzero(values == limit)
    going = surplus - (len(values) - int(np.count_nonzero(kept)))
    kept[tied[len(tied) - going :]] = False
    return kept, float(limit)
