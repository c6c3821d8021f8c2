"""Exact top-k by magnitude, fast on a CPU because the threshold of the step before is nearly right.

One pass drops what lies clearly below the old threshold; only the few survivors are looked at one by one. The result
is the exact top-k, ties to the lowest flat index, whatever the hint was: a bad one costs time, never exactness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Below this many entries, torch's own selection is as fast.
SMALL = 4096
#: How far below the old threshold the first pass cuts: weights move little in one step.
SLACK = 1 / 32
_SAMPLE = 8192


def largest(weight: Tensor, k: int, hint: float | None = None) -> tuple[Tensor, float] | None:
    """Flat indices of the ``k`` entries of largest magnitude, ties to the lowest index.

    Args:
        weight: finite contiguous tensor on the CPU, of any shape and floating dtype.
        k: number of entries, in [1, numel].
        hint: the threshold that an earlier call returned for a similar tensor, null for none.

    Returns:
        The indices in ascending order and the smallest magnitude among them; null where fewer than ``k`` entries are
        not zero, so that zeros would have to be chosen.
    """
    flat = weight.detach().reshape(-1)
    if flat.dtype in (torch.bfloat16, torch.float16):
        flat = flat.float()  # exact
    for cut in _cuts(flat, k, hint):
        survivors = F.hardshrink(flat, cut).numpy()  # zero where |w| <= cut
        index = np.flatnonzero(survivors != 0)
        if len(index) >= k:
            values = np.abs(survivors[index])
            kept = _without_smallest(values, len(index) - k, cut * (1 + 2 * SLACK))
            return torch.from_numpy(index[kept]), float(values[kept].min())
    return None


def keep_largest_(weight: Tensor, k: int, hint: float | None = None) -> tuple[Tensor, float] | None:
    """Set all but the ``k`` largest entries to exactly +0.0, in place; the others stay as they are.

    Args:
        weight: finite contiguous tensor on the CPU, of any shape and floating dtype.
        k: number of entries, in [1, numel].
        hint: the threshold that an earlier call returned for a similar tensor, null for none.

    Returns:
        What :func:`largest` returns; where that is null, the tensor is unchanged.
    """
    found = largest(weight, k, hint)
    if found is not None:
        flat = weight.view(-1)
        values = flat[found[0]]
        flat.zero_().index_copy_(0, found[0], values)
    return found


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


def _without_smallest(values: Any, surplus: int, near: float) -> Any:
    """Which of some values stay when the ``surplus`` smallest go, of equal ones the last; boolean.

    Args:
        values: non-negative numbers.
        surplus: how many go.
        near: a value that probably bounds the ones that go, which saves a look at the others.
    """
    if surplus == 0:
        return np.ones(len(values), dtype=bool)
    low = values[values <= near]
    if len(low) < surplus:
        low = values
    limit = np.partition(low, surplus - 1)[surplus - 1]  # the largest value that goes
    kept = values >= limit
    tied = np.flatnonzero(values == limit)
    going = surplus - (len(values) - int(np.count_nonzero(kept)))
    kept[tied[len(tied) - going :]] = False
    return kept
